"""Bits per dimension: how many bits a pixel takes when images are coded with a model's probabilities.

`pixelcnn` gives them exactly and `flow` up to the noise between grey levels; here are the bounds of the two families
that have latents. All are of whole grey levels, so they compare. A GAN has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from utils.models.diffusion import NOISE_LEVELS, Diffusion
from utils.models.flow import Flow
from utils.models.vae import VAE, gaussian_nll

LEVELS = 256  # grey levels
TABLE_ROWS = 128  # parts of the grey range that a decoder's values are sorted into
GUESS_ROWS = 1024  # the same for a diffusion model's last guess, which is off by less than a grey level
TABLE_PRIOR = 50.0  # pixels' worth of prior knowledge in each of them
LEVEL = 1 / 127.5  # the distance of two grey levels where images are in [-1, 1]


def bits_per_dimension(nats: Tensor, dimensions: int) -> tuple[float, float]:
    """Mean and standard error over images of negative log probabilities (N,) in nats, as bits for one of the numbers
    that an image consists of."""
    bits = nats.double().cpu().numpy() / (dimensions * math.log(2))
    return float(bits.mean()), float(bits.std(ddof=1) / np.sqrt(len(bits)))


@torch.no_grad()
def vae_nats(
    vae: VAE, images: Tensor, samples: int, generator: torch.Generator | None = None, table: Tensor | None = None
) -> Tensor:
    """Importance-weighted bound (N,) on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    Burda et al. (2016): the mean of p(x, z) / q(z | x) over `samples` latents, of which more make it tighter. The
    prior is the normal one that the bound was trained with. The decoder's density becomes a probability by uniform
    noise between the levels (Theis et al. 2016); with a `decoder_table`, that gives the probabilities instead.
    """
    vae.eval()
    device = vae.log_std.device
    noise = torch.rand(images.shape, generator=generator) - 0.5
    x = (images if table is not None else images + LEVEL * noise).to(device)
    mean, log_var = vae.encoder(x)
    ratios = []
    for _ in range(samples):
        drawn = torch.randn(mean.shape, generator=generator).to(device)
        latents = mean + drawn * (log_var / 2).exp()
        log_prior = -0.5 * (latents**2).sum(1)
        log_posterior = -0.5 * (drawn**2 + log_var).sum(1)  # both without the constant, which cancels
        decoded = vae.decoder(latents).float()
        if table is None:
            nll = gaussian_nll(vae.spectrum(x), vae.spectrum(decoded), vae.log_std)
        else:
            nll = -table.to(device)[_bins(decoded, len(table)), _bins(x, LEVELS)].flatten(1).sum(1)
        ratios.append(log_prior - log_posterior - nll)
    log_density = torch.stack(ratios).logsumexp(0) - math.log(samples)
    return (-log_density - (images[0].numel() * math.log(LEVEL) if table is None else 0)).cpu()


def _bins(images: Tensor, count: int) -> Tensor:
    """In which of so many equal parts of [-1, 1] each value lies: int64 of the same shape."""
    return ((images.clamp(-1, 1) + 1) / 2 * (count - 1)).round().long()


@torch.no_grad()
def decoder_table(vae: VAE, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Log probabilities (TABLE_ROWS, 256) of a pixel's grey level, given the grey that the decoder gives it.

    Counted on training images (N, C, H, W) in [-1, 1], each decoded from a latent of its own. One Gaussian for all
    pixels cannot know that black is exactly black; counting can.
    """

    def decoded(batch: Tensor) -> Tensor:
        mean, log_var = vae.encoder(batch.to(vae.log_std.device))
        drawn = torch.randn(mean.shape, generator=generator).to(mean.device)
        return vae.decoder(mean + drawn * (log_var / 2).exp()).float()

    vae.eval()
    overall = sum(torch.bincount(_bins(batch, LEVELS).flatten(), minlength=LEVELS) for batch in images.split(500))
    return _counted(decoded, images, (overall / overall.sum()).expand(TABLE_ROWS, -1))


@torch.no_grad()
def guess_table(model: Diffusion, images: Tensor, spread: float, generator: torch.Generator | None = None) -> Tensor:
    """Log probabilities (GUESS_ROWS, 256) of a pixel's grey level, given what a diffusion model guesses at the lowest
    noise level.

    Counted on training images (N, C, H, W) in [-1, 1]; what was hardly seen has a Gaussian of deviation `spread`.
    """

    def guessed(batch: Tensor) -> Tensor:
        batch = batch.to(next(model.parameters()).device)
        return _guess(model, batch, torch.zeros(len(batch), dtype=torch.long, device=batch.device), generator)

    model.eval()
    guesses, levels = torch.linspace(-1, 1, GUESS_ROWS)[:, None], torch.linspace(-1, 1, LEVELS)[None]
    return _counted(guessed, images, (-_level_nats(*torch.broadcast_tensors(levels, guesses), spread)).exp())


