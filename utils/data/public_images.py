"""Fashion-MNIST (Xiao et al. 2017) and CelebA (Liu et al. 2015), read with torchvision."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils import config, files

FOLDER = config.PROJECT / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # files of the package dataset-fashion-mnist
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
RAW = Path("FashionMNIST") / "raw"
ORIGINALS = {  # size in bytes and SHA-256 of each file as published, unpacked
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
FILES = tuple(ORIGINALS)
FACES = ("woman", "man", "smiling woman", "smiling man")  # from CelebA's attributes Male and Smiling
CELEBA_SIZE = (40, 32)  # height and width of a face here
CELEBA_ALIGNED = (218, 178)  # height and width of CelebA's aligned and cropped images
CELEBA_FACE = (17, 24, 161, 204)  # left, top, right, bottom of the crop in them; it is 4:5, and the head fills it


class Part(NamedTuple):
    """Images uint8 (N, C, H, W) in [0, 255] and the numbers of their classes int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


class Parts(NamedTuple):
    """Training, validation and test images. No image of one part is in another part, pixel for pixel.

    Without a limit, `test` is the published test set.
    """

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    origin: str


def load(name: str, limit: int | None = None) -> Parts:
    """The data set with this name, one of config.DATA_SETS.

    Args:
        limit: at most this many training images, and at most a tenth of this in the other parts.

    Raises:
        ValueError: there is no such data set; see also `fashion_mnist` and `celeba`.
        FileNotFoundError: see `fashion_mnist` and `celeba`.
    """
    if name not in config.DATA_SETS:
        raise ValueError(f"there is no data set '{name}', only {', '.join(config.DATA_SETS)}")
    if name == "Fashion-MNIST":
        return fashion_mnist(limit=limit)
    return celeba(colour=name.endswith("colour"), limit=limit)


def data_folder() -> Path:
    """The folder for downloaded data: the environment variable DATA_FOLDER, or `fashion_mnist/data` without it."""
    return Path(os.environ.get("DATA_FOLDER", FOLDER / "data")).expanduser()


def obtain_fashion_mnist(root: Path, network: bool = True) -> str:
    """Put the four files under `root`, from the first source that has them, and return the name of the source.

    The sources are files that are already there, Debian's package, and torchvision's download.

    Raises:
        FileNotFoundError: no source has all four. The message names three ways to get them.
        ValueError: a file of Debian's package is damaged.
    """
    missing = [name for name in FILES if not (root / RAW / name).is_file()]
    if not missing:
        return f"{root.name}/"
    if all((DEBIAN / f"{name}.gz").is_file() for name in missing):
        for name in missing:
            try:
                content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"'{DEBIAN / name}.gz' is damaged ({error}): reinstall its package") from error
            files.write_atomically(root / RAW / name, content)
        return "Debian's package dataset-fashion-mnist"
    reason = "this was not tried here"
    if network:
        from torchvision import datasets  # slow to import

        try:
            datasets.FashionMNIST(str(root), download=True)
            return "torchvision's download"
        except (RuntimeError, OSError) as error:
            reason = f"this failed: {(str(error).strip() or repr(error)).splitlines()[-1]}"
    raise FileNotFoundError(
        f"Fashion-MNIST is not here: '{root / RAW}' lacks {', '.join(missing)}. Three ways to get it: put the four "
        "files there (unpacked); apt install dataset-fashion-mnist (Debian, Ubuntu); or connect to the network and "
        f"run this again, and torchvision downloads it ({reason})."
    )


def check_originals(root: Path) -> None:
    """Refuse files with Fashion-MNIST's names and sizes but other contents. MNIST's digits are such files.

    Raises:
        ValueError: a file has the size of Fashion-MNIST's file, but other contents.
    """
    for name, (size, sha256) in ORIGINALS.items():
        path = root / RAW / name
        if path.stat().st_size == size and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(
                f"'{path}' is not Fashion-MNIST's file of this name: its SHA-256 differs. MNIST's digits have the same "
                f"file names and sizes. Empty '{path.parent}' and run this again."
            )


