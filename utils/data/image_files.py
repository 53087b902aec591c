"""Image folders <-> uint8 arrays. What could not be read is returned, never swallowed."""

from __future__ import annotations

import fnmatch
import io
import re
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

JPEG_QUALITY = 75  # Pillow's default, and what the course's images were saved with
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")  # not EPS and its like, which start other programs
COURSE_NAME = re.compile(r"(real|VAE|GAN|test)_hand_\d+\.jpe?g")  # the course's own files
NUMBERED = re.compile(r".+_\d{3,}\.jpe?g")
LARGEST_SIDE = 8192  # a header that claims more is set aside before a pixel is decoded


class Skipped(NamedTuple):
    """A file that was not used, and why."""

    name: str
    reason: str


class ImageFolder(NamedTuple):
    """What a folder held: images uint8 (N, 1, H, W) in [0, 255], their names, and what was set aside."""

    images: np.ndarray
    names: list[str]
    skipped: list[Skipped]


def decode(path: Path, size: tuple[int, int], resize: bool) -> np.ndarray | str:
    """One file as a uint8 (H, W) array, or the reason why not."""
    try:
        if path.is_dir():
            return "a folder, not an image"
        if path.stat().st_size == 0:
            return "empty file (0 bytes)"
        with Image.open(path, formats=FORMATS) as image:
            if max(image.size) > LARGEST_SIDE:
                return f"{image.width}x{image.height} pixels is over the limit of {LARGEST_SIDE}"
            if image.size != size and not resize:
                return f"{image.width}x{image.height} pixels instead of {size[0]}x{size[1]}"
            if image.mode.startswith(("I", "F")):
                return f"not an 8-bit image (mode {image.mode})"
            grey = image.convert("L")
            if grey.size != size:
                grey = grey.resize(size, Image.Resampling.BICUBIC)
            return np.asarray(grey)
    except UnidentifiedImageError:
        return "not an image (no known image header)"
    except Exception as error:  # Pillow's decoders raise a dozen kinds; each is a reason, none a crash
        return f"damaged or unreadable: {error}"


