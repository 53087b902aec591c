"""Fashion-MNIST (Xiao et al. 2017) and CelebA (Liu et al. 2015), read by torchvision and split by seed."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils import config, files

FOLDER = config.PROJECT / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
RAW = Path("FashionMNIST") / "raw"
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
FACES = ("woman", "man", "smiling woman", "smiling man")  # from CelebA's attributes Male and Smiling
CELEBA_SIZE = (32, 40)  # width and height of a face
CELEBA_FACE = (17, 24, 161, 204)  # left, top, right, bottom in the aligned 178 x 218 images: 4:5, the head fills it


class Part(NamedTuple):
    """Images uint8 (N, C, H, W) in [0, 255] and the numbers of their classes int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


class Parts(NamedTuple):
    """No image of one part is in another one, pixel for pixel; `test` is as published, but for what `load` drops."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    origin: str


def load(name: str, limit: int | None = None) -> Parts:
    """The data set of that name, one of config.DATA_SETS, from the data folder or where else its own function looks.

    Raises:
        ValueError: no such name; and as of `fashion_mnist` and `celeba`.
    """
    if name not in config.DATA_SETS:
        raise ValueError(f"there is no data set '{name}' here, only {', '.join(config.DATA_SETS)}")
    if name == "Fashion-MNIST":
        return fashion_mnist(limit=limit)
    return celeba(colour=name.endswith("colour"), limit=limit)


def data_folder() -> Path:
    """Where downloaded data are kept: the environment variable DATA_FOLDER, else `fashion_mnist/data`."""
    return Path(os.environ.get("DATA_FOLDER", FOLDER / "data")).expanduser()


def obtain_fashion_mnist(root: Path, network: bool = True) -> str:
    """See to it that the four files are under `root`, from the first source that has them; says which.

    The sources: files that are there already, Debian's package, torchvision's download.

    Raises:
        FileNotFoundError: none of them has all four; names the three ways to get them.
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
    reason = "the network was not asked"
    if network:
        from torchvision import datasets

        try:
            datasets.FashionMNIST(str(root), download=True)
            return "torchvision's download"
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[-1]
    raise FileNotFoundError(
        f"Fashion-MNIST is not here: '{root / RAW}' lacks {', '.join(missing)}. Three ways to get it: put the four "
        "files there (unpacked); apt install dataset-fashion-mnist (Debian, Ubuntu); or connect to the network and "
        f"run this again, and torchvision downloads it (tried: {reason})."
    )


def fashion_mnist(
    root: Path | None = None, validation: int = 5000, seed: int = 0, limit: int | None = None, network: bool = True
) -> Parts:
    """Fashion-MNIST, (N, 1, 28, 28), split into training, validation and test images.

    Args:
        root: the data folder; `data_folder()` without one.
        validation: how many of the 60,000 are kept out for choosing, at most a tenth of them.
        seed: of that split.
        limit: use at most so many training images, and a tenth as many of the other parts.

    Raises:
        FileNotFoundError: as of `obtain_fashion_mnist`.
        ValueError: a file is damaged; says which folder to empty.
    """
    from torchvision import datasets  # takes seconds, for which an import of this module need not wait

    root = data_folder() if root is None else root
    origin = obtain_fashion_mnist(root, network)
    try:
        loaded = [datasets.FashionMNIST(str(root), train=train) for train in (True, False)]
        images, test_images = (part.data.numpy()[:, None] for part in loaded)
        labels, test_labels = (part.targets.numpy().astype(np.int64) for part in loaded)
        if len(images) != len(labels) or len(test_images) != len(test_labels) or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"{images.shape} and {test_images.shape}, {len(labels)} and {len(test_labels)} labels")
    except (AssertionError, ValueError, IndexError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"a file in '{root / RAW}' is truncated or no idx file ({error}). Empty that folder and run this again."
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
    return Parts(train, without(parts["validation"], parts["test"]), parts["test"], CLASSES, origin)


def without(part: Part, *others: Part) -> Part:
    """A part without the images that are in one of the others as well, pixel for pixel."""
    known = {image.tobytes() for other in others for image in other.images}
    keep = np.array([image.tobytes() not in known for image in part.images], dtype=bool)
    return Part(part.images[keep], part.labels[keep])


def celeba(root: Path | None = None, colour: bool = False, limit: int | None = None) -> Parts:
    """CelebA's faces, cropped and brought to 32 x 40 pixels (width x height): (N, 1 or 3, 40, 32); FACES.

    The parts are CelebA's own, in which no person is in two of them.

    Args:
        root: the folder that holds `celeba/`; `data_folder()` without one.
        colour: three channels instead of grey.
        limit: at most so many training images, and a tenth as many of the other parts.

    Raises:
        FileNotFoundError: there is no complete copy; says what is needed.
        ValueError: an image cannot be read; says which.
    """
    from torchvision import datasets

    root = data_folder() if root is None else root
    parts = []
    for split, share in (("train", 1), ("valid", 10), ("test", 10)):
        try:
            found = datasets.CelebA(str(root), split=split)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"'{root / 'celeba'}' holds no complete CelebA ({error}). Wanted: the folder img_align_celeba/ and "
                "the files list_eval_partition.txt, identity_CelebA.txt, list_attr_celeba.txt, list_bbox_celeba.txt "
                "and list_landmarks_align_celeba.txt beside it, unaltered, from its authors' page."
            ) from error
        names = found.filename[: None if limit is None else max(1, limit // share)]
        male, smiling = (found.attr[: len(names), found.attr_names.index(name)] for name in ("Male", "Smiling"))
        faces = [_face(Path(found.root) / found.base_folder / "img_align_celeba" / name, colour) for name in names]
        parts.append(Part(np.stack(faces), (male + 2 * smiling).numpy()))
    return Parts(*parts, FACES, "celeba/")


def _face(path: Path, colour: bool) -> np.ndarray:
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            face = image.convert("RGB" if colour else "L").crop(CELEBA_FACE)
            pixels = np.asarray(face.resize(CELEBA_SIZE, Image.Resampling.BICUBIC, reducing_gap=3.0))
    except OSError as error:
        raise ValueError(f"'{path}' is missing or no readable image: {error}") from error
    return pixels.transpose(2, 0, 1) if colour else pixels[None]
