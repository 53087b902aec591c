"""Head slices: loading, splitting, generating, and filling their missing stripes; `python -m utils.heads --help`."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from utils import checkpoints, runs, unet
from utils.diffusion import Diffusion
from utils.unet import Imputer

FOLDER = runs.PROJECT / "brain_mri"
GENERATOR = FOLDER / "weights" / "head_generator.safetensors"
IMPUTERS = [FOLDER / "weights" / f"imputer_{number}.safetensors" for number in range(4)]
ANSWER = FOLDER / "test_set_nogaps.npy"
SIZE = (64, 64)
STAND_IN_STEPS = 10
FEW = 5  # images; in fewer, background and gaps cannot be told apart
STRAY = 0.01  # share of pixels outside the mask that may be 0 in all images, by chance
LEAST_MISSING = 0.2  # share of pixels from which on a foreign mask is believed
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
    for place in (FOLDER, *(runs.PROJECT / place for place in (".", "..", "../shared/data"))):
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


def load(stand_in: int = 80) -> tuple[Tensor, str]:
    """The course project's complete head slices, float32 (N, 1, 64, 64) in [0, 1], and where they came from.

    Without `heads.npz`, slices sampled from the shipped generator stand in, except in the profile `full`.

    Raises:
        FileNotFoundError: there is no `heads.npz`, and the profile is `full`.
        ValueError: the file is damaged.
    """
    try:
        path = find("heads.npz")
    except FileNotFoundError:
        if runs.profile() == "full":
            raise
        images = torch.cat(own_heads(stand_in, STAND_IN_STEPS, 100, seed=1))
        return images, f"STAND-IN DATA, NOT A RESULT: {stand_in} heads sampled from the shipped generator"
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
        mask = Imputer.from_weights(IMPUTERS[0]).mask.numpy()
        return np.where(mask, 0, read(ANSWER)).astype(np.float32), f"the known pixels of {ANSWER.name}"
    return read(path), path.name


def groups(images: Tensor) -> np.ndarray:
    """A group number for each slice (N,); slices that are alike, as neighbours of one patient are, share one."""
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


def generate(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
) -> list[Tensor]:
    """New heads as a list of batches (<= batch_size, 1, 64, 64), values in about [0, 1].

    The course's own generator (`ese_invldm`) where it is installed and works; else the diffusion model whose
    weights this repository ships (`utils.diffusion`). Arguments as of `Diffusion.sample`.

    Raises:
        FileNotFoundError, CheckpointDamaged: neither the course's generator nor our weights can be used.
    """
    arguments = (num_samples, num_inference_steps, batch_size)
    options = {"scheduler": scheduler, "temperature": temperature, "seed": seed}
    try:
        from ese_invldm import generate as course_generate

        return course_generate(*arguments, **options)
    except Exception as error:  # whatever goes wrong in it, there is another generator
        if getattr(error, "name", None) != "ese_invldm":  # it is there, but does not work
            print(f"ese_invldm failed ({error!r}); our own generator is used instead")
    return own_heads(*arguments, **options)


def own_heads(num_samples: int, num_inference_steps: int, batch_size: int, **options) -> list[Tensor]:
    """`generate` by our own diffusion model, whatever else is installed."""
    model = Diffusion.from_weights(GENERATOR).to(runs.accelerator().device)
    batches = model.sample(num_samples, num_inference_steps, batch_size, **options)
    return [(batch + 1) / 2 for batch in batches]


def mask_in(images: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Where pixels are missing, bool (H, W), in images (N, 1, H, W): the usual mask (H, W) where it fits, else
    what is 0 in all images.

    Raises:
        ValueError: nothing is missing or nothing known in the file or in one of its images, or what is 0
            may as well be background; says in which image.
    """
    dark = np.flatnonzero((images == 0).all(axis=(1, 2, 3)))
    if len(dark):
        raise ValueError(f"nothing is known in image {dark[0]} ({len(dark)} such): 0 everywhere. Leave it out.")
    zero = (images == 0).all(axis=(0, 1))
    complete = np.flatnonzero((images[:, 0, usual] != 0).any(axis=1))
    if not len(complete) and (len(images) < FEW or (zero & ~usual).mean() < STRAY):
        return usual
    if 0 < len(complete) < len(images):
        raise ValueError(
            f"image {complete[0]} ({len(complete)} such) has values where the others have gaps. "
            "Fill images of one mask at a time."
        )
    if zero.mean() < LEAST_MISSING or len(images) < FEW:
        raise ValueError(
            f"no gaps were found: {zero.mean():.0%} of the pixels are 0 in all {len(images)} images, which may be "
            f"background. Another mask than the course's is told from {FEW} images on, and from "
            f"{LEAST_MISSING:.0%} missing pixels."
        )
    print(f"Another mask than the network was trained for ({zero.mean():.0%} missing): expect less of the answer.")
    return zero


def fill(images: np.ndarray, models: list[Imputer]) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 (N, 1, 64, 64) with their gaps filled, and each pixel's standard deviation, 0 at known ones.

    Args:
        images: as `check` returns them, missing pixels 0.
        models: their mean is the answer; where they differ, the standard deviation grows.

    Raises:
        ValueError: as of `mask_in`.
    """
    if any(not torch.equal(model.mask, models[0].mask) for model in models):
        raise ValueError("the networks were trained for different masks; fill with those of one mask")
    missing = mask_in(images, models[0].mask.cpu().numpy())
    known = torch.from_numpy(~missing).expand(len(images), 1, *SIZE)
    filled, deviation = unet.fill(models, torch.from_numpy(images), known)
    return filled.numpy(), deviation.numpy()


def write(images: np.ndarray, path: str | Path) -> Path:
    """Write an array as .npy, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, images)
    checkpoints.write_atomically(Path(path), buffer.getvalue())
    return Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.heads")
    command = parser.add_subparsers(required=True).add_parser("fill", help="fill the missing stripes of a .npy file")
    command.add_argument("input", type=Path, metavar="IN.npy", help="floats (N, 1, 64, 64) in [0, 1], missing: 0")
    command.add_argument("output", type=Path, metavar="OUT.npy", help="float32, the same shape, nothing missing")
    command.add_argument("--weights", type=Path, nargs="+", default=IMPUTERS, help="default: those shipped")
    command.add_argument("--deviation", type=Path, help="write each pixel's standard deviation to this .npy file")
    options = parser.parse_args()
    try:
        images = read(options.input)
        filled, deviation = fill(images, [unet.Imputer.from_weights(path) for path in options.weights])
        write(filled, options.output)
        if options.deviation:
            write(deviation, options.deviation)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(images)} images filled: {options.output}")


if __name__ == "__main__":
    main()
