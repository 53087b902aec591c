"""The images of the classification coursework: labelled ones, further reals, and the test images.

Where the course's fakes are not there, this project's own 300 + 300 hands take their place, two thirds
as labelled and one third, with held-out reals, as test images; then the test's truth is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from utils import budgets, config
from utils.data import hand_images, image_files

REAL, VAE, GAN = 0, 1, 2
LABELLED_REALS = 500  # the course's real hands of this coursework are the first 500 of coursework 1's
COURSE = "the course's labelled images"
OWN_TEST_REALS = 100  # where the course's test images are not there
BLANK = 6.0  # grey levels of standard deviation below which an image shows nothing


class Labelled(NamedTuple):
    """Different images with labels; uint8 (N, 1, 32, 32), int64 (N,) of 0 real, 1 VAE, 2 GAN."""

    images: np.ndarray
    labels: np.ndarray
    names: list[str]  # folder/name
    further_reals: np.ndarray  # uint8 (M, 1, 32, 32), none of them among `images`
    skipped: list[image_files.Skipped]
    origin: str


class Unlabelled(NamedTuple):
    """The images to label, in name order; `names` are those that could be read."""

    images: np.ndarray
    names: list[str]
    skipped: list[image_files.Skipped]  # test files that are no image
    foreign: list[str]  # files that are no test files, by their names
    truth: np.ndarray | None  # int64 (N,), known only where the images are our own
    origin: str


def _course_folder(root: Path, kind: str) -> image_files.ImageFolder | None:
    """The course's fakes of a kind, brought to one size; None where there are none."""
    folder = root / f"{kind}_hands"
    if not list(folder.glob(f"{kind}_hand_*")):
        return None
    return image_files.read(folder, pattern=f"{kind}_hand_*", resize=True)


def _own_folder(root: Path, kind: str) -> image_files.ImageFolder:
    return image_files.read(root / f"{kind}_hands", pattern="username_*")


def _reals(root: Path) -> image_files.ImageFolder:
    found = hand_images.read_real(root)
    return image_files.first(found, budgets.reading().classifier_images)


def load_labelled(root: Path = config.PROJECT) -> Labelled:
    """Read the three classes, in name order, without exact duplicates (also between classes).

    Raises:
        FileNotFoundError, ValueError: a class has no folder, or no readable image; says which.
    """
    reals = _reals(root)
    count = min(LABELLED_REALS, len(reals.names) // 2)
    parts = [image_files.ImageFolder(reals.images[:count], reals.names[:count], reals.skipped)]
    origin = COURSE
    for kind in ("VAE", "GAN"):
        fakes = _course_folder(root, kind)
        if fakes is None:
            fakes = _own_folder(root, kind)
            cut = len(fakes.names) * 2 // 3
            fakes = image_files.ImageFolder(fakes.images[:cut], fakes.names[:cut], fakes.skipped)
            origin = "OUR OWN GENERATED HANDS, not the course's: they are not here"
        parts.append(fakes)
    parts = [image_files.first(part, budgets.reading().labelled_images) for part in parts]
    names = [f"{kind}_hands/{name}" for kind, part in zip(("real", "VAE", "GAN"), parts) for name in part.names]
    skipped = [
        image_files.Skipped(f"{kind}_hands/{name}", reason)
        for kind, part in zip(("real", "VAE", "GAN"), parts)
        for name, reason in part.skipped
    ]
    every = image_files.ImageFolder(np.concatenate([part.images for part in parts]), names, skipped)
    label_of = dict(zip(names, np.repeat([REAL, VAE, GAN], [len(part.names) for part in parts])))
    different = image_files.drop_duplicates(every)
    labels = np.array([label_of[name] for name in different.names])
    further = reals.images[count:] if origin == COURSE else reals.images[count:-OWN_TEST_REALS]
    return Labelled(different.images, labels, different.names, further, different.skipped, origin)


def further_reals(labelled: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """The further real images and their labels, for training on."""
    return labelled.further_reals, np.full(len(labelled.further_reals), REAL)


def load_test(root: Path = config.PROJECT, seed: int = 0) -> Unlabelled:
    """Read `test_hands`, every `test_hand_*` in it (some in the profile `smoke`): what is no image is named in
    `skipped`, and files of other names in `foreign`.

    Raises:
        ValueError: there are the course's fakes but no test images, or none that can be read.
    """
    folder = root / "test_hands"
    names = sorted(p.name for p in folder.glob("*") if not image_files.is_noise(p.name)) if folder.is_dir() else []
    foreign = [name for name in names if not name.startswith("test_hand_")]
    if len(foreign) < len(names):
        found = image_files.read(folder, pattern="test_hand_*", resize=True)
        found = image_files.first(found, budgets.reading().classifier_images)
        return Unlabelled(found.images, found.names, found.skipped, foreign, None, f"{folder.name}/")
    if _course_folder(root, "VAE") is not None:
        raise ValueError(
            f"'{folder}' holds no file named test_hand_*, so there is nothing to label. "
            "Fill it with: python -m utils data --from PATH"
        )
    parts = [_reals(root).images[-OWN_TEST_REALS:]]
    for kind in ("VAE", "GAN"):
        fakes = _own_folder(root, kind).images
        parts.append(fakes[len(fakes) * 2 // 3 :])
    images, truth = np.concatenate(parts), np.repeat([REAL, VAE, GAN], [len(part) for part in parts])
    order = np.random.default_rng(seed).permutation(len(images))
    names = [f"test_hand_{i + 1:04d}.jpeg" for i in range(len(images))]
    origin = "our own generated hands and real ones, kept out of training: the truth is known"
    return Unlabelled(images[order], names, [], foreign, truth[order], origin)


def groups(images: np.ndarray) -> np.ndarray:
    """A group number for each image (N,); images that are nearly copies share one, so that a split can
    keep them on one side. Copies of copies count as copies."""
    pixels = torch.from_numpy(images).flatten(1).float()
    pairs = []
    for start in range(0, len(pixels), 500):  # all at once would take a gigabyte for 16,000 images
        distance = torch.cdist(pixels[start : start + 500], pixels[start:]) / pixels.shape[1] ** 0.5
        pairs.append((distance < config.NEAR_COPY_RMS).nonzero() + start)
    rows, columns = torch.cat(pairs).T.numpy()
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(images),) * 2)
    return connected_components(graph, directed=False)[1]


def blank(images: np.ndarray) -> np.ndarray:
    """Which images (N,) show nothing but one grey."""
    return images.reshape(len(images), -1).std(1) < BLANK


FILE_FEATURES = ("bytes", "width", "height", "colour", "quantisation")


def file_features(paths: list[Path]) -> np.ndarray:
    """What a file betrays without a look at its pixels, float (N, 5) as in FILE_FEATURES: its size, the
    image's sides, whether it is colour, and the sum of its JPEG quantisation table.

    Only for showing what such shortcuts are worth; no network here gets to see them.
    """
    rows = []
    for path in paths:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None) or {0: [0]}
            rows.append([path.stat().st_size, *image.size, image.mode != "L", sum(tables[0])])
    return np.array(rows, dtype=float)
