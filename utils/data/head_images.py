"""Head slices: reading and writing arrays, loading the course's files, splitting.

torch and SciPy are imported where they are needed, so that `check` can read a test set without them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import safetensors.numpy

from utils import config, files

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = config.PROJECT / "brain_mri"
IMPUTERS = [FOLDER / "weights" / f"imputer_{number}.safetensors" for number in range(3)]
ANSWER = FOLDER / "test_set_nogaps.npy"
SIZE = (64, 64)  # height and width in pixels
ROUNDING = 1e-5  # values outside [0, 1] by at most this much are taken as rounding errors
SIMILAR = 0.84  # two slices with a higher correlation, at half size, stay in the same part of a split
HELD_OUT = 0.15  # share of the slices in the validation part of a split, and in the test part
LEAST_SLICES = math.ceil(4 / HELD_OUT)  # fewer cannot be split, even if all differ


class Heads(NamedTuple):
    """Complete head slices, float32 (N, 1, 64, 64) in [0, 1]. Similar slices are always in the same part."""

    train: Tensor
    validation: Tensor
    test: Tensor


def find(name: str) -> Path:
    """The path of a file of the course.

    It is looked for in `brain_mri/`, the project's folder, the folder above it, and `../shared/data`.

    Raises:
        FileNotFoundError: the file is in none of these folders.
    """
    for place in (FOLDER, *(config.PROJECT / place for place in (".", "..", "../shared/data"))):
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"'{name}' was not found. Put the course's file into '{FOLDER}'.")


def to_heads(images: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Convert an array of head slices to float32 (N, 1, 64, 64) in [0, 1]. Returns it, and a line for each change.

    The floats can have any precision, byte order and memory order. The shapes (N, 64, 64), (64, 64) and (N, 64, 64, 1)
    are accepted too. Values outside [0, 1] by at most ROUNDING are set to 0 or 1.

    Raises:
        ValueError: the array has another shape, type or value. The message says what was found, and where.
    """
    changes = []
    images, shape = _with_channel(images), images.shape
    if images.shape != shape:
        changes.append(f"shape {shape} was read as {images.shape}")
    if images.dtype.kind != "f":
        hint = "; divide grey levels by 255" if images.dtype.kind in "iu" else ""
        raise ValueError(f"numbers of type {images.dtype}, but floats in [0, 1] are needed{hint}")
    _refuse_values(images, ~np.isfinite(images), "is not a finite number")
    _refuse_values(images, (images < -ROUNDING) | (images > 1 + ROUNDING), "is outside [0, 1]")
    for wrong, bound, name in ((images > 1, 1, "up to"), (images < 0, 0, "down to")):
        if wrong.any():
            extreme = images.max() if bound else images.min()
            changes.append(f"{wrong.sum()} value(s) {name} {extreme:.8g} were set to {bound}")
    if images.dtype != np.float32 or not images.dtype.isnative or not images.flags.c_contiguous:
        order = "" if images.flags.c_contiguous else ", not in C order,"
        endian = {">": "big-endian ", "<": "little-endian "}[images.dtype.str[0]] if not images.dtype.isnative else ""
        changes.append(f"{endian}{images.dtype.name} numbers{order} were read as float32")
    return np.ascontiguousarray(images.clip(0, 1), dtype=np.float32), changes


def _with_channel(images: np.ndarray) -> np.ndarray:
    """The array with the axes (N, 1, 64, 64). A shape whose meaning is not certain is an error."""
    shape = images.shape
    if images.size and shape[-2:] == SIZE and (len(shape) in (2, 3) or (len(shape) == 4 and shape[1] == 1)):
        return images.reshape(-1, 1, *SIZE) if len(shape) < 4 else images
    if images.size and len(shape) == 4 and shape[1:] == (*SIZE, 1):
        return np.moveaxis(images, 3, 1)
    raise ValueError(f"shape {shape}, but (N, 1, {SIZE[0]}, {SIZE[1]}) is needed, with N at least 1")


