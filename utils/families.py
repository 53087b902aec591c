"""The five families of the final assignment, trained and asked for likelihoods in one way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils import checkpoints, fidelity, folders, likelihood, runs, training, vae
from utils.dcgan import DCGAN
from utils.diffusion import Diffusion
from utils.flow import Flow
from utils.pixelcnn import PixelCNN
from utils.vae import VAE


def of_whole_batches(model: type[nn.Module]) -> type[nn.Module]:
    """The same class, but with several processes `step` returns the losses of the whole batch, not of one's share.

    One line of `training.fit` would do for every model. Executed notebooks show its source, though, so the line waits
    here for their next execution.
    """

    def step(self: nn.Module, images: Tensor, update: Callable) -> dict[str, Tensor]:
        return runs.over_processes(model.step(self, images, update))

    return type(model.__name__, (model,), {"step": step})


MODELS = {
    family: of_whole_batches(model)
    for family, model in {
        "VAE": VAE, "GAN": DCGAN, "PixelCNN": PixelCNN, "flow": Flow, "diffusion": Diffusion
    }.items()
}  # fmt: skip
PRIOR_SHARE = 4  # latents that a VAE's prior sees for each image that the VAE sees; they cost next to nothing
BATCH = 250  # images that are judged at a time


class Trained(NamedTuple):
    """A model in eval mode, the history of `training.fit`, and the seconds that all of it has taken."""

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
        options: for `training.fit`, as `evaluate` and `evaluations`.

    Raises:
        ValueError: `seen` is less than a batch.
        CheckpointMismatch, FloatingPointError: as of `training.fit`.
    """
    runs.seed_everything(seed)
    settings = dict(settings)
    batch_size = settings.pop("batch_size")
    if seen < batch_size:
        raise ValueError(f"{seen} images are to be seen, but one batch of a {family} holds {batch_size}")
    if family == "GAN" and images.shape[1] > 1:
        settings["jpeg_quality"] = None  # colour JPEGs are quantised differently
    options["average_share"] = settings.pop("average_share", training.AVERAGE_SHARE)
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
    history = training.fit(model, images, seen // batch_size, batch_size, folder, config, seed, plot=False, **options)
    return Trained(model, history, history[-1]["seconds"] + (start.seconds if start else 0.0))


def nats(
    model: nn.Module, images: Tensor, effort: int, spread: float | None = None, table: Tensor | None = None
) -> Tensor:
    """Negative log probability (N,) of images (N, C, H, W) in nats, or a bound on it from above.

    Exact for a PixelCNN; see `Flow.nats`, `likelihood.vae_nats` and `likelihood.diffusion_nats` for the bounds. All
    draw the same noise at each call.

    Args:
        effort: latents of a VAE, noise levels of a diffusion model that are tried for each image.
        spread: of a diffusion model, from `likelihood.guess_error` on other images.
        table: of a VAE from `likelihood.decoder_table`, of a diffusion model from `likelihood.guess_table`, on training
            images; without one its Gaussian is used.
    """
    generator = torch.Generator().manual_seed(0)

    def batch_nats(batch: Tensor) -> Tensor:
        if isinstance(model, VAE):
            return likelihood.vae_nats(model, batch, effort, generator, table)
        if isinstance(model, Diffusion):
            return likelihood.diffusion_nats(model, batch, effort, spread, generator, table)
        batch = batch.to(next(model.parameters()).device)
        return (model.nats(batch, generator) if isinstance(model, Flow) else model.nats(batch)).cpu()

    model.eval()
    with torch.no_grad():
        return torch.cat([batch_nats(batch) for batch in images.split(BATCH)])


def bits_on(images: Tensor, other: Tensor, effort: int) -> Callable[[nn.Module], dict[str, float]]:
    """A hook for `training.fit`: bits per dimension of validation images; `other` images are for `guess_error`."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        spread = likelihood.guess_error(model, other, generator) if isinstance(model, Diffusion) else None
        bits, _ = likelihood.bits_per_dimension(nats(model, images, effort, spread), images[0].numel())
        return {"bits (validation)": bits}

    return evaluate


def distance_on(
    space: nn.Module, reference: np.ndarray, count: int, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    """The same for a model without likelihood: the Frechet distance of `count` samples from images uint8
    (N, C, H, W), in a feature space."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        made = folders.to_uint8(model.sample(count, seed))
        return {"Frechet distance (validation)": fidelity.frechet_distance(space, reference, made)}

    return evaluate
