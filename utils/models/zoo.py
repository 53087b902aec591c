"""The five families of the final assignment, trained in one way."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from utils.config import FAMILIES
from utils.models import vae
from utils.models.dcgan import DCGAN
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow
from utils.models.pixelcnn import PixelCNN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop

MODELS = dict(zip(FAMILIES, (VAE, DCGAN, PixelCNN, Flow, Diffusion), strict=True))  # the class of each family
PRIOR_SHARE = 4  # latents seen by a VAE's prior for each image seen by the VAE; they cost much less


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
    start: Trained | None = None,
    **options,
) -> Trained:
    """Train a model of a family on images (N, C, H, W) in [-1, 1]; goes on from its checkpoints.

    Args:
        family: a key of MODELS.
        images_seen: number of images to train on, counting repetitions.
        folder: folder for the checkpoints.
        settings: `batch_size`, arguments of the model's class, and the `ema_share` of `loop.fit` if it is not the
            default.
        start: the VAE that a GAN begins with. The seconds of its training are added to the GAN's.
        options: further arguments of `loop.fit`, for example `evaluate`.

    Raises:
        ValueError: `images_seen` is less than a batch.
        CheckpointMismatch, FloatingPointError: as in `loop.fit`.
    """
    devices.seed_everything(seed)
    settings = dict(settings)
    batch_size = settings.pop("batch_size")
    if images_seen < batch_size:
        raise ValueError(
            f"the number of images to train on is {images_seen}, but one batch of the {family} has {batch_size} images"
        )
    if family == "GAN" and images.shape[1] > 1:
        settings["jpeg_quality"] = None  # `as_jpeg` is for grey images
    options["ema_share"] = settings.pop("ema_share", loop.EMA_SHARE)
    model = MODELS[family](size=tuple(images.shape[2:]), channels=images.shape[1], **settings)
    if family == "VAE":
        history, prior_history = vae.train(
            model, images, images_seen, PRIOR_SHARE * images_seen, batch_size, Path(folder), seed, plot=False, **options
        )
        return Trained(model, history, history[-1]["seconds"] + prior_history[-1]["seconds"])
    config = model.config
    if start is not None:
        model.start_from(start.model)
        config = config | {"start": checkpoints.fingerprint(start.model)}
    steps = images_seen // batch_size
    history = loop.fit(model, images, steps, batch_size, folder, config, seed, plot=False, **options)
    return Trained(model, history, history[-1]["seconds"] + (start.seconds if start else 0.0))
