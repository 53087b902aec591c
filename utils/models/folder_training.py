"""Train one family of models on all images of a folder, or on a public data set, in one process or in several.

The batch is shared by all processes. An interrupted training goes on with any number of processes that divides the
batch. See docs/scaling.md, also for the differences to one process.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils import config, files
from utils.data import cache, image_files, public_images
from utils.models import zoo
from utils.training import devices

GRID = 10  # columns of the picture of samples


def load(name: str, size: int, file: Path | None = None) -> Tensor:
    """Images float32 (N, C, H, W) in [-1, 1] of a folder, resized to `size` x `size`, or of a public data set.

    Args:
        name: a folder, or one of `config.DATA_SETS`, whose images keep their size.
        size: height and width of a folder's images in pixels.
        file: keep a folder's decoded images in this file instead of in memory.
    """
    if name in config.DATA_SETS:
        return image_files.to_float(public_images.load(name).train.images)
    if file:
        images, skipped = cache.images(name, (size, size), file)
    else:
        found = image_files.read(name, (size, size), resize=True)
        images, skipped = image_files.to_float(found.images), found.skipped
    if skipped and devices.accelerator().is_main_process:
        print(f"{len(skipped)} files of '{name}' were set aside; the first: {skipped[0].name}, {skipped[0].reason}")
    return images


def draw(model: torch.nn.Module, count: int, seed: int) -> np.ndarray | None:
    """Samples uint8 (count or a few more, C, H, W), of which each process draws an equal share.

    The main process returns all of them, the others return None.
    """
    accelerator = devices.accelerator()
    share = -(-count // accelerator.num_processes)
    samples = model.sample(share, seed=seed * accelerator.num_processes + accelerator.process_index)
    samples = accelerator.gather(samples.to(accelerator.device))
    return image_files.to_uint8(samples) if accelerator.is_main_process else None


def settings(family: str, batch: int | None, lr_scale: float) -> dict:
    """A family's committed settings, with another batch size, and with learning rates multiplied by `lr_scale`."""
    found = config.hyperparameters(f"final_{family.lower()}", committed=True)
    found = {name: value * lr_scale if name.startswith("lr") else value for name, value in found.items()}
    return found if batch is None else found | {"batch_size": batch}


def train(
    family: str,
    images: str,
    size: int,
    file: Path | None,
    images_seen: int,
    out: Path,
    samples: int,
    seed: int,
    batch: int | None = None,
    lr_scale: float = 1.0,
    fresh: bool = False,
) -> None:
    """Train a family of `zoo.MODELS`; writes checkpoints, weights, history and a picture of samples to `out`.

    The arguments are those of the command `train`.

    Raises:
        ValueError: a number is too small; or as in `load` and `zoo.train`.
    """
    asked = {"size": size, "images seen": images_seen, "samples": samples, "batch": 1 if batch is None else batch}
    for name, number in asked.items():
        if number < 1:
            raise ValueError(f"the number for '{name}' is {number}, but must be at least 1")
    if not lr_scale > 0:
        raise ValueError(f"the factor on the learning rates is {lr_scale}, but must be greater than 0")
    with devices.accelerator().main_process_first():  # one process downloads or decodes, the others find the files
        data = load(images, size, file)
    chosen, start = settings(family, batch, lr_scale), None
    if family == "GAN":
        start = zoo.train("VAE", data, images_seen, out / "start", settings("VAE", batch, lr_scale), seed, fresh=fresh)
    where = out / "checkpoints"
    model, history, seconds = zoo.train(family, data, images_seen, where, chosen, seed, start, fresh=fresh)
    made = draw(model, samples, seed)
    if made is not None:
        model.export(out / "weights.safetensors")
        picture = io.BytesIO()
        Image.fromarray(image_files.tile(made, GRID)).save(picture, "PNG")
        files.write_atomically(out / "samples.png", picture.getvalue())
        last = ", ".join(f"{k} {v:.4g}" for k, v in history[-1].items())
        print(f"{family}, {seconds:.0f} s of training: {last}. Weights and samples are in '{out}'.")
