"""New images from the weights that this repository ships, in seconds and without training."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils import config, files
from utils.data import head_images, image_files
from utils.models.dcgan import DCGAN
from utils.models.diffusion import Diffusion
from utils.models.vae import VAE
from utils.training import devices

HANDS_GAN = config.PROJECT / "weights" / "dcgan_hands.safetensors"
HANDS_VAE = config.PROJECT / "weights" / "vae_hands.safetensors"
HEADS = head_images.FOLDER / "weights" / "head_generator.safetensors"
FINAL = config.PROJECT / "fashion_mnist" / "weights"  # of the diffusion model of garments
HEAD_STEPS = 50  # evaluations of the network for each head
STAND_INS, STAND_IN_STEPS = 80, 10  # number of stand-in heads, and evaluations of the network for each
FORMATS = ("jpeg", "png")


def hands(count: int, seed: int = 0) -> np.ndarray:
    """Stand-in hands uint8 (count, 1, 32, 32) from the shipped GAN, the same for the same seed.

    Its selector does not choose them, because this would take eight times as long; see `sample`.
    """
    gan = DCGAN.from_weights(HANDS_GAN)
    return image_files.to_uint8(gan.decode(gan.sample_latents(count, seed), seed))


def generate_heads(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
) -> list[Tensor]:
    """New heads as a list of batches (<= batch_size, 1, 64, 64) in about [0, 1], on the model's device.

    They come from the course's generator (`ese_invldm`) if it is installed and works. Otherwise, they come from the
    diffusion model whose weights are in this repository. Arguments and result have the form of the course's `generate`;
    see also `Diffusion.sample`.

    Raises:
        FileNotFoundError, CheckpointDamaged: the course's generator cannot be used, and our weights are missing or
            damaged.
    """
    arguments = (num_samples, num_inference_steps, batch_size)
    options = {"scheduler": scheduler, "temperature": temperature, "seed": seed}
    try:
        from ese_invldm import generate as course_generate

        return course_generate(*arguments, **options)
    except Exception as error:  # after any error in it, our own generator is used
        if getattr(error, "name", None) != "ese_invldm":  # it is installed, but does not work
            print(f"ese_invldm failed ({error!r}); our own generator is used instead")
    return own_heads(*arguments, **options)


def own_heads(num_samples: int, num_inference_steps: int, batch_size: int, **options) -> list[Tensor]:
    """`generate_heads` with our own diffusion model, even if the course's generator is installed."""
    device = devices.accelerator().device
    model = Diffusion.from_weights(HEADS).to(device)
    heads = model.sample(num_samples, steps=num_inference_steps, batch_size=batch_size, **options)
    return [(batch + 1) / 2 for batch in heads.to(device).split(batch_size)]


def stand_in_heads() -> Tensor:
    """Generated slices (STAND_INS, 1, 64, 64) in [0, 1] on the CPU, for runs without the course's `heads.npz`."""
    return torch.cat(own_heads(STAND_INS, STAND_IN_STEPS, 100, seed=1)).cpu()


def sample(model: str, count: int, seed: int = 0) -> np.ndarray:
    """New images uint8 (count, 1, H, W) from a shipped model, the same for the same seed.

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
        return image_files.to_uint8(DCGAN.from_weights(HANDS_GAN).sample(count, seed))
    if model == "hands-vae":
        return image_files.to_uint8(VAE.from_weights(HANDS_VAE).sample(count, seed))
    if model == "garments":
        return image_files.to_uint8(Diffusion.from_weights(FINAL / "garments.safetensors").sample(count, seed))
    return image_files.to_uint8(2 * torch.cat(own_heads(count, HEAD_STEPS, 100, seed=seed)) - 1)


def write(model: str, count: int, seed: int, out: Path, form: str | None = None) -> Path:
    """Write new images from a shipped model, all of them or none. Returns `out`.

    Args:
        model, count, seed: arguments of `sample`.
        out: a new or empty folder for image files, or a new file ending in `.npy` for one array.
        form: format of the image files, one of FORMATS. Without it, they are JPEGs. A .npy file has no such format.

    Raises:
        FileExistsError: `out` already exists and is not an empty folder.
        ValueError: there is no such format, or `out` looks like another kind of file; see also `sample`.
        FileNotFoundError, CheckpointDamaged: see `sample`.
        OSError: `out` cannot be written.
    """
    if form not in (*FORMATS, None):
        raise ValueError(f"the format is '{form}', but must be one of {', '.join(FORMATS)}")
    as_array = out.suffix == ".npy"
    if form and as_array:
        raise ValueError(f"'{files.printable(out)}' is one .npy file, so it has no image format: leave out '{form}'")
    if re.fullmatch(r"\.[A-Za-z]\w*", out.suffix) and not as_array:
        raise ValueError(f"'{files.printable(out)}' is neither a folder nor a .npy file: leave out '{out.suffix}'")
    if out.exists() and (as_array or not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{files.printable(out)}' already exists. Choose a new name, or remove it.")
    images = sample(model, count, seed)
    if as_array:
        head_images.write(images, out)
    elif form == "png":
        _write_pngs(images, out, model)
    else:
        image_files.write_jpegs(images, out, model, count)
    return out


def _write_pngs(images: np.ndarray, folder: Path, prefix: str) -> None:
    """Write images uint8 (N, 1, H, W) as `prefix_001.png`, ... into a new or empty folder, all of them or none."""
    with files.all_or_none(folder) as part:
        digits = max(3, len(str(len(images))))
        for number, image in enumerate(images[:, 0], start=1):
            Image.fromarray(image).save(part / f"{prefix}_{number:0{digits}d}.png")
