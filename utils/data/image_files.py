"""Image folders <-> uint8 arrays. A file that cannot be read is reported with the reason."""

from __future__ import annotations

import fnmatch
import io
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.files import all_or_none, is_utf8, printable

FILLING = ".filling"  # a file in a folder that is being filled with images; not all of them are there yet
JPEG_QUALITY = 75  # Pillow's default; the course's images were saved with it
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")  # without formats such as EPS, for which Pillow starts other programs
ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff")  # upper or lower case
JPEG_ENDINGS = (".jpeg", ".jpg")
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r")  # written by Windows and macOS
COURSE_NAME = re.compile(r"(real|VAE|GAN|test)_hand_\d+\.(?i:jpe?g)")  # the course's own files
NUMBERED = re.compile(r".+_\d{3,}\.(?i:jpe?g)")
LARGEST_SIDE = 8192  # pixels; an image with a longer side is not decoded


class Skipped(NamedTuple):
    """A file that was not used, and why. The name is printable."""

    name: str
    reason: str


class ImageFolder(NamedTuple):
    """A folder's images uint8 (N, 1, H, W) in [0, 255], their N names, and the files that were set aside."""

    images: np.ndarray
    names: list[str]
    skipped: list[Skipped]


def is_noise(name: str) -> bool:
    """Is it a hidden file, or a file that Windows or macOS adds? Such files are ignored without a message."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def is_jpeg(name: str) -> bool:
    """Does the name end like a JPEG's (.jpeg, .JPG, ...)?"""
    return name.lower().endswith(JPEG_ENDINGS) and not is_noise(name)


def image_paths(folder: Path) -> list[Path]:
    """The files in a folder with the ending of an image, in name order. Empty if there is no such folder."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())  # sorting the paths would take ten times as long
    return [folder / name for name in names if name.lower().endswith(ENDINGS) and not is_noise(name)]


def decode(path: Path, size: tuple[int, int], resize: bool) -> np.ndarray | str:
    """One file as a uint8 array of this size (height, width), or the reason why it cannot be used."""
    width_height = size[::-1]  # Pillow's order
    try:
        if not is_utf8(path.name):
            return "its name is not valid UTF-8: rename it"
        if path.is_dir():
            return "a folder, not an image"
        if path.stat().st_size == 0:
            return "empty file (0 bytes)"
        with Image.open(path, formats=FORMATS) as image:
            if max(image.size) > LARGEST_SIDE:
                return f"{image.height} x {image.width} pixels is over the limit of {LARGEST_SIDE}"
            if image.size != width_height and not resize:
                return f"{image.height} x {image.width} pixels (height x width) instead of {size[0]} x {size[1]}"
            if image.mode.startswith(("I", "F")):
                return f"not an 8-bit image (mode {image.mode})"
            grey = image.convert("L")
            if grey.size != width_height:
                grey = grey.resize(width_height, Image.Resampling.BICUBIC)
            return np.asarray(grey)
    except UnidentifiedImageError:
        return "not an image (no known image header)"
    except Exception as error:  # Pillow's decoders raise many kinds of error, and all mean that the file is unusable
        return f"damaged or unreadable: {printable(str(error))}"


def refuse_part(folder: Path) -> None:
    """Raise a ValueError if filling the folder was interrupted, so that it holds only a part of its images."""
    if (folder / FILLING).exists():
        raise ValueError(
            f"'{printable(folder)}' holds only a part of its images, because filling it was interrupted. "
            "Run: python -m utils data (with a network, or with --from PATH)"
        )


def read(folder: str | Path, size: tuple[int, int] = (32, 32), pattern: str = "*", resize: bool = False) -> ImageFolder:
    """Read every image of a folder into one array, in name order. Colour becomes grey.

    Args:
        folder: the folder; hidden files and system files (`is_noise`) are ignored.
        size: (height, width) in pixels that an image must have.
        pattern: which names to read, for example ``"VAE_hand_*"``; upper and lower case matter on every system.
        resize: resize images of other sizes to `size` (bicubic) instead of setting them aside.

    Returns:
        ImageFolder of images uint8 (N, 1, height, width) in [0, 255], N names, and one
        `Skipped(name, reason)` for each file that could not be used.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: the path is a file.
        PermissionError: the folder cannot be read.
        ValueError: no file in it could be read as an image of that size.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(
            f"There is no folder '{printable(folder)}'. Fill the data folders with: python -m utils data"
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"'{printable(folder)}' is a file, but a folder of images is needed.")
    try:
        names = [p.name for p in folder.iterdir()]
        refuse_part(folder)
    except PermissionError as error:
        raise PermissionError(f"The folder '{printable(folder)}' cannot be read: check its permissions.") from error
    paths = sorted(folder / n for n in names if fnmatch.fnmatchcase(n, pattern) and not is_noise(n))
    if not paths:
        raise no_files(folder, pattern)
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # about unusual metadata; only the pixels are used
        decoded = list(pool.map(lambda path: decode(path, size, resize), paths))
    names = [p.name for p, d in zip(paths, decoded) if not isinstance(d, str)]
    skipped = [Skipped(printable(p.name), d) for p, d in zip(paths, decoded) if isinstance(d, str)]
    if not names:
        raise ValueError(
            f"'{printable(folder)}' holds no usable image of {size[0]} x {size[1]} pixels: {len(skipped)} file(s) were "
            f"set aside. The first: {skipped[0].name}, {skipped[0].reason}."
        )
    images = np.stack([d for d in decoded if not isinstance(d, str)])[:, None]
    return ImageFolder(images, names, skipped)