def _refuse_values(images: np.ndarray, wrong: np.ndarray, problem: str) -> None:
    if not wrong.any():
        return
    number, _, row, column = np.argwhere(wrong)[0]
    hint = ""
    if np.isfinite(images).all() and images.max() > 1 and images.min() >= 0 and images.max() <= 255:
        hint = ". Divide grey levels by 255"
    raise ValueError(
        f"{images[number, 0, row, column]:.8g} in image {number}, row {row}, column {column} {problem} "
        f"({wrong.sum()} value(s) in total; positions start at 0){hint}"
    )


def load_array(content: bytes, name: str) -> np.ndarray:
    """The array in the content of a .npy file. Nothing in it is executed.

    Args:
        name: the file's printable name, for the messages.

    Raises:
        ValueError: it is not a .npy file, is damaged, or holds Python objects. The message says which.
    """
    if content.startswith(b"PK"):
        raise ValueError(f"'{name}' is an archive of several arrays (.npz), but one .npy array is needed")
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(f"'{name}' is not a .npy file; write one with numpy.save")
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds of error for a damaged header, even a MemoryError
        if "allow_pickle" in str(error):
            raise ValueError(f"'{name}' holds Python objects, not numbers") from error
        raise ValueError(f"'{name}' is damaged, or not a .npy file of numbers: {error}") from error


