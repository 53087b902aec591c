"""New images from the weights that this repository ships, in seconds and without training."""

from __future__ import annotations

import io
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


def hands(count: int, seed: int = 0, weights: Path = HANDS_GAN) -> np.ndarray:
    """Hands uint8 (count, 1, 32, 32) from the shipped GAN, the same for the same seed."""
    return image_files.to_uint8(DCGAN.from_weights(weights).sample(count, seed))


def sample(model: str, count: int, seed: int) -> np.ndarray:
    """Images uint8 (count, 1, H, W) of a shipped model, one of `config.SHIPPED`.

    Raises:
        ValueError: no such model, or fewer than one image.
        FileNotFoundError, CheckpointDamaged: its weights are missing or damaged.
    """
    if count < 1:
        raise ValueError(f"--count is {count}, but must be at least 1")
    if model == "hands-gan":
        return hands(count, seed)
    if model == "hands-vae":
        return image_files.to_uint8(VAE.from_weights(HANDS_VAE).sample(count, seed))
    if model == "heads":
        batches = own_heads(count, HEAD_STEPS, 100, seed=seed)
        return image_files.to_uint8(2 * torch.cat(batches) - 1)
    raise ValueError(f"there are no weights of '{model}' here, only of {', '.join(config.SHIPPED)}")


def write(model: str, count: int, seed: int, out: Path, form: str = "jpeg") -> Path:
    """Sample a shipped model into a new folder of image files, or into one array if `out` ends in `.npy`; returns `out`.

    Raises:
        FileExistsError: `out` is there already and holds something.
        ValueError, FileNotFoundError, CheckpointDamaged: as of `sample`.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"'{out}' is there already. Choose a new name, or remove it.")
    images = sample(model, count, seed)
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, images)
        files.write_atomically(out, buffer.getvalue())
    elif form == "jpeg":
        image_files.write_jpegs(images, out, model, count)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images[:, 0], start=1):
            Image.fromarray(image).save(out / f"{model}_{number:0{max(3, len(str(count)))}d}.png")
    return out