def read(folder: str | Path, size: tuple[int, int] = (32, 32), pattern: str = "*", resize: bool = False) -> ImageFolder:
    """Read every image of a folder into one array, in name order.

    Args:
        folder: the folder; hidden files (names with a leading dot) are not looked at.
        size: (width, height) in pixels that an image must have.
        pattern: which names to read, for example ``"VAE_hand_*"``.
        resize: bring other sizes to `size` (bicubic) instead of setting them aside.

    Returns:
        ImageFolder of images uint8 (N, 1, height, width) in [0, 255], N names, and one
        `Skipped(name, reason)` for each file that could not be used. Colour becomes grey.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: the path is a file.
        PermissionError: the folder cannot be read.
        ValueError: no file in it could be read as an image of that size.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder '{folder}'. Fill the data folders with: python -m utils data")
    if not folder.is_dir():
        raise NotADirectoryError(f"'{folder}' is a file, but a folder of images is needed.")
    try:
        names = [p.name for p in folder.iterdir()]
    except PermissionError as error:
        raise PermissionError(f"The folder '{folder}' cannot be read: check its permissions.") from error
    paths = sorted(folder / n for n in names if fnmatch.fnmatch(n, pattern) and not n.startswith("."))
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # odd metadata of an image that decodes is no concern here
        decoded = list(pool.map(lambda path: decode(path, size, resize), paths))
    names = [p.name for p, d in zip(paths, decoded) if not isinstance(d, str)]
    skipped = [Skipped(p.name, d) for p, d in zip(paths, decoded) if isinstance(d, str)]
    if not names:
        first = f" The first: {skipped[0].name}, {skipped[0].reason}." if skipped else ""
        raise ValueError(
            f"'{folder}' holds no usable {size[0]}x{size[1]} image "
            f"({len(skipped)} file(s) named '{pattern}' were set aside).{first}"
        )
    images = np.stack([d for d in decoded if not isinstance(d, str)])[:, None]
    return ImageFolder(images, names, skipped)


def first(found: ImageFolder, count: int | None) -> ImageFolder:
    """The first `count` images of a folder; all where it is None, or there are fewer."""
    return ImageFolder(found.images[:count], found.names[:count], found.skipped)


def drop_duplicates(found: ImageFolder) -> ImageFolder:
    """Keep the first of each set of pixel-identical images; the copies join `skipped`."""
    first_name: dict[bytes, str] = {}
    keep, skipped = [], list(found.skipped)
    for i, (name, image) in enumerate(zip(found.names, found.images)):
        original = first_name.setdefault(image.tobytes(), name)
        if original == name:
            keep.append(i)
        else:
            skipped.append(Skipped(name, f"same pixels as {original}"))
    return ImageFolder(found.images[keep], [found.names[i] for i in keep], skipped)


def write_jpegs(
    images: np.ndarray,
    folder: str | Path,
    prefix: str = "username",
    count: int = 300,
    replace: bool = False,
    comment: str = "",
) -> list[Path]:
    """Write `prefix_001.jpeg`, `prefix_002.jpeg`, ...: 8-bit grey JPEGs, all or none of them.

    All files are made elsewhere first and moved in when the last one is complete, so a full disk or
    an error leaves an older set as it was.

    Args:
        images: uint8 (count, 1, H, W) in [0, 255].
        folder: made where missing; files of other names in it are left alone.
        prefix: start of each name, the student's username in a hand-in.
        count: how many images there must be (the brief asks for exactly 300).
        replace: delete an older set of the same prefix instead of refusing.
        comment: text for each JPEG's comment field.

    Raises:
        TypeError: images are not uint8.
        ValueError: wrong number or shape of images.
        FileExistsError: the folder holds a set of another prefix, or one of this prefix and `replace`
            is off.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 in [0, 255], not {images.dtype}; see folders.to_uint8")
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images must have the shape (N, 1, H, W), not {images.shape}")
    if len(images) != count:
        raise ValueError(f"exactly {count} images are asked for, but {len(images)} were given")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    older = {p for p in folder.iterdir() if NUMBERED.fullmatch(p.name) and not COURSE_NAME.fullmatch(p.name)}
    foreign = {p for p in older if not p.name.startswith(f"{prefix}_")}
    if foreign or (older and not replace):
        raise FileExistsError(
            f"'{folder}' already holds {len(older)} images named {min(older).stem[:-3]}*. Two sets are never mixed: "
            "move the older one away, or, if it has the same name, pass replace=True to replace it."
        )
    digits = max(3, len(str(count)))
    making = Path(tempfile.mkdtemp(prefix=".writing_", dir=folder))
    try:
        for i, image in enumerate(images[:, 0], start=1):
            path = making / f"{prefix}_{i:0{digits}d}.jpeg"
            Image.fromarray(image).save(path, "JPEG", quality=JPEG_QUALITY, comment=comment.encode())
        written = [path.replace(folder / path.name) for path in sorted(making.iterdir())]
        for path in older - set(written):
            path.unlink()
        return written
    finally:
        shutil.rmtree(making, ignore_errors=True)


def to_uint8(images) -> np.ndarray:
    """Floats in [-1, 1], tensor (of any device) or array of any shape, to uint8 in [0, 255] by one fixed map."""
    array = np.asarray(images.cpu() if hasattr(images, "cpu") else images, dtype=np.float32)
    return np.rint((array.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def as_saved(images) -> np.ndarray:
    """Floats (N, 1, H, W) in [-1, 1] to the uint8 that `write_jpegs` and `read` make of them, so that
    what is measured is what is handed in."""

    def through_jpeg(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return np.asarray(Image.open(buffer))

    return np.stack([through_jpeg(image) for image in to_uint8(images)[:, 0]])[:, None]


def to_float(images: np.ndarray):
    """uint8 in [0, 255] to a float32 tensor in [-1, 1], the range of every network here."""
    import torch  # only here, so that reading folders does not need torch

    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """uint8 (N, C, H, W) as one picture uint8 (rows * (H + gap) - gap, columns * (W + gap) - gap), with one more axis
    for colours if C is 3; row by row, white between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return canvas if channels > 1 else canvas[:, :, 0]