def no_files(folder: Path, pattern: str = "*") -> ValueError:
    """The error to raise if a folder holds no files whose names match the pattern. It says what to do."""
    what = "is empty" if pattern == "*" else f"holds no file named '{pattern}'"
    return ValueError(
        f"'{printable(folder)}' {what}, so there is no usable image. Put images into it. "
        "The folders of the courseworks are filled with: python -m utils data"
    )


def first(found: ImageFolder, count: int | None) -> ImageFolder:
    """The first `count` images of a folder. All of them if `count` is None or there are fewer images."""
    return ImageFolder(found.images[:count], found.names[:count], found.skipped)


def drop_duplicates(found: ImageFolder) -> ImageFolder:
    """Keep the first of each set of pixel-identical images. The others are added to `skipped`."""
    first_name: dict[bytes, str] = {}
    keep, skipped = [], list(found.skipped)
    for i, (name, image) in enumerate(zip(found.names, found.images)):
        original = first_name.setdefault(image.tobytes(), name)
        if original == name:
            keep.append(i)
        else:
            skipped.append(Skipped(printable(name), f"same pixels as {printable(original)}"))
    return ImageFolder(found.images[keep], [found.names[i] for i in keep], skipped)


def write_jpegs(
    images: np.ndarray,
    folder: str | Path,
    prefix: str = "username",
    count: int = 300,
    replace: bool = False,
    comment: str = "",
) -> list[Path]:
    """Write the 8-bit grey JPEGs `prefix_001.jpeg`, `prefix_002.jpeg`, ...

    All files are first written into a hidden folder, and then moved to their place. So a full disk does not change an
    older set.

    Args:
        images: uint8 (count, 1, H, W) in [0, 255].
        folder: it is created if it does not exist; files with other names in it do not change.
        prefix: start of each name; in a hand-in, the student's username.
        count: how many images there must be (the brief asks for exactly 300).
        replace: replace an older set with the same prefix; if it is False, an older set is an error.
        comment: text for each JPEG's comment field.

    Raises:
        TypeError: the images are not uint8.
        ValueError: the number or the shape of the images is wrong.
        FileExistsError: the folder holds a set with another prefix, or a set with this prefix and `replace` is False.
        OSError: the folder cannot be written to, or the disk is full.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 in [0, 255], not {images.dtype}; see image_files.to_uint8")
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images must have the shape (N, 1, H, W), not {images.shape}")
    if len(images) != count:
        raise ValueError(f"exactly {count} images are needed, but {len(images)} were given")
    folder = Path(folder)
    names = [f"{prefix}_{i:0{max(3, len(str(count)))}d}.jpeg" for i in range(1, count + 1)]
    with all_or_none(folder) as part:
        older = {p for p in folder.iterdir() if NUMBERED.fullmatch(p.name) and not COURSE_NAME.fullmatch(p.name)}
        foreign = {p for p in older if not p.name.startswith(f"{prefix}_")}
        if foreign or (older and not replace):
            raise FileExistsError(
                f"'{printable(folder)}' already holds {len(older)} images named {printable(min(older).stem[:-3])}*. "
                "Two sets are never mixed. Move the older one away; if it has the same name, you can also pass "
                "replace=True to replace it."
            )
        for name, image in zip(names, images[:, 0]):
            Image.fromarray(image).save(part / name, "JPEG", quality=JPEG_QUALITY, comment=comment.encode())
    written = [folder / name for name in names]
    for path in older - set(written):
        path.unlink()
    return written


def to_uint8(images) -> np.ndarray:
    """Convert floats in [-1, 1] to uint8 in [0, 255]. Takes a tensor or an array of any shape, and clips its values.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    array = np.asarray(images.cpu() if hasattr(images, "cpu") else images, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("the images hold values that are NaN or infinite: the model that made them has diverged")
    return np.rint((array.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def as_saved(images) -> np.ndarray:
    """Convert floats (N, 1, H, W) in [-1, 1] to uint8, as if `write_jpegs` had written them and `read` had read them.

    So the measured images are the same as the images in the hand-in.
    """

    def through_jpeg(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return np.asarray(Image.open(buffer))

    return np.stack([through_jpeg(image) for image in to_uint8(images)[:, 0]])[:, None]


def to_float(images: np.ndarray):
    """Convert uint8 in [0, 255] to a float32 tensor in [-1, 1], the range of the generative models here."""
    import torch  # only here, so that reading folders does not need torch

    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Put images uint8 (N, C, H, W) into one picture, row by row, with white lines of `gap` pixels between them.

    The picture is uint8 (rows * (H + gap) - gap, columns * (W + gap) - gap). If C is 3, it has a third axis of 3.
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return canvas if channels > 1 else canvas[:, :, 0]