def fashion_mnist(
    root: Path | None = None, validation: int = 5000, seed: int = 0, limit: int | None = None, network: bool = True
) -> Parts:
    """Fashion-MNIST, (N, 1, 28, 28), split into training, validation and test images.

    Args:
        root: the data folder; None means `data_folder()`.
        validation: how many of the 60,000 training images become validation images, at most a tenth of them.
        seed: seed of this split.
        limit: at most this many training images, and at most a tenth of this in the other parts.
        network: whether the files may be downloaded.

    Raises:
        FileNotFoundError: see `obtain_fashion_mnist`.
        ValueError: a file is damaged or belongs to another data set (the message says which folder to empty), or a
            part would be empty.
    """
    from torchvision import datasets  # slow to import

    root = data_folder() if root is None else root
    origin = obtain_fashion_mnist(root, network)
    check_originals(root)
    try:
        loaded = [datasets.FashionMNIST(str(root), train=train) for train in (True, False)]
        images, test_images = (part.data.numpy()[:, None] for part in loaded)
        labels, test_labels = (part.targets.numpy().astype(np.int64) for part in loaded)
        if len(images) != len(labels) or len(test_images) != len(test_labels) or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"{images.shape} and {test_images.shape}, {len(labels)} and {len(test_labels)} labels")
    except (AssertionError, ValueError, IndexError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"a file in '{root / RAW}' is truncated or not an idx file ({error}). Empty that folder and run this again."
        ) from error
    order = np.random.default_rng(seed).permutation(len(images))
    cut = min(validation, len(images) // 10)
    chosen = {"validation": order[:cut], "train": order[cut:]}
    parts = {name: Part(images[where], labels[where]) for name, where in chosen.items()}
    parts["test"] = Part(test_images, test_labels)
    if limit is not None:
        sizes = {"train": limit, "validation": limit // 10, "test": limit // 10}
        parts = {name: Part(part.images[: sizes[name]], part.labels[: sizes[name]]) for name, part in parts.items()}
    train = without(parts["train"], parts["validation"], parts["test"])
    return _complete(Parts(train, without(parts["validation"], parts["test"]), parts["test"], CLASSES, origin))


def _complete(parts: Parts) -> Parts:
    """Check that each part has images, and return the parts.

    Raises:
        ValueError: a part is empty, for example because of a small limit.
    """
    counts = {name: len(part.images) for name, part in zip(("training", "validation", "test"), parts)}
    if not all(counts.values()):
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(
            f"{parts.origin} has {found} images, but no part may be empty. The validation and test parts have a tenth "
            "of the training images. So read at least 10 training images, and more if many are the same."
        )
    return parts


def without(part: Part, *others: Part) -> Part:
    """A part without the images that are also in one of the others, pixel for pixel."""
    known = {image.tobytes() for other in others for image in other.images}
    keep = np.array([image.tobytes() not in known for image in part.images], dtype=bool)
    return Part(part.images[keep], part.labels[keep])


def celeba(root: Path | None = None, colour: bool = False, limit: int | None = None) -> Parts:
    """CelebA's faces, cropped and resized to 40 x 32 pixels (height x width): (N, 1 or 3, 40, 32); classes FACES.

    The parts are those of CelebA's authors. No person is in two parts. A copy without the list of these parts is read
    too; see `partial_celeba`.

    Args:
        root: the folder that holds `celeba/`; None means `data_folder()`.
        colour: three channels instead of grey.
        limit: at most this many training images, and at most a tenth of this (but at least 1) in the other parts.

    Raises:
        FileNotFoundError: there are no images, or a list is missing. The message says what is needed.
        ValueError: an image cannot be read or has another shape, or a part is empty. The message says which.
    """
    from torchvision import datasets

    root = data_folder() if root is None else root
    if not (root / "celeba" / "list_eval_partition.txt").is_file():
        return partial_celeba(root / "celeba", colour, limit)
    parts = []
    for split, share in (("train", 1), ("valid", 10), ("test", 10)):
        try:
            found = datasets.CelebA(str(root), split=split)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"'{root / 'celeba'}' holds no complete CelebA ({error}). Needed: the folder img_align_celeba/ and "
                "the files list_eval_partition.txt, identity_CelebA.txt, list_attr_celeba.txt, list_bbox_celeba.txt "
                "and list_landmarks_align_celeba.txt beside it, unchanged, from its authors' page."
            ) from error
        names = found.filename[: None if limit is None else max(1, limit // share)]
        male, smiling = (found.attr[: len(names), found.attr_names.index(name)] for name in ("Male", "Smiling"))
        if not names:
            raise ValueError(f"'{root / 'celeba' / 'list_eval_partition.txt'}' names no images of the part '{split}'")
        paths = [Path(found.root) / found.base_folder / "img_align_celeba" / name for name in names]
        faces = [_face(path, path, colour) for path in paths]
        parts.append(Part(np.stack(faces), (male + 2 * smiling).numpy()))
    return Parts(*parts, FACES, "celeba/")


def partial_celeba(folder: Path, colour: bool, limit: int | None) -> Parts:
    """Some of CelebA's aligned images, without its lists: JPEGs in `folder` or below, or one .tar file of them.

    A tenth of the images is for validation and a tenth for testing, chosen at random, always in the same way. Without
    the lists, one person can be in two parts, and all images have the same class.

    Raises:
        FileNotFoundError: there are no images.
        ValueError: see `celeba`.
    """
    archives, paths = sorted(folder.glob("*.tar")), sorted(folder.rglob("*.jpg"), key=lambda path: path.name)
    if not paths and archives:
        with tarfile.open(archives[0]) as archive:
            members = [member for member in archive if member.isfile() and member.name.endswith(".jpg")]
            sources = {member.name: io.BytesIO(archive.extractfile(member).read()) for member in members}
    else:
        sources = {str(path): path for path in paths}
    if not sources:
        raise FileNotFoundError(
            f"'{folder}' holds no CelebA. Needed: from its authors' page, the folder img_align_celeba/ and the files "
            "list_eval_partition.txt, identity_CelebA.txt, list_attr_celeba.txt, list_bbox_celeba.txt and "
            "list_landmarks_align_celeba.txt beside it, unchanged; or a part of the aligned images, in a folder or in "
            "a .tar file."
        )
    order, tenth = np.random.default_rng(0).permutation(len(sources)), len(sources) // 10
    chosen = (order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth])
    if limit is not None:
        chosen = [places[: max(1, limit // share)] for places, share in zip(chosen, (1, 10, 10))]
    names = sorted(sources)
    images = [
        np.stack([_face(sources[names[place]], names[place], colour) for place in places])
        if len(places)
        else np.zeros((0, 1))
        for places in chosen
    ]
    train, validation, test = (Part(found, np.zeros(len(found), dtype=np.int64)) for found in images)
    origin = f"{folder.name}/: a part of CelebA without its lists, {len(sources)} images; a person can be in two parts,"
    return _complete(Parts(without(train, validation, test), without(validation, test), test, ("face",), origin))


def _face(source: Path | io.BytesIO, name: str | Path, colour: bool) -> np.ndarray:
    """The face in one of CelebA's aligned images of any size, uint8 (1 or 3, 40, 32). Errors give its name."""
    try:
        with Image.open(source, formats=("JPEG", "PNG")) as image:
            scale = image.width / CELEBA_ALIGNED[1], image.height / CELEBA_ALIGNED[0]
            size = image.size[::-1]
            box = tuple(place * scale[i % 2] for i, place in enumerate(CELEBA_FACE))
            face = image.convert("RGB").resize(CELEBA_SIZE[::-1], Image.Resampling.BICUBIC, box, reducing_gap=3.0)
            pixels = np.asarray(face if colour else face.convert("L"))
    except OSError as error:
        raise ValueError(f"'{name}' is missing or not a readable image: {error}") from error
    if abs(scale[0] / scale[1] - 1) > 0.02:
        raise ValueError(
            f"'{name}' has {size[0]} x {size[1]} pixels (height x width), but CelebA's aligned and cropped images have "
            f"{CELEBA_ALIGNED[0]} x {CELEBA_ALIGNED[1]}, or a part of it"
        )
    return pixels.transpose(2, 0, 1) if colour else pixels[None]
