"""New images from the weights that this repository ships, in seconds and without training."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils import config, files
from utils.data import image_files
from utils.models.dcgan import DCGAN
from utils.models.head_generator import own_heads
from utils.models.vae import VAE

HANDS_GAN = config.PROJECT / "weights" / "dcgan_hands.safetensors"
HANDS_VAE = config.PROJECT / "weights" / "vae_hands.safetensors"
HEAD_STEPS = 50  # evaluations of the network for each head
FORMATS = ("jpeg", "png")


def hands(count: int, seed: int = 0, weights: Path = HANDS_GAN) -> np.ndarray:
    """Hands uint8 (count, 1, 32, 32) from the shipped GAN, the same for the same seed."""
    return image_files.to_uint8(DCGAN.from_weights(weights).sample(count, seed))


def sample(model: str, count: int, seed: int = 0) -> np.ndarray:
    """New images uint8 (count, 1, H, W) of a shipped model, the same for the same seed.

    Args:
        model: one of `config.SHIPPED`.

    Raises:
        ValueError: there is no such model, or `count` is less than 1.
        FileNotFoundError, CheckpointDamaged: its weights are missing or damaged.
    """
    if model not in config.SHIPPED:
        raise ValueError(f"there are no weights of '{model}' here, only of {', '.join(config.SHIPPED)}")
    if count < 1:
        raise ValueError(f"the number of images is {count}, but must be at least 1")
    if model == "hands-gan":
        return hands(count, seed)
    if model == "hands-vae":
        if not HANDS_VAE.is_file():
            raise FileNotFoundError(
                f"There are no weights at '{HANDS_VAE}'. The notebook username_DLcw1_clean.ipynb writes them when it "
                "runs in the profile full. Until then, use 'hands-gan'."
            )
        return image_files.to_uint8(VAE.from_weights(HANDS_VAE).sample(count, seed))
    return image_files.to_uint8(2 * torch.cat(own_heads(count, HEAD_STEPS, 100, seed=seed)) - 1)


def write(model: str, count: int, seed: int, out: Path, form: str = "jpeg") -> Path:
    """Write new images of a shipped model, all of them or nothing; returns `out`.

    Args:
        model, count, seed: arguments of `sample`.
        out: a new or empty folder for image files; or a new file ending in `.npy`, for one array.
        form: format of the image files, one of FORMATS.

    Raises:
        FileExistsError: `out` is there already and is not an empty folder.
        ValueError: no such format; or as in `sample`.
        FileNotFoundError, CheckpointDamaged: as in `sample`.
        OSError: `out` cannot be written.
    """
    if form not in FORMATS:
        raise ValueError(f"the format is '{form}', but must be one of {', '.join(FORMATS)}")
    if out.exists() and (out.suffix == ".npy" or not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{files.printable(out)}' is there already. Choose a new name, or remove it.")
    images = sample(model, count, seed)
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, images)
        files.write_atomically(out, buffer.getvalue())
    elif form == "jpeg":
        image_files.write_jpegs(images, out, model, count)
    else:
        _write_pngs(images, out, model)
    return out


def _write_pngs(images: np.ndarray, folder: Path, prefix: str) -> None:
    """Write images uint8 (N, 1, H, W) as `prefix_001.png`, ... into a new or empty folder, all of them or none."""
    part = files.part_folder(folder, "writing")
    try:
        digits = max(3, len(str(len(images))))
        for number, image in enumerate(images[:, 0], start=1):
            Image.fromarray(image).save(part / f"{prefix}_{number:0{digits}d}.png")
        for path in sorted(part.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