def _counted(predict: Callable[[Tensor], Tensor], images: Tensor, prior: Tensor) -> Tensor:
    """Log probabilities (rows, 256) of a pixel's grey level, by which of so many parts of the grey range its
    prediction lies in; `prior` are those that a part is given before it is seen."""
    rows = len(prior)
    counts = torch.zeros(rows * LEVELS)
    for batch in images.split(500):
        places = _bins(predict(batch).cpu(), rows) * LEVELS + _bins(batch, LEVELS)
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    # one pixel more, spread evenly, so that nothing is impossible
    counts = counts.view(rows, LEVELS) + TABLE_PRIOR * prior + 1 / LEVELS
    return (counts / counts.sum(1, keepdim=True)).log()


@torch.no_grad()
def diffusion_nats(
    model: Diffusion,
    images: Tensor,
    draws: int,
    spread: float,
    generator: torch.Generator | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """Variational bound (N,) on the negative log probability of images (N, C, H, W) of grey levels in [-1, 1].

    Ho et al. (2020), in the form of Kingma et al. (2021): each of the noise levels but the lowest costs half the drop
    in the signal-to-noise ratio times the squared error of the image that the network guesses. Level k costs about
    1 / k, so `draws` levels an image are drawn with about that probability, evenly spread on a logarithmic scale, and
    divided by it: the sum is estimated without bias. The lowest pays for the grey levels themselves, by Gaussians
    around the network's guess or by a `guess_table`; the highest for what is left of the image in the noise.

    Args:
        spread: standard deviation of those Gaussians; any is allowed, and the bound is tightest at `guess_error`.
    """
    model.eval()
    device = next(model.parameters()).device
    signal = model.scheduler.alphas_cumprod.to(device)  # share of the image in the variance, falling
    ratio = signal / (1 - signal)
    x = images.to(device)
    count = len(x)

    first = torch.rand(count, generator=generator)
    between = torch.zeros(count, device=device)
    for k in range(draws):
        levels = (NOISE_LEVELS ** ((first + k) / draws)).long().clamp(1, NOISE_LEVELS - 1).to(device)
        chance = torch.log1p(1 / levels) / math.log(NOISE_LEVELS)
        error = (x - _guess(model, x, levels, generator)).square().flatten(1).sum(1)
        between += 0.5 * (ratio[levels - 1] - ratio[levels]) * error / (draws * chance)

    guess = _guess(model, x, torch.zeros(count, dtype=torch.long, device=device), generator)
    if table is None:
        lowest = _level_nats(x, guess, spread)
    else:
        lowest = -table.to(device)[_bins(guess, len(table)), _bins(x, LEVELS)]
    last = signal[-1]
    prior = 0.5 * (last * x**2 - last - torch.log1p(-last)).flatten(1).sum(1)
    return (between + lowest.flatten(1).sum(1) + prior).cpu()


def _guess(model: Diffusion, images: Tensor, levels: Tensor, generator: torch.Generator | None) -> Tensor:
    """The image that the network sees in a noisy version of each of the images, (N, C, H, W) in [-1, 1]."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    kept = model.scheduler.alphas_cumprod.to(images.device)[levels].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * images + (1 - kept).sqrt() * noise
    return (kept.sqrt() * noisy - (1 - kept).sqrt() * model.velocity(noisy, levels)).clamp(-1, 1)


@torch.no_grad()
def guess_error(model: Diffusion, images: Tensor, generator: torch.Generator | None = None) -> float:
    """Root mean square error of the network's guess at the lowest noise level, for `diffusion_nats`; to be measured on
    other images than the bound."""
    model.eval()
    x = images.to(next(model.parameters()).device)
    levels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return float((_guess(model, x, levels, generator) - x).square().mean().sqrt())


def _level_nats(images: Tensor, mean: Tensor, spread: float) -> Tensor:
    """Negative log probability of each grey level in [-1, 1] under a Gaussian around `mean`, discretised; the outermost
    levels get the tails."""
    upper, lower = (images - mean + LEVEL / 2) / spread, (images - mean - LEVEL / 2) / spread
    upper = torch.where(images > 1 - LEVEL / 2, math.inf, upper)
    lower = torch.where(images < LEVEL / 2 - 1, -math.inf, lower)
    mirrored = lower > 0  # far out, differences of small numbers are exact, those of numbers near 1 are not
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    mass = torch.special.ndtr(upper.double()) - torch.special.ndtr(lower.double())
    return -mass.clamp(min=1e-300).log().to(images.dtype)


BATCH = 250  # images that are judged at a time


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
            return vae_nats(model, batch, effort, generator, table)
        if isinstance(model, Diffusion):
            return diffusion_nats(model, batch, effort, spread, generator, table)
        batch = batch.to(next(model.parameters()).device)
        return (model.nats(batch, generator) if isinstance(model, Flow) else model.nats(batch)).cpu()

    model.eval()
    with torch.no_grad():
        return torch.cat([batch_nats(batch) for batch in images.split(BATCH)])


def bits_on(images: Tensor, other: Tensor, effort: int) -> Callable[[nn.Module], dict[str, float]]:
    """A hook for `training.fit`: bits per dimension of validation images; `other` images are for `guess_error`."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        spread = guess_error(model, other, generator) if isinstance(model, Diffusion) else None
        bits, _ = bits_per_dimension(nats(model, images, effort, spread), images[0].numel())
        return {"bits (validation)": bits}

    return evaluate
