"""Bits per dimension: how many bits a number of an image takes when a model's probabilities are used to code it.

A PixelCNN gives them exactly, and a flow up to the noise between grey levels. The bounds of the VAE and of the
diffusion model are here. All are of whole grey levels, so they can be compared. A GAN has no likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from utils.evaluation import grey_levels
from utils.evaluation.grey_levels import LEVEL, LEVELS, gaussian_level_nats
from utils.evaluation.sample_sizes import require
from utils.models.diffusion import NOISE_LEVELS, Diffusion
from utils.models.flow import Flow
from utils.models.vae import VAE, gaussian_nll

DECODER_ROWS = 128  # bins of the grey value that a VAE's decoder predicts
X0_ROWS = 1024  # bins of x0 as a diffusion model predicts it, which is off by less than a grey level
BATCH = 250  # images whose likelihood is computed at a time


def bits_per_dimension(nats: Tensor, dimensions: int) -> tuple[float, float]:
    """Mean and standard error, over images, of bits for each number of an image.

    Args:
        nats: (N,), negative log probabilities of whole images.
        dimensions: how many numbers an image consists of.

    Raises:
        ValueError: fewer than 2 images, which have no standard error.
        FloatingPointError: a likelihood is not finite, as after a training that diverged.
    """
    require(2, "a standard error", images=len(nats))
    bits = nats.double().cpu().numpy() / (dimensions * math.log(2))
    if not np.isfinite(bits).all():
        first = int(np.argmin(np.isfinite(bits)))
        raise FloatingPointError(f"the likelihood of image {first} is not finite ({bits[first]}): the model diverged")
    return float(bits.mean()), float(bits.std(ddof=1) / np.sqrt(len(bits)))


# The VAE


@torch.no_grad()
def vae_nats(
    vae: VAE, images: Tensor, num_samples: int, generator: torch.Generator | None = None, table: Tensor | None = None
) -> Tensor:
    """Importance-weighted bound (N,) on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    The mean of p(x, z) / q(z | x) over `num_samples` latents (Burda et al. 2016); more latents make it tighter. The
    prior is the normal distribution that the VAE was trained with. Uniform noise between the levels turns the
    decoder's density into a probability (Theis et al. 2016). With a `decoder_table`, the table gives the probability.
    """
    require(1, "the importance-weighted bound", latents_for_each_image=num_samples)
    vae.eval()
    device = vae.log_std.device
    noise = torch.rand(images.shape, generator=generator) - 0.5
    x = (images if table is not None else images + LEVEL * noise).to(device)
    mean, log_var = vae.encoder(x)
    ratios = []
    for _ in range(num_samples):
        drawn = torch.randn(mean.shape, generator=generator).to(device)
        latents = mean + drawn * (log_var / 2).exp()
        log_prior = -0.5 * (latents**2).sum(1)
        log_posterior = -0.5 * (drawn**2 + log_var).sum(1)  # both without the constant, which cancels
        decoded = vae.decoder(latents).float()
        if table is None:
            nll = gaussian_nll(vae.spectrum(x), vae.spectrum(decoded), vae.log_std)
        else:
            nll = grey_levels.table_nats(table, decoded, x).flatten(1).sum(1)
        ratios.append(log_prior - log_posterior - nll)
    log_density = torch.stack(ratios).logsumexp(0) - math.log(num_samples)
    return (-log_density - (images[0].numel() * math.log(LEVEL) if table is None else 0)).cpu()


@torch.no_grad()
def decoder_table(vae: VAE, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Log probabilities (DECODER_ROWS, 256) of a pixel's grey level, given the value that the decoder predicts for it.

    They are counted on training images (N, C, H, W) in [-1, 1]; a latent is drawn for each image and decoded. One
    Gaussian for all pixels cannot express that a black pixel is exactly black, but a table can.

    Raises:
        ValueError: there are no images.
    """
    require(1, "a table of grey levels", training_images=len(images))

    def decoded(batch: Tensor) -> Tensor:
        mean, log_var = vae.encoder(batch.to(vae.log_std.device))
        drawn = torch.randn(mean.shape, generator=generator).to(mean.device)
        return vae.decoder(mean + drawn * (log_var / 2).exp()).float()

    vae.eval()
    counts = [
        torch.bincount(grey_levels.bins(batch, LEVELS).flatten(), minlength=LEVELS) for batch in images.split(500)
    ]
    overall = sum(counts)
    return grey_levels.count_levels(decoded, images, (overall / overall.sum()).expand(DECODER_ROWS, -1))


# The diffusion model


