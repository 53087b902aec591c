"""The five families of the final assignment, trained and asked for likelihoods in one way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from utils.models import vae
from utils.models.dcgan import DCGAN
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow
from utils.models.pixelcnn import PixelCNN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop


def of_whole_batches(model: type[nn.Module]) -> type[nn.Module]:
    """The same class, but with several processes `step` returns the losses of the whole batch, not of one's share.

    One line of `loop.fit` would do for every model. Executed notebooks show its source, though, so the line waits
    here for their next execution.
    """

    def step(self: nn.Module, images: Tensor, update: Callable) -> dict[str, Tensor]:
        return devices.over_processes(model.step(self, images, update))

    return type(model.__name__, (model,), {"step": step})


MODELS = {
    family: of_whole_batches(model)
    for family, model in {
        "VAE": VAE, "GAN": DCGAN, "PixelCNN": PixelCNN, "flow": Flow, "diffusion": Diffusion
    }.items()
}  # fmt: skip
PRIOR_SHARE = 4  # latents that a VAE's prior sees for each image that the VAE sees; they cost next to nothing


class Trained(NamedTuple):
    """A model in eval mode, the history of `loop.fit`, and the seconds that all of it has taken."""

    model: nn.Module
    history: list[dict]
    seconds: float


def train(
    family: str,
    images: Tensor,
    seen: int,
    folder: str | Path,
    settings: dict,
    seed: int = 0,
    start: Trained | None = None,
    **options,
) -> Trained:
    """Train a model of a family, a key of MODELS, on images (N, C, H, W) in [-1, 1]; resumes.

    Args:
        seen: how many images training sees.
        folder: for checkpoints.
        settings: arguments of the model's class, `batch_size` and, where it is not the usual one, `average_share`.
        start: of a GAN, the VAE that it begins with; its time counts.
        options: for `loop.fit`, as `evaluate` and `evaluations`.

    Raises:
        ValueError: `seen` is less than a batch.
        CheckpointMismatch, FloatingPointError: as of `loop.fit`.
    """
    devices.seed_everything(seed)
    settings = dict(settings)
    batch_size = settings.pop("batch_size")
    if seen < batch_size:
        raise ValueError(f"{seen} images are to be seen, but one batch of a {family} holds {batch_size}")
    if family == "GAN" and images.shape[1] > 1:
        settings["jpeg_quality"] = None  # colour JPEGs are quantised differently
    options["average_share"] = settings.pop("average_share", loop.AVERAGE_SHARE)
    model = MODELS[family](size=tuple(images.shape[2:]), channels=images.shape[1], **settings)
    if family == "VAE":
        history, prior_history = vae.train(
            model, images, seen, PRIOR_SHARE * seen, batch_size, Path(folder), seed, plot=False, **options
        )
        return Trained(model, history, history[-1]["seconds"] + prior_history[-1]["seconds"])
    config = model.config
    if start is not None:
        model.start_from(start.model)
        config = config | {"start": checkpoints.fingerprint(start.model)}
    history = loop.fit(model, images, seen // batch_size, batch_size, folder, config, seed, plot=False, **options)
    return Trained(model, history, history[-1]["seconds"] + (start.seconds if start else 0.0))
