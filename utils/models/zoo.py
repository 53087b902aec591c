"""Trains the five families of the final assignment in the same way; also on a folder, for the command `train`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor, nn

from utils import config, files
from utils.data import cache, hand_images, image_files, public_images
from utils.models import spatial_vae
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow
from utils.models.gan import GAN
from utils.models.pixelcnn import PixelCNN
from utils.models.spatial_vae import SpatialVAE
from utils.training import checkpoints, devices, loop

MODELS = dict(zip(config.FAMILIES, (SpatialVAE, GAN, PixelCNN, Flow, Diffusion), strict=True))
"""The class of each family. Its settings are in `utils/hyperparameters.json`, under the name `final_<family>`.

A class needs:
- a constructor with the arguments `size` (height, width), `channels`, and the family's settings
- the attribute `config`, a dict of the constructor's arguments, and `ema_modules`, names of modules (see `loop.fit`)
- `optimizers()` and `step(batch, update)` for the training; see `loop.fit`
- `sample(count, seed)`, which returns images float32 (count, C, H, W) in [-1, 1] on the CPU
- `export(path)`, which writes the weights, and `from_weights(path)`, which makes a model from them
"""
NEEDED = ("config", "ema_modules", "optimizers", "step", "sample", "export", "from_weights")
PRIOR_SHARE = 2  # latents seen by a VAE's prior for each image seen by the VAE
GRID = 10  # columns of the picture of samples


class Trained(NamedTuple):
    """A model in eval mode, the history of `loop.fit`, and the seconds that the training has taken."""

    model: nn.Module
    history: list[dict]
    seconds: float


def train(
    family: str,
    images: Tensor,
    images_seen: int,
    folder: str | Path,
    settings: dict,
    seed: int = 0,
    labels: Tensor | None = None,
    **options,
) -> Trained:
    """Train a model of a family on images (N, C, H, W) in [-1, 1]. The training goes on from its checkpoints.

    Args:
        family: a key of MODELS.
        images_seen: number of images to train on, counting repetitions.
        folder: folder for the checkpoints.
        settings: `batch_size`, arguments of the model's class, and optionally the `ema_share` of `loop.fit`.
        labels: the classes int64 (N,) of the images, only for a GAN of classes.
        options: further arguments of `loop.fit`, for example `evaluate`.

    Raises:
        ValueError: `images_seen` is less than a batch, or the family's class lacks something (see MODELS).
        CheckpointMismatch, FloatingPointError: see `loop.fit`.
    """
    devices.seed_everything(seed)
    settings = dict(settings)
    batch_size = settings.pop("batch_size")
    if images_seen < batch_size:
        raise ValueError(
            f"the number of images to train on is {images_seen}, but one batch of the {family} has {batch_size}. "
            "Train on more images, or with a smaller batch."
        )
    options["ema_share"] = settings.pop("ema_share", loop.EMA_SHARE)
    if labels is not None:
        settings["classes"] = int(labels.max()) + 1
    model = MODELS[family](size=tuple(images.shape[2:]), channels=images.shape[1], **settings)
    if lacking := [name for name in NEEDED if not hasattr(model, name)]:
        raise ValueError(f"{type(model).__name__}, the class of the family {family}, lacks {', '.join(lacking)}")
    if family == "VAE":
        history, prior_history = spatial_vae.train(
            model, images, images_seen, PRIOR_SHARE * images_seen, batch_size, Path(folder), seed, plot=False, **options
        )
        return Trained(model, history, history[-1]["seconds"] + prior_history[-1]["seconds"])
    data, steps = images if labels is None else (images, labels), images_seen // batch_size
    history = loop.fit(model, data, steps, batch_size, folder, model.config, seed, plot=False, **options)
    return Trained(model, history, history[-1]["seconds"])


def load(name: str, size: int, file: Path | None = None) -> Tensor:
    """Load images float32 (N, C, H, W) in [-1, 1] from a folder, resized to `size` x `size`, or from a public data set.

    Args:
        name: a folder, or one of `config.DATA_SETS`, whose images keep their size.
        size: height and width of a folder's images in pixels.
        file: keep a folder's decoded images in this file instead of in memory.

    Raises:
        FileNotFoundError: there is neither a folder nor a data set with this name.
        ValueError, OSError: see `image_files.read`, `cache.images` and `public_images.load`.
    """
    if name in config.DATA_SETS:
        return image_files.to_float(public_images.load(name).train.images)
    name = str(Path(name).expanduser())
    if not Path(name).exists():
        raise FileNotFoundError(
            f"'{files.printable(name)}' is neither a folder nor a data set. The data sets are: "
            f"{', '.join(config.DATA_SETS)}. The data folders are filled with: python -m utils data"
        )
    if file:
        images, skipped = cache.images(name, (size, size), file)
    else:
        found = image_files.read(name, (size, size), resize=True)
        images, skipped = image_files.to_float(found.images), found.skipped
    made = len(hand_images.stand_ins(Path(name)))
    if 0 < made < len(images):
        raise ValueError(f"'{name}' holds {made} stand-ins beside other images, and these must not be mixed")
    if skipped and devices.accelerator().is_main_process:
        print(f"{len(skipped)} files of '{name}' were set aside; the first: {skipped[0].name}, {skipped[0].reason}")
    return images


def draw(model: nn.Module, count: int, seed: int) -> np.ndarray | None:
    """Draw samples uint8 (count or a few more, C, H, W). Each process draws an equal share.

    The main process returns all samples. The others return None.
    """
    accelerator = devices.accelerator()
    share = -(-count // accelerator.num_processes)
    own_seed = (seed * accelerator.num_processes + accelerator.process_index) % 2**32  # NumPy takes no larger one
    samples = model.sample(share, seed=own_seed)
    samples = accelerator.gather(samples.to(accelerator.device))
    return image_files.to_uint8(samples) if accelerator.is_main_process else None


def committed_settings(family: str, batch: int | None, lr_scale: float) -> dict:
    """A family's committed settings, with the batch size `batch` if given, and learning rates times `lr_scale`."""
    found = config.hyperparameters(f"final_{family.lower()}", committed=True)
    found = {name: value * lr_scale if name.startswith("lr") else value for name, value in found.items()}
    return found if batch is None else found | {"batch_size": batch}