def predict_x0(model: Diffusion, images: Tensor, levels: Tensor, generator: torch.Generator | None) -> Tensor:
    """x0 as the network predicts it from a noisy version of each image, (N, C, H, W) in [-1, 1]; levels int64 (N,)."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    signal = model.scheduler.alphas_cumprod.to(images.device)[levels].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * images + (1 - signal).sqrt() * noise
    return (signal.sqrt() * noisy - (1 - signal).sqrt() * model.velocity(noisy, levels)).clamp(-1, 1)


@torch.no_grad()
def x0_error_std(model: Diffusion, images: Tensor, generator: torch.Generator | None = None) -> float:
    """Root mean square error of the predicted x0 at the lowest noise level: the `x0_std` of `diffusion_nats`.

    Measure it on other images (N, C, H, W) in [-1, 1] than those of the bound.

    Raises:
        ValueError: there are no images.
    """
    require(1, "the error of the predicted x0", images=len(images))
    model.eval()
    x = images.to(next(model.parameters()).device)
    levels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return float((predict_x0(model, x, levels, generator) - x).square().mean().sqrt())


@torch.no_grad()
def x0_table(model: Diffusion, images: Tensor, x0_std: float, generator: torch.Generator | None = None) -> Tensor:
    """Log probabilities (X0_ROWS, 256) of a pixel's grey level, given the x0 predicted at the lowest noise level.

    They are counted on training images (N, C, H, W) in [-1, 1]. A bin of few pixels gets a Gaussian of standard
    deviation `x0_std`.

    Raises:
        ValueError: there are no images.
    """
    require(1, "a table of grey levels", training_images=len(images))

    def predicted(batch: Tensor) -> Tensor:
        batch = batch.to(next(model.parameters()).device)
        return predict_x0(model, batch, torch.zeros(len(batch), dtype=torch.long, device=batch.device), generator)

    model.eval()
    x0, levels = torch.linspace(-1, 1, X0_ROWS)[:, None], torch.linspace(-1, 1, LEVELS)[None]
    prior = (-gaussian_level_nats(*torch.broadcast_tensors(levels, x0), x0_std)).exp()
    return grey_levels.count_levels(predicted, images, prior)


@torch.no_grad()
def diffusion_nats(
    model: Diffusion,
    images: Tensor,
    num_samples: int,
    x0_std: float | None,
    generator: torch.Generator | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """Variational bound (N,) on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    Ho et al. (2020), in the form of Kingma et al. (2021). Each noise level except the lowest costs half the drop in the
    signal-to-noise ratio times the squared error of the predicted x0. Level k costs about 1 / k, so `num_samples`
    levels are drawn for each image with about that probability, evenly spread on a logarithmic scale, and their costs
    are divided by it. The estimate of the sum is unbiased. At the lowest level, the grey levels are coded by Gaussians
    around the predicted x0 or by an `x0_table`. At the highest level, what is left of the image in the noise is coded.

    Args:
        x0_std: standard deviation of those Gaussians. The bound holds for any, and is tightest at `x0_error_std`.

    Raises:
        ValueError: no noise level is drawn; or there is neither a positive `x0_std` nor a table.
    """
    require(1, "the variational bound", noise_levels_for_each_image=num_samples)
    if table is None and not (x0_std and x0_std > 0):
        raise ValueError(f"x0_std is {x0_std}: without a table it must be positive, for example x0_error_std's result")
    model.eval()
    device = next(model.parameters()).device
    signal = model.scheduler.alphas_cumprod.to(device)  # share of the image in the variance, falling
    ratio = signal / (1 - signal)
    x = images.to(device)
    count = len(x)

    first = torch.rand(count, generator=generator)
    between = torch.zeros(count, device=device)
    for k in range(num_samples):
        levels = (NOISE_LEVELS ** ((first + k) / num_samples)).long().clamp(1, NOISE_LEVELS - 1).to(device)
        probability = torch.log1p(1 / levels) / math.log(NOISE_LEVELS)
        error = (x - predict_x0(model, x, levels, generator)).square().flatten(1).sum(1)
        between += 0.5 * (ratio[levels - 1] - ratio[levels]) * error / (num_samples * probability)

    x0 = predict_x0(model, x, torch.zeros(count, dtype=torch.long, device=device), generator)
    lowest = gaussian_level_nats(x, x0, x0_std) if table is None else grey_levels.table_nats(table, x0, x)
    last = signal[-1]
    highest = 0.5 * (last * x**2 - last - torch.log1p(-last)).flatten(1).sum(1)
    return (between + lowest.flatten(1).sum(1) + highest).cpu()


# Any family


def nats(
    model: nn.Module, images: Tensor, num_samples: int, x0_std: float | None = None, table: Tensor | None = None
) -> Tensor:
    """Negative log probability (N,) of images (N, C, H, W) in nats, or an upper bound on it.

    Exact for a PixelCNN; see `Flow.nats`, `vae_nats` and `diffusion_nats` for the bounds. The random numbers are the
    same at each call.

    Args:
        num_samples: latents of a VAE, or noise levels of a diffusion model, that are drawn for each image.
        x0_std: of a diffusion model, from `x0_error_std` on other images.
        table: from `decoder_table` for a VAE, from `x0_table` for a diffusion model, on training images. Without one,
            a Gaussian is used.

    Raises:
        ValueError: there are no images; and as of the bounds.
    """
    require(1, "a likelihood", images=len(images))
    generator = torch.Generator().manual_seed(0)

    def batch_nats(batch: Tensor) -> Tensor:
        if isinstance(model, VAE):
            return vae_nats(model, batch, num_samples, generator, table)
        if isinstance(model, Diffusion):
            return diffusion_nats(model, batch, num_samples, x0_std, generator, table)
        batch = batch.to(next(model.parameters()).device)
        return (model.nats(batch, generator) if isinstance(model, Flow) else model.nats(batch)).cpu()

    model.eval()
    with torch.no_grad():
        return torch.cat([batch_nats(batch) for batch in images.split(BATCH)])


def bits_hook(images: Tensor, other: Tensor, num_samples: int) -> Callable[[nn.Module], dict[str, float]]:
    """A hook for `loop.fit`: bits per dimension of validation images.

    Args:
        images: (N, C, H, W) in [-1, 1].
        other: further images, for `x0_error_std`.
        num_samples: as of `nats`.

    Raises:
        ValueError: fewer than 2 images, or no other ones.
    """
    require(2, "a standard error", validation_images=len(images))
    require(1, "the error of the predicted x0", further_images=len(other))

    def evaluate(model: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        x0_std = x0_error_std(model, other, generator) if isinstance(model, Diffusion) else None
        bits, _ = bits_per_dimension(nats(model, images, num_samples, x0_std), images[0].numel())
        return {"bits (validation)": bits}

    return evaluate
