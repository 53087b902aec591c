"""Train one family of models on a folder of images, or on Fashion-MNIST, from the command line; resumes.

    python -m utils.train VAE --images real_hands --seen 100000 --out runs/vae
    accelerate launch --multi_gpu --num_processes 8 --mixed_precision bf16 -m utils.train VAE ...

The same command on one process or on many: the batch is that of all processes together, and a run that was stopped goes
on with any number of them that divides the batch. See docs/scaling.md, also for what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor

from utils import cache, checkpoints, families, figures, folders, public_images, runs

GRID = 10  # columns of the picture of samples


def load(name: str, size: int, file: Path | None = None) -> Tensor:
    """Images float32 (N, C, H, W) in [-1, 1]: of a folder, brought to `size` x `size` pixels, or of a public
    set, in their own size. With a `file`, a folder's images are kept there instead of in memory."""
    if name in public_images.NAMES:
        return folders.to_float(public_images.load(name).train.images)
    if file:
        images, skipped = cache.images(name, (size, size), file)
    else:
        found = folders.read(name, (size, size), resize=True)
        images, skipped = folders.to_float(found.images), found.skipped
    if skipped and runs.accelerator().is_main_process:
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
    if note.is_file() and note.read_text() != mark:
        raise ValueError(f"'{out}' holds a run on other images; choose another folder, or delete it")
    if runs.accelerator().is_main_process:
        checkpoints.write_atomically(note, mark.encode())


def draw(model: torch.nn.Module, count: int, seed: int) -> np.ndarray | None:
    """Samples uint8 (count or a few more, C, H, W), an equal share drawn by each process, gathered by the main one;
    None in the others."""
    accelerator = runs.accelerator()
    share = -(-count // accelerator.num_processes)
    found = model.sample(share, seed=seed * accelerator.num_processes + accelerator.process_index)
    found = found if isinstance(found, Tensor) else torch.cat(list(found))
    found = accelerator.gather(found.to(accelerator.device)).cpu()
    return folders.to_uint8(found) if accelerator.is_main_process else None


def settings(family: str, batch: int | None, lr_scale: float) -> dict:
    """A family's committed settings, with another batch and learning rates times `lr_scale`."""
    found = runs.hyperparameters(f"final_{family.lower()}", committed=True)
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
    """Train a family of `families.MODELS` with its `settings`; writes checkpoints, weights, history and a picture of
    samples to `out`. The arguments are those of the command."""
    with runs.accelerator().main_process_first():  # one process downloads or decodes, the others find the files
        data = load(images, size, file)
    remember(data, out)
    start = None
    if family == "GAN":
        start = families.train("VAE", data, seen, out / "start", settings("VAE", batch, lr_scale), seed)
    chosen = settings(family, batch, lr_scale)
    model, history, seconds = families.train(family, data, seen, out / "checkpoints", chosen, seed, start)
    runs.same_everywhere(model)
    made = draw(model, samples, seed)
    if made is not None:
        path = out / "weights.safetensors"
        checkpoints.export_weights(path, model, model.config) if family == "VAE" else model.export(path)
        Image.fromarray(figures.tile(made, GRID)).save(out / "samples.png")
        last = ", ".join(f"{k} {v:.4g}" for k, v in history[-1].items())
        print(f"{family}, {seconds:.0f} s of training: {last}. Weights and samples are in '{out}'.")


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; those of `train`."""
    parser = argparse.ArgumentParser(description="Train one family of models; the same command resumes.")
    parser.add_argument("family", choices=families.MODELS)
    parser.add_argument(
        "--images", required=True, help=f"a folder of images, or one of {', '.join(public_images.NAMES)}"
    )
    parser.add_argument("--size", type=int, default=32, help="pixels a side that a folder's images are brought to")
    parser.add_argument("--seen", type=int, required=True, help="images that training sees, over all processes")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, weights and samples")
    parser.add_argument(
        "--cache", dest="file", type=Path, help="keep the decoded images in this file instead of in memory"
    )
    parser.add_argument("--batch", type=int, help="images a step over all processes, instead of the committed number")
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on the committed learning rates")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    options = command_line().parse_args()
    try:
        train(**vars(options))
        accelerator = runs.accelerator()
        accelerator.wait_for_everyone()  # a process that leaves early takes the connection from under the others
        accelerator.end_training()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