def train_on_folder(
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
    """The command `train`: train a family. Write checkpoints, weights, history and a picture of samples to `out`.

    An interrupted training can go on with any number of processes that divides the batch; see docs/scaling.md.

    Raises:
        ValueError: a number is too small, or `out` holds the weights of another family; see also `load` and `train`.
    """
    asked = {"size": size, "images seen": images_seen, "samples": samples, "batch": 1 if batch is None else batch}
    for name, number in asked.items():
        if number < 1:
            raise ValueError(f"the number for '{name}' is {number}, but must be at least 1")
    if not lr_scale > 0:
        raise ValueError(f"the factor on the learning rates is {lr_scale}, but must be greater than 0")
    weights = out / "weights.safetensors"
    if weights.is_file():
        try:
            MODELS[family].from_weights(weights)
        except checkpoints.CheckpointDamaged as error:
            raise ValueError(
                f"{error}. Choose another folder for the {family}, so that nothing is replaced."
            ) from error
    with devices.accelerator().main_process_first():  # one process downloads or decodes, then the others find the files
        data = load(images, size, file)
    chosen, where = committed_settings(family, batch, lr_scale), out / "checkpoints"
    model, history, seconds = train(family, data, images_seen, where, chosen, seed, fresh=fresh)
    made = draw(model, samples, seed)
    if made is not None:
        model.export(weights)
        picture = io.BytesIO()
        Image.fromarray(image_files.tile(made, GRID)).save(picture, "PNG")
        files.write_atomically(out / "samples.png", picture.getvalue())
        last = ", ".join(f"{k} {v:.4g}" for k, v in history[-1].items())
        print(f"{family}, {seconds:.0f} s of training: {last}. Weights and samples are in '{out}'.")