def read(path: str | Path, report: Callable[[str], None] = print) -> np.ndarray:
    """Read images float32 (N, 1, 64, 64) in [0, 1] from a .npy file. Nothing in the file is executed.

    Args:
        report: is called with one line for each change that `to_heads` makes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a .npy file of one array, or does not hold head slices (see `to_heads`).
    """
    name = files.printable(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file '{name}'.")
    stored = load_array(Path(path).read_bytes(), name)
    try:
        images, changes = to_heads(stored)
    except ValueError as error:
        raise ValueError(f"'{name}' does not hold head images: {error}") from error
    for change in changes:
        report(f"'{name}': {change}")
    return images


def load(stand_in: Callable[[], Tensor] | None = None) -> tuple[Tensor, str]:
    """The course project's complete head slices, float32 (N, 1, 64, 64) in [0, 1], and where they came from.

    Without `heads.npz`, the slices that `stand_in` returns are used, except in the profile `full`.

    Args:
        stand_in: makes slices float32 (N, 1, 64, 64) in [0, 1], as `shipped.stand_in_heads` does.

    Raises:
        FileNotFoundError: there is no `heads.npz`, and `stand_in` is None or the profile is `full`.
        ValueError: the file is damaged or holds other images.
    """
    import torch

    try:
        path = find("heads.npz")
    except FileNotFoundError:
        if stand_in is None or config.profile() == "full":
            raise
        images = stand_in()
        return images, f"STAND-IN DATA, NOT A RESULT: {len(images)} heads sampled from the shipped generator"
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored = archive["images"]
    except Exception as error:  # as in `read`
        raise ValueError(f"'{path}' is not an archive with head slices: {error}") from error
    if stored.dtype != np.uint8:
        raise ValueError(f"'{path}' holds {stored.dtype}, but uint8 images (N, {SIZE[0]}, {SIZE[1]}) are needed")
    try:
        images, _ = to_heads(stored / np.float32(255))
    except ValueError as error:
        raise ValueError(f"'{path}' does not hold head images: {error}") from error
    return torch.from_numpy(images), f"{len(images)} head slices of {path.name}"


def sources() -> np.ndarray:
    """The name (N,) of the file that each slice of `heads.npz` comes from, such as `Training/notumor/Tr-no_0123.jpg`.

    Raises:
        FileNotFoundError: there is no `heads.npz`.
    """
    with np.load(find("heads.npz"), allow_pickle=False) as archive:
        return archive["source"]


def load_test() -> tuple[np.ndarray, str]:
    """The course's test images, float32 (100, 1, 64, 64), with missing pixels 0, and where they came from.

    Without `test_set.npy`, they are made from the committed answer, in which their known pixels are unchanged.

    Raises:
        FileNotFoundError, ValueError: see `read`.
    """
    try:
        path = find("test_set.npy")
    except FileNotFoundError:
        mask = safetensors.numpy.load_file(IMPUTERS[0])["mask"].astype(bool)
        return np.where(mask, 0, read(ANSWER)).astype(np.float32), f"the known pixels of {ANSWER.name}"
    return read(path), path.name


def groups(images: Tensor) -> np.ndarray:
    """A group number for each slice (N,). Similar slices, such as neighbours in one patient, have the same number."""
    import torch.nn.functional as F
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pixels = _half_size(images)
    pixels = F.normalize(pixels - pixels.mean(1, keepdim=True), dim=1)
    return connected_components(coo_matrix((pixels @ pixels.T > SIMILAR).numpy()), directed=False)[1]


def split(images: Tensor, seed: int = 0) -> Heads:
    """Split slices (N, 1, 64, 64) by groups: small groups go to validation and test, large ones stay in training.

    Validation and test get about `HELD_OUT` of the slices each. A group with more than a quarter of that many slices
    stays in training, so that both parts have several groups.

    Raises:
        ValueError: there are too few slices, or too many of them are similar.
    """
    group = groups(images)
    sizes, held_out = np.bincount(group), HELD_OUT * len(images)
    small = np.flatnonzero(sizes <= held_out / 4)
    if sizes[small].sum() < 2 * held_out:
        raise ValueError(
            f"{len(images)} slices are too few, or too similar, to be split: validation and test need "
            f"{2 * held_out:.1f} slices from groups of at most {held_out / 4:.1f} similar ones, but there are "
            f"{sizes[small].sum()}. If all slices differ, at least {LEAST_SLICES} are needed."
        )
    order = np.random.default_rng(seed).permutation(small)
    ends = np.searchsorted(np.cumsum(sizes[order]), held_out * np.array([1, 2]))
    validation, test = np.isin(group, order[: ends[0]]), np.isin(group, order[ends[0] : ends[1]])
    return Heads(images[~validation & ~test], images[validation], images[test])


def likeness_groups(images: Tensor) -> np.ndarray:
    """A group number (N,), from 0, for each image (N, 1, H, W). There are N / 4 groups of images that are alike.

    They are made by complete linkage, with 1 - correlation at half size as the distance. `groups` is stricter: it would
    join nearly all test images to one group, because all of them are similar.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    return fcluster(linkage(_half_size(images).numpy(), "complete", "correlation"), len(images) // 4, "maxclust") - 1


def folds(group: np.ndarray, count: int) -> np.ndarray:
    """The fold (N,) of each image, in 0 ... count - 1. All images of a group, int (N,), are in the same fold.

    Each group goes to the fold that is smallest so far, large groups first.
    """
    fold, sizes = np.zeros(len(group), dtype=int), np.zeros(count)
    for number in np.argsort(-np.bincount(group), kind="stable"):
        fold[group == number] = sizes.argmin()
        sizes[sizes.argmin()] += (group == number).sum()
    return fold


def _half_size(images: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.avg_pool2d(images, 2).flatten(1)


def write_folder(heads: Tensor, folder: str | Path) -> Path:
    """Write heads (N, 1, 64, 64) in [0, 1] as 8-bit images `head_0000.png`, ... into a new or empty folder.

    Raises:
        OSError: see `files.all_or_none`.
    """
    from PIL import Image

    with files.all_or_none(Path(folder)) as part:
        for number, head in enumerate((255 * heads[:, 0]).round().byte().cpu().numpy()):
            Image.fromarray(head).save(part / f"head_{number:04d}.png")
    return Path(folder)


def read_folder(folder: str | Path) -> Tensor:
    """The heads float32 (N, 1, 64, 64) in [0, 1] that `write_folder` wrote, in the order of their names.

    Raises:
        FileNotFoundError: there are no such files.
    """
    import torch
    from PIL import Image

    paths = sorted(Path(folder).glob("head_*.png"))
    if not paths:
        raise FileNotFoundError(f"There are no generated heads in '{files.printable(folder)}'.")
    images = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    return torch.from_numpy(images)[:, None].float() / 255


def write(images: np.ndarray, path: str | Path) -> Path:
    """Write an array as a .npy file, completely or not at all.

    Raises:
        OSError: see `files.write_atomically`.
    """
    buffer = io.BytesIO()
    np.save(buffer, images)
    files.write_atomically(Path(path), buffer.getvalue())
    return Path(path)
