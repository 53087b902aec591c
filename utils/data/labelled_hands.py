"""The images of the classification coursework: labelled images, a locked part of them, further reals, test images.

If the course's fakes are missing, this project's own 300 + 300 generated hands are used: two thirds as labelled images
and one third as test images. The test images then also include 100 real hands, and their true labels are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from utils import budgets, config
from utils.data import hand_images, image_files
from utils.files import printable

REAL, VAE, GAN = 0, 1, 2
LABELLED_REALS = 500  # the course's real hands of this coursework are the first 500 of coursework 1's
COURSE = "the course's labelled images"
OWN = "OUR OWN GENERATED HANDS, because the course's are not here"
OWN_TEST_REALS = 100  # real test images, if the course's fakes are missing
OWN_TEST_SEED = 0  # seed for the order of these test images
LOCKED_SHARE, LOCK_SEED = 5, 0  # one labelled image in five is locked; the seed of this split
BLANK_STD = 6.0  # grey levels; an image with a smaller standard deviation is blank
FILE_FEATURES = ("bytes", "height", "width", "colour", "quantisation")


class Labelled(NamedTuple):
    """Labelled images without duplicates and without the locked part, and real images for training only."""

    images: np.ndarray  # uint8 (N, 1, 32, 32)
    labels: np.ndarray  # int64 (N,): 0 real, 1 VAE, 2 GAN
    names: list[str]  # folder/name
    groups: np.ndarray  # int64 (N,); near-copies have the same number, see `groups`
    further_reals: np.ndarray  # uint8 (M, 1, 32, 32); none of them is in `images` or in the locked part
    skipped: list[image_files.Skipped]
    locked: int  # number of images in the locked part
    origin: str


class Locked(NamedTuple):
    """The locked part of the labelled images; see `open_locked`."""

    images: np.ndarray  # uint8 (L, 1, 32, 32)
    labels: np.ndarray  # int64 (L,)
    names: list[str]  # folder/name


class Unlabelled(NamedTuple):
    """The images to label, in name order. `names` are the names of the files that could be read."""

    images: np.ndarray  # uint8 (N, 1, 32, 32)
    names: list[str]
    apart: np.ndarray  # bool (N,); false for a near-copy of a labelled image, also of a locked one
    skipped: list[image_files.Skipped]  # test files that could not be read as an image
    truth: np.ndarray | None  # the true labels int64 (N,); known only if the images are our own
    origin: str


def least_images() -> int:
    """The smallest number of images of one class that this profile's notebooks can divide into their folds."""
    folds = max(budgets.classifier().folds, budgets.classifier_tuning().folds)
    return max(LOCKED_SHARE, -(-folds * LOCKED_SHARE // (LOCKED_SHARE - 1)))  # the locked part is not divided


def has_course_fakes(root: Path) -> bool:
    """Are the course's fakes here?

    Raises:
        ValueError: the fakes of only one kind are here.
    """
    found = {kind: any((root / f"{kind}_hands").glob(f"{kind}_hand_*")) for kind in config.CLASSES[1:]}
    if len(set(found.values())) > 1:
        here, missing = sorted(found, key=found.get, reverse=True)
        raise ValueError(
            f"'{printable(root)}' holds the course's images in {here}_hands, but none in {missing}_hands. "
            "Fill both with: python -m utils data --from PATH"
        )
    return found["VAE"]


def _require(found: str, count: int, least: int) -> None:
    if count < least:
        raise ValueError(
            f"{found}, but at least {least} are needed to divide them into folds. "
            "Fill the folder with: python -m utils data --from PATH"
        )


def _reals(root: Path) -> tuple[image_files.ImageFolder, np.ndarray, np.ndarray]:
    """The labelled reals, the further reals, and the real test images: none of these if the course's fakes are here."""
    found = image_files.first(hand_images.read_real(root), budgets.reading().classifier_images)
    for_test = 0 if has_course_fakes(root) else OWN_TEST_REALS
    usable = len(found.names) - for_test
    holds = f"'{printable(root / 'real_hands')}' holds {len(found.names)} different usable images"
    _require(holds, len(found.names), 2 * least_images() + for_test)
    cut = min(LABELLED_REALS, usable // 2)
    return image_files.first(found, cut), found.images[cut:usable], found.images[usable:]


def _fakes(root: Path, kind: str) -> tuple[image_files.ImageFolder, np.ndarray]:
    """The labelled fakes of a kind, and the fake test images: none of these if the course's fakes are here."""
    folder, least = root / f"{kind}_hands", least_images()
    if has_course_fakes(root):
        found = image_files.read(folder, pattern=f"{kind}_hand_*", resize=True)
        cut = len(found.names)
    else:
        found, least = image_files.read(folder, pattern="username_*"), -(-3 * least // 2)
        cut = len(found.names) * 2 // 3
    _require(f"'{printable(folder)}' holds {len(found.names)} usable images", len(found.names), least)
    return image_files.first(found, cut), found.images[cut:]


def load(root: Path = config.PROJECT) -> tuple[Labelled, Unlabelled]:
    """Read the labelled images without the locked part, and the test images.

    Both are in name order. The labelled images have no exact duplicates, not even in different classes. A fifth of
    them is locked: only `open_locked` returns it. Near-copies are on the same side, and so are images that are
    near-copies of the same test image. The profile `smoke` reads only some of the images.

    Raises:
        FileNotFoundError: a class has no folder.
        ValueError: a class has too few images for this profile's folds (the message says how many it has and how many
            are needed), the course's fakes of only one kind are here, its test images are missing, or too few of them
            can be read.
    """
    found, locked, test = _read(root)
    return found._replace(**_part(found, ~locked), locked=int(locked.sum())), test


def open_locked(root: Path = config.PROJECT) -> Locked:
    """Open the locked part: labelled images that no training and no choice has seen. Use it once, at the very end."""
    found, locked, _ = _read(root)
    part = _part(found, locked)
    return Locked(part["images"], part["labels"], part["names"])


def _part(found: Labelled, inside: np.ndarray) -> dict:
    names = [name for name, chosen in zip(found.names, inside) if chosen]
    return {key: getattr(found, key)[inside] for key in ("images", "labels", "groups")} | {"names": names}


def _read(root: Path) -> tuple[Labelled, np.ndarray, Unlabelled]:
    """All labelled images, which of them are locked (bool), and the test images."""
    reals, further, _ = _reals(root)
    parts = [reals, *(_fakes(root, kind)[0] for kind in config.CLASSES[1:])]
    parts = [image_files.first(part, budgets.reading().labelled_images) for part in parts]
    names = [f"{kind}_hands/{name}" for kind, part in zip(config.CLASSES, parts) for name in part.names]
    skipped = [
        image_files.Skipped(f"{kind}_hands/{name}", reason)
        for kind, part in zip(config.CLASSES, parts)
        for name, reason in part.skipped
    ]
    every = image_files.ImageFolder(np.concatenate([part.images for part in parts]), names, skipped)
    label_of = dict(zip(names, np.repeat([REAL, VAE, GAN], [len(part.names) for part in parts])))
    different = image_files.drop_duplicates(every)
    labels = np.array([label_of[name] for name in different.names])
    test = _test(root)
    joint = groups(np.concatenate([different.images, test.images]))
    group = joint[: len(labels)]
    for label, kind in enumerate(config.CLASSES):
        count = len(np.unique(group[labels == label]))
        holds = f"'{printable(root / f'{kind}_hands')}' holds {count} labelled images that are not copies of others"
        _require(holds, count, least_images())
    origin = COURSE if has_course_fakes(root) else OWN
    found = Labelled(different.images, labels, different.names, group, further, different.skipped, 0, origin)
    splitter = StratifiedGroupKFold(LOCKED_SHARE, shuffle=True, random_state=LOCK_SEED)
    _, chosen = next(splitter.split(labels, labels, group))
    locked = np.isin(np.arange(len(labels)), chosen)
    return found, locked, test._replace(apart=~np.isin(joint[len(labels) :], group))


def further_reals(labelled: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """The further real images and their labels, for training."""
    return labelled.further_reals, np.full(len(labelled.further_reals), REAL)


def _test(root: Path) -> Unlabelled:
    """Every `test_hand_*` in `test_hands`. Whether they are near-copies of labelled images is not known here."""
    folder = root / "test_hands"
    if any(folder.glob("test_hand_*")):
        found = image_files.read(folder, pattern="test_hand_*", resize=True)
        found = image_files.first(found, budgets.reading().classifier_images)
        holds = f"'{printable(folder)}' holds {len(found.names)} readable test images"
        _require(holds, len(found.names), 2 * budgets.classifier().folds)
        apart = np.ones(len(found.names), bool)
        return Unlabelled(found.images, found.names, apart, found.skipped, None, f"{folder.name}/")
    if has_course_fakes(root):
        raise ValueError(
            f"'{printable(folder)}' holds no file named test_hand_*, so there is nothing to label. "
            "Fill it with: python -m utils data --from PATH"
        )
    parts = [_reals(root)[2], *(_fakes(root, kind)[1] for kind in config.CLASSES[1:])]
    images, truth = np.concatenate(parts), np.repeat([REAL, VAE, GAN], [len(part) for part in parts])
    order = np.random.default_rng(OWN_TEST_SEED).permutation(len(images))
    names = [f"test_hand_{i + 1:04d}.jpeg" for i in range(len(images))]
    origin = "our own generated hands and real ones, kept out of training: the truth is known"
    return Unlabelled(images[order], names, np.ones(len(images), bool), [], truth[order], origin)


def groups(images: np.ndarray) -> np.ndarray:
    """A group number for each image (N,). Near-copies have the same number, so a split can keep them together.

    Two images are near-copies if their distance is less than `config.NEAR_COPY_RMS`. Near-copies of near-copies are in
    the same group.
    """
    pixels = torch.from_numpy(images).flatten(1).float()
    pairs = []
    for start in range(0, len(pixels), 500):  # all at once would take a gigabyte for 16,000 images
        distance = torch.cdist(pixels[start : start + 500], pixels[start:]) / pixels.shape[1] ** 0.5
        pairs.append((distance < config.NEAR_COPY_RMS).nonzero() + start)
    rows, columns = torch.cat(pairs).T.numpy()
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(images),) * 2)
    return connected_components(graph, directed=False)[1]


def blank(images: np.ndarray) -> np.ndarray:
    """Which of the images are blank, bool (N,): almost the same grey everywhere."""
    return images.reshape(len(images), -1).std(1) < BLANK_STD


def file_features(paths: list[Path]) -> np.ndarray:
    """Properties of files that may reveal the class without the pixels, float (N, 5) in the order of FILE_FEATURES.

    They are the file's size, the image's height and width, whether it is in colour, and the sum of its JPEG
    quantisation table. They are only used to measure how well such shortcuts work. No network gets them.
    """
    rows = []
    for path in paths:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None) or {0: [0]}
            rows.append([path.stat().st_size, image.height, image.width, image.mode != "L", sum(tables[0])])
    return np.array(rows, dtype=float)
