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

from utils.evaluation import require
from utils.models.diffusion import LOWEST, NOISE_LEVELS, Diffusion
from utils.models.flow import Flow
from utils.models.spatial_vae import SpatialVAE, level_nats

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


@torch.no_grad()
def vae_nats(vae: SpatialVAE, images: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Upper bound (N,) in nats on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    This is the importance-weighted bound (Burda et al. 2016): minus the logarithm of the mean of p(x, z) / q(z | x)
    over `num_samples` latents. More latents make it tighter. The prior of z is the normal distribution of the VAE's
    training. The decoder gives the probabilities of the grey levels.

    Raises:
        ValueError: `num_samples` is less than 1.
    """
    require(1, "the importance-weighted bound", latents_for_each_image=num_samples)
    vae.eval()
    x = images.to(vae.log_scale.device)
    mean, log_var = vae.encoder(x)
    ratios = []
    for _ in range(num_samples):
        drawn = torch.randn(mean.shape, generator=generator).to(mean.device)
        latents = mean + drawn * (log_var / 2).exp()
        log_prior = -0.5 * (latents**2).flatten(1).sum(1)
        log_posterior = -0.5 * (drawn**2 + log_var).flatten(1).sum(1)  # both omit the same constant
        ratios.append(log_prior - log_posterior - level_nats(x, *vae.predict(latents)).flatten(1).sum(1))
    return (math.log(num_samples) - torch.stack(ratios).logsumexp(0)).cpu()


@torch.no_grad()
def diffusion_nats(
    model: Diffusion, images: Tensor, num_samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Variational bound (N,) in nats on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    The bound is from Ho et al. (2020), in the form of Kingma et al. (2021). It is a sum over the noise levels:

    - Lowest level: the negative log probability of the grey levels, which the network predicts from the noisy image.
    - Each other level: half the drop in the signal-to-noise ratio, times the squared error of the predicted x0. The
      term of level k is about proportional to 1 / k. So `num_samples` levels are drawn for each image with a
      probability of about 1 / k, evenly spread on a logarithmic scale. Each term is divided by its probability, so the
      estimate of the sum is unbiased.
    - Highest level: the Kullback-Leibler divergence from the noisy image to the normal distribution.

    Args:
        num_samples: noise levels that are drawn for each image.

    Raises:
        ValueError: `num_samples` is less than 1, or the model does not predict grey levels.
    """
    require(1, "the variational bound", noise_levels_for_each_image=num_samples)
    if not model.config["components"]:
        raise ValueError("a diffusion model with components=0 does not predict grey levels, so it has no bound")
    model.eval()
    x = images.to(next(model.parameters()).device)

    def noisy(levels: Tensor) -> Tensor:
        image, noise = model.factors(levels)
        return image * x + noise * torch.randn(x.shape, generator=generator).to(x.device)

    ratio = model.signal / (1 - model.signal)
    above = NOISE_LEVELS / (LOWEST + 1)  # from the second lowest level to the number of levels
    first, between = torch.rand(len(x), generator=generator), torch.zeros(len(x), device=x.device)
    for k in range(num_samples):
        levels = ((LOWEST + 1) * above ** ((first + k) / num_samples)).long().clamp(LOWEST + 1, NOISE_LEVELS - 1)
        levels = levels.to(x.device)
        probability = torch.log1p(1 / levels) / math.log(above)
        error = (x - model.predict_x0(noisy(levels), levels)).square().flatten(1).sum(1)
        between += 0.5 * (ratio[levels - 1] - ratio[levels]) * error / (num_samples * probability)

    levels = torch.full((len(x),), LOWEST, device=x.device)
    seen = noisy(levels)
    lowest = model.grey_nats(x, seen, model.outputs(seen, levels))
    last = model.signal[-1]
    highest = 0.5 * (last * x**2 - last - torch.log1p(-last))
    return (between + (lowest + highest).flatten(1).sum(1)).cpu()


def nats(model: nn.Module, images: Tensor, num_samples: int) -> Tensor:
    """Negative log probability (N,) in nats of images (N, C, H, W) in [-1, 1], or an upper bound on it.

    The value is exact for a PixelCNN. For the bounds, see `Flow.nats`, `vae_nats` and `diffusion_nats`. Every call
    uses the same random numbers.

    Args:
        num_samples: how many latents of a VAE, or noise levels of a diffusion model, are drawn for each image.

    Raises:
        ValueError: there are no images, or one of the bounds raises it.
    """
    require(1, "a likelihood", images=len(images))
    generator = torch.Generator().manual_seed(0)

    def batch_nats(batch: Tensor) -> Tensor:
        if isinstance(model, SpatialVAE):
            return vae_nats(model, batch, num_samples, generator)
        if isinstance(model, Diffusion):
            return diffusion_nats(model, batch, num_samples, generator)
        batch = batch.to(next(model.parameters()).device)
        return (model.nats(batch, generator) if isinstance(model, Flow) else model.nats(batch)).cpu()

    model.eval()
    with torch.no_grad():
        return torch.cat([batch_nats(batch) for batch in images.split(BATCH)])


def bits_hook(images: Tensor, num_samples: int) -> Callable[[nn.Module], dict[str, float]]:
    """A hook for `loop.fit`: bits per dimension of validation images (N, C, H, W) in [-1, 1].

    Args:
        num_samples: see `nats`.

    Raises:
        ValueError: there are fewer than 2 images.
    """
    require(2, "a standard error", validation_images=len(images))
    dimensions = images[0].numel()
    return lambda model: {"bits (validation)": bits_per_dimension(nats(model, images, num_samples), dimensions)[0]}
