"""Head slices: reading and writing arrays, loading the course's files, splitting, augmenting.

torch and SciPy are imported where they are needed, so that `check` can read a test set without them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import safetensors.numpy

from utils import config, files

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = config.PROJECT / "brain_mri"
IMPUTERS = [FOLDER / "weights" / f"imputer_{number}.safetensors" for number in range(4)]
ANSWER = FOLDER / "test_set_nogaps.npy"
SIZE = (64, 64)
ALIKE = 0.84  # correlation of two slices, at half size, from which on they are kept on one side of a split


class Heads(NamedTuple):
    """Complete head slices, float32 (N, 1, 64, 64) in [0, 1]; no two parts hold slices that are alike."""

    train: Tensor
    validation: Tensor
    test: Tensor


def find(name: str) -> Path:
    """A file of the course, in `brain_mri/`, in the project's folder, above it, or in `../shared/data`.

    Raises:
        FileNotFoundError: it is in none of them.
    """
    for place in (FOLDER, *(config.PROJECT / place for place in (".", "..", "../shared/data"))):
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"'{name}' was not found. Put the course's file into '{FOLDER}'.")


def check(images: np.ndarray, name: str) -> np.ndarray:
    """Images as float32 (N, 1, 64, 64) in [0, 1].

    Raises:
        ValueError: another shape or dtype, values that are no numbers or outside [0, 1]; says which and where.
    """
    if images.ndim != 4 or images.shape[1:] != (1, *SIZE) or not len(images):
        raise ValueError(f"{name} has shape {images.shape}; wanted is (N, 1, {SIZE[0]}, {SIZE[1]}), N at least 1")
    if images.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{name} holds {images.dtype}; wanted are floats in [0, 1]")
    bad = ~np.isfinite(images)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} pixels are not finite, the first in image {np.argwhere(bad)[0][0]}")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"{name}: values from {images.min():.3g} to {images.max():.3g}; wanted are [0, 1]")
    return images.astype(np.float32)


def read(path: str | Path) -> np.ndarray:
    """Images float32 (N, 1, 64, 64) in [0, 1] of a .npy file; nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or not such images (see `check`).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    try:
        images = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's parser of a damaged header raises a dozen kinds, MemoryError among them
        raise ValueError(f"'{path}' is no .npy file of numbers: {error}") from error
    if not isinstance(images, np.ndarray):
        raise ValueError(f"'{path}' is an archive of several arrays; wanted is one .npy array")
    return check(images, f"'{path}'")


def load(stand_in: Callable[[], Tensor] | None = None) -> tuple[Tensor, str]:
    """The course project's complete head slices, float32 (N, 1, 64, 64) in [0, 1], and where they came from.

    Without `heads.npz`, the slices that `stand_in` returns are used, except in the profile `full`.

    Args:
        stand_in: makes slices float32 (N, 1, 64, 64) in [0, 1], as `head_generator.stand_in` does.

    Raises:
        FileNotFoundError: there is no `heads.npz`, and no `stand_in`, or the profile is `full`.
        ValueError: the file is damaged.
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
    except (KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is no archive with head slices: {error}") from error
    if stored.dtype != np.uint8:
        raise ValueError(f"'{path}' holds {stored.dtype}; wanted are uint8 images (N, {SIZE[0]}, {SIZE[1]})")
    images = check(stored[:, None] / np.float32(255), f"'{path}'")
    return torch.from_numpy(images), f"{len(images)} head slices of {path.name}"


def load_test() -> tuple[np.ndarray, str]:
    """The course's test images, float32 (100, 1, 64, 64), missing pixels 0, and where they came from.

    Without `test_set.npy`, they are made from the committed answer, which holds their known pixels unaltered.

    Raises:
        FileNotFoundError, ValueError: as of `read`.
    """
    try:
        path = find("test_set.npy")
    except FileNotFoundError:
        mask = safetensors.numpy.load_file(IMPUTERS[0])["mask"].astype(bool)
        return np.where(mask, 0, read(ANSWER)).astype(np.float32), f"the known pixels of {ANSWER.name}"
    return read(path), path.name


def groups(images: Tensor) -> np.ndarray:
    """A group number for each slice (N,); slices that are alike, as neighbours of one patient are, share one."""
    import torch.nn.functional as F
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pixels = F.avg_pool2d(images, 2).flatten(1)
    pixels = F.normalize(pixels - pixels.mean(1, keepdim=True), dim=1)
    return connected_components(coo_matrix((pixels @ pixels.T > ALIKE).numpy()), directed=False)[1]


def split(images: Tensor, seed: int = 0, held_out: float = 0.15) -> Heads:
    """Split by groups: whole groups go to validation and test, the larger ones stay in training.

    Raises:
        ValueError: too few groups.
    """
    group = groups(images)
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(sizes <= held_out * len(images) / 4))
    ends = np.searchsorted(np.cumsum(sizes[order]), held_out * len(images) * np.array([1, 2]))
    validation, test = np.isin(group, order[: ends[0]]), np.isin(group, order[ends[0] : ends[1]])
    if not validation.any() or not test.any():
        raise ValueError(f"{len(images)} slices in {len(sizes)} groups are too few, or too alike, to be split")
    return Heads(images[~validation & ~test], images[validation], images[test])


def augment(images: Tensor, copies: int, seed: int = 0) -> Tensor:
    """The images (N, 1, H, W) in [0, 1], and `copies` of each that are turned, scaled, squeezed and moved a
    little at random: (N * (copies + 1), 1, H, W)."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(seed)
    count = len(images) * copies
    if not count:
        return images
    angle, scale, squeeze, right, down = torch.randn(5, count, generator=generator)
    angle, scale, squeeze = 0.05 * angle, (0.03 * scale).exp(), (0.02 * squeeze).exp()
    across = torch.stack([scale * squeeze * angle.cos(), -scale * angle.sin(), 0.03 * right], 1)
    along = torch.stack([scale * angle.sin(), scale / squeeze * angle.cos(), 0.03 * down], 1)
    shape = (count, *images.shape[1:])
    grid = F.affine_grid(torch.stack([across, along], 1), shape, align_corners=False)
    moved = F.grid_sample(images.repeat(copies, 1, 1, 1), grid, "bicubic", "border", align_corners=False)
    return torch.cat([images, moved.clamp(0, 1)])


def write(images: np.ndarray, path: str | Path) -> Path:
    """Write an array as .npy, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, images)
    files.write_atomically(Path(path), buffer.getvalue())
    return Path(path)
