"""Bits per dimension: how well a model's probabilities compress an image.

They are the mean number of bits that are needed for one number of an image. A PixelCNN gives the exact value. A flow
gives an upper bound, because of the noise between the grey levels. The upper bounds for the VAE and the diffusion model
are here. All values are for the same grey levels, so they can be compared. A GAN has no likelihood.
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

DECODER_ROWS = 128  # bins for the grey value that the decoder of a VAE predicts
X0_ROWS = 1024  # bins for the x0 that a diffusion model predicts; its error is smaller than a grey level
BATCH = 250  # number of images in a batch


def bits_per_dimension(nats: Tensor, dimensions: int) -> tuple[float, float]:
    """Bits per dimension: the mean over the images, and its standard error.

    Args:
        nats: (N,), negative log probabilities of whole images.
        dimensions: how many numbers an image consists of.

    Raises:
        ValueError: there are fewer than 2 images, so there is no standard error.
        FloatingPointError: a likelihood is not finite. This happens if the training has diverged.
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
    """Upper bound (N,) in nats on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    This is the importance-weighted bound (Burda et al. 2016): minus the logarithm of the mean of p(x, z) / q(z | x)
    over `num_samples` latents. More latents make it tighter. The prior of z is the normal distribution of the VAE's
    training. Without a table, uniform noise between the levels turns the decoder's density into a bound on the
    probability (Theis et al. 2016). With a `decoder_table`, the table gives the probabilities.

    Raises:
        ValueError: `num_samples` is less than 1.
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
        log_posterior = -0.5 * (drawn**2 + log_var).sum(1)  # both omit the same constant
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

    The grey levels of training images (N, C, H, W) in [-1, 1] are counted. For each image, one latent is drawn and
    decoded. A table can express that a black pixel is exactly black. One Gaussian for all pixels cannot.

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
    """The x0 (N, C, H, W) in [-1, 1] that the network predicts from noisy images.

    Args:
        images: (N, C, H, W) in [-1, 1], without noise.
        levels: int64 (N,), the noise level to use for each image.
        generator: the source of the noise.
    """
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    signal = model.scheduler.alphas_cumprod.to(images.device)[levels].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * images + (1 - signal).sqrt() * noise
    return (signal.sqrt() * noisy - (1 - signal).sqrt() * model.velocity(noisy, levels)).clamp(-1, 1)


@torch.no_grad()
def x0_error_std(model: Diffusion, images: Tensor, generator: torch.Generator | None = None) -> float:
    """Root mean square error of the predicted x0 at the lowest noise level. It is the `x0_std` for `diffusion_nats`.

    The images (N, C, H, W) are in [-1, 1]. Do not use the images for which the bound is computed.

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
    """Log probabilities (X0_ROWS, 256) of a pixel's grey level, given the predicted x0 at the lowest noise level.

    The grey levels of training images (N, C, H, W) in [-1, 1] are counted. For bins with few pixels, the result is
    close to a Gaussian with standard deviation `x0_std`.

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
    """Variational bound (N,) in nats on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    The bound is from Ho et al. (2020), in the form of Kingma et al. (2021). It is a sum over the noise levels:

    - Lowest level: the negative log probability of the grey levels, given the predicted x0. The probabilities come
      from Gaussians around the predicted x0, or from an `x0_table`.
    - Each other level: half the drop in the signal-to-noise ratio, times the squared error of the predicted x0. The
      term of level k is about proportional to 1 / k. So `num_samples` levels are drawn for each image with a
      probability of about 1 / k, evenly spread on a logarithmic scale. Each term is divided by its probability, so the
      estimate of the sum is unbiased.
    - Highest level: the Kullback-Leibler divergence from the noisy image to the normal distribution.

    Args:
        num_samples: noise levels that are drawn for each image.
        x0_std: the standard deviation of the Gaussians. The bound is correct for every value. The value from
            `x0_error_std` makes it tight.
        table: from `x0_table`.

    Raises:
        ValueError: `num_samples` is less than 1, or there is neither a positive `x0_std` nor a table.
    """
    require(1, "the variational bound", noise_levels_for_each_image=num_samples)
    if table is None and not (x0_std and x0_std > 0):
        raise ValueError(f"x0_std is {x0_std}: without a table it must be positive, for example x0_error_std's result")
    model.eval()
    device = next(model.parameters()).device
    signal = model.scheduler.alphas_cumprod.to(device)  # the image's share of the variance; it falls with the level
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
    """Negative log probability (N,) in nats of images (N, C, H, W) in [-1, 1], or an upper bound on it.

    The value is exact for a PixelCNN. For the bounds, see `Flow.nats`, `vae_nats` and `diffusion_nats`. Every call
    uses the same random numbers.

    Args:
        num_samples: how many latents of a VAE, or noise levels of a diffusion model, are drawn for each image.
        x0_std: for a diffusion model, the result of `x0_error_std` on other images.
        table: the result of `decoder_table` (VAE) or `x0_table` (diffusion model) on training images. Without a
            table, a Gaussian is used.

    Raises:
        ValueError: there are no images, or one of the bounds raises it.
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
        other: more images, for `x0_error_std`.
        num_samples: as in `nats`.

    Raises:
        ValueError: there are fewer than 2 images, or no images in `other`.
    """
    require(2, "a standard error", validation_images=len(images))
    require(1, "the error of the predicted x0", further_images=len(other))

    def evaluate(model: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        x0_std = x0_error_std(model, other, generator) if isinstance(model, Diffusion) else None
        bits, _ = bits_per_dimension(nats(model, images, num_samples, x0_std), images[0].numel())
        return {"bits (validation)": bits}

    return evaluate
