"""Train a family of models on all images of a folder, or on Fashion-MNIST, in one process or in many; resumes.

The batch is that of all processes together, and a run that was stopped goes on with any number of them that divides
the batch. See docs/scaling.md, also for what differs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor

from utils import config, files
from utils.data import cache, image_files, public_images
from utils.models import zoo
from utils.training import checkpoints, devices

GRID = 10  # columns of the picture of samples


def load(name: str, size: int, file: Path | None = None) -> Tensor:
    """Images float32 (N, C, H, W) in [-1, 1]: of a folder, brought to `size` x `size` pixels, or of a public
    set, in their own size. With a `file`, a folder's images are kept there instead of in memory."""
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


def remember(data: Tensor, out: Path) -> None:
    """Note in `out` which images are trained on.

    Raises:
        ValueError: they are others than those that an earlier run into `out` has seen; or the processes do not see
            the same images and checkpoints, so that some would go on and others begin.
    """
    some = data[:: max(1, len(data) // 64)].contiguous()
    mark, note = f"{len(data)} images, {hashlib.sha256(some.numpy().tobytes()).hexdigest()}\n", out / "images.txt"
    checkpoints_here = sorted(str(path.relative_to(out)) for path in out.rglob("step_*.ckpt"))
    if len(set(gather_object([(mark, *checkpoints_here)]))) > 1:
        raise ValueError(f"the processes see different images or checkpoints; do all of them share '{out}'?")
    if note.is_file() and note.read_text(encoding="utf-8") != mark:
        raise ValueError(f"'{out}' holds a run on other images; choose another folder, or delete it")
    if devices.accelerator().is_main_process:
        files.write_atomically(note, mark.encode())


def draw(model: torch.nn.Module, count: int, seed: int) -> np.ndarray | None:
    """Samples uint8 (count or a few more, C, H, W), an equal share drawn by each process, gathered by the main one;
    None in the others."""
    accelerator = devices.accelerator()
    share = -(-count // accelerator.num_processes)
    found = model.sample(share, seed=seed * accelerator.num_processes + accelerator.process_index)
    found = found if isinstance(found, Tensor) else torch.cat(list(found))
    found = accelerator.gather(found.to(accelerator.device)).cpu()
    return image_files.to_uint8(found) if accelerator.is_main_process else None


def settings(family: str, batch: int | None, lr_scale: float) -> dict:
    """A family's committed settings, with another batch and learning rates times `lr_scale`."""
    found = config.hyperparameters(f"final_{family.lower()}", committed=True)
    found = {name: value * lr_scale if name.startswith("lr") else value for name, value in found.items()}
    return found | ({"batch_size": batch} if batch else {})


def train(
    family: str,
    images: str,
    size: int,
    file: Path | None,
    seen: int,
    out: Path,
    samples: int,
    seed: int,
    batch: int | None = None,
    lr_scale: float = 1.0,
) -> None:
    """Train a family of `zoo.MODELS` with its `settings`; writes checkpoints, weights, history and a picture of
    samples to `out`. The arguments are those of the command."""
    with devices.accelerator().main_process_first():  # one process downloads or decodes, the others find the files
        data = load(images, size, file)
    remember(data, out)
    start = None
    if family == "GAN":
        start = zoo.train("VAE", data, seen, out / "start", settings("VAE", batch, lr_scale), seed)
    chosen = settings(family, batch, lr_scale)
    model, history, seconds = zoo.train(family, data, seen, out / "checkpoints", chosen, seed, start)
    devices.same_everywhere(model)
    made = draw(model, samples, seed)
    if made is not None:
        path = out / "weights.safetensors"
        checkpoints.export_weights(path, model, model.config) if family == "VAE" else model.export(path)
        Image.fromarray(image_files.tile(made, GRID)).save(out / "samples.png")
        last = ", ".join(f"{k} {v:.4g}" for k, v in history[-1].items())
        print(f"{family}, {seconds:.0f} s of training: {last}. Weights and samples are in '{out}'.")
