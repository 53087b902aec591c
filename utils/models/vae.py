"""A convolutional variational autoencoder whose samples are as sharp as its reconstructions.

This is the VAE of Kingma & Welling (2014) with two changes:

1. The decoder's variance is learned (the sigma-VAE of Rybkin et al. 2021). It becomes smaller as the reconstructions
   become better. So the remaining error keeps its weight against the KL term. With `per_frequency`, each spatial
   frequency of the image's cosine transform has its own variance. The hypertune notebook shows that this does not help
   for the hands.
2. The latents of samples come from a second-stage prior, a `LatentFlow` (Dai & Wipf 2019). It is trained on the latents
   of the training images, because the distribution of these latents differs from the normal prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.models.blocks import Upsampler, num_downsamplings
from utils.models.latent_flow import LatentFlow
from utils.training import checkpoints, identity, loop

PRIOR_BATCH = 256  # latents in a training step of the prior


def cosine_matrix(size: int) -> Tensor:
    """The orthonormal type-II discrete cosine transform as a matrix (size, size); row k is frequency k."""
    n, k = torch.arange(size), torch.arange(size)[:, None]
    matrix = torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def gaussian_nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Negative log density (N,) in nats of x (N, ...) under a diagonal Gaussian, summed over each image."""
    nll = 0.5 * ((x - mean) * torch.exp(-log_std)) ** 2 + log_std + 0.5 * math.log(2 * math.pi)
    return nll.flatten(1).sum(1)


def kl_to_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence (N,) in nats of N(mean, exp(log_var)), both (N, D), from N(0, I)."""
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)


class Encoder(nn.Module):
    """Maps images (N, channels, H, W) in [-1, 1] to the means and log variances of their latents, (N, D) each."""

    def __init__(self, size: tuple[int, int], channels: int, latent_dim: int, base: int):
        super().__init__()
        levels = num_downsamplings(size)
        layers: list[nn.Module] = [nn.Conv2d(channels, base, 3, padding=1), nn.SiLU()]
        for level in range(levels):
            inputs, outputs = base * 2**level, base * 2 ** (level + 1)
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.SiLU()]
        flat = base * 2**levels * (size[0] >> levels) * (size[1] >> levels)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 2 * latent_dim))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.layers(images).float().chunk(2, dim=1)
        return mean, log_var.clamp(-10, 10)


class VAE(nn.Module):
    """Encoder, decoder with a learned variance, and the prior of the latents.

    `train` trains the prior after the VAE itself.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: number of channels of an image.
        latent_dim: length of a latent.
        base: channels of the largest hidden maps.
        lr: Adam's learning rate.
        per_frequency: learn a standard deviation for each frequency, not one for all pixels.
        prior: arguments of `LatentFlow`.
    """

    ema_modules = ("encoder", "decoder")

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: int = 1,
        latent_dim: int = 64,
        base: int = 32,
        lr: float = 1e-3,
        per_frequency: bool = False,
        prior: dict | None = None,
    ):
        super().__init__()
        self.config = {
            "size": list(size), "channels": channels, "latent_dim": latent_dim, "base": base,
            "lr": lr, "per_frequency": per_frequency,
        }  # fmt: skip
        self.lr = float(lr)  # a checkpoint cannot hold NumPy numbers
        self.encoder = Encoder(size, channels, latent_dim, base)
        self.decoder = Upsampler(size, channels, latent_dim, base)
        self.log_std = nn.Parameter(torch.full((1, 1, *size) if per_frequency else (1, 1, 1, 1), -2.0))
        self.prior = LatentFlow(**{"latent_dim": latent_dim} | (prior or {}))
        self.register_buffer("rows", cosine_matrix(size[0]), persistent=False)
        self.register_buffer("columns", cosine_matrix(size[1]), persistent=False)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        trained = [*self.encoder.parameters(), *self.decoder.parameters(), self.log_std]
        return {"vae": torch.optim.Adam(trained, self.lr)}

    def spectrum(self, images: Tensor) -> Tensor:
        """The orthonormal two-dimensional cosine transform of images (N, C, H, W); the same shape."""
        return self.rows @ images @ self.columns.T

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """The negative evidence lower bound of images (N, C, H, W) in [-1, 1], in nats per image.

        `negative_elbo` is `reconstruction` plus `kl`. `reconstruction` is the negative log density of the images'
        cosine transforms. The density of their pixels is the same, because the transform is orthonormal.
        """
        mean, log_var = self.encoder(images)
        latents = mean + torch.randn_like(mean) * (log_var / 2).exp()
        decoded = self.decoder(latents)
        with torch.autocast(images.device.type, enabled=False):
            target, predicted = self.spectrum(images), self.spectrum(decoded.float())
            reconstruction = gaussian_nll(target, predicted, self.log_std).mean()
            kl = kl_to_normal(mean, log_var).mean()
        return {"reconstruction": reconstruction, "kl": kl, "negative_elbo": reconstruction + kl}

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; returns `losses`."""
        losses = self.losses(images)
        update("vae", losses["negative_elbo"] / images[0].numel(), clip=1.0)
        return losses

    @torch.no_grad()
    def posteriors(self, images: Tensor) -> Tensor:
        """Means and log variances (N, 2 * latent_dim) of the latents of images (N, C, H, W) in [-1, 1]."""
        self.eval()
        device = self.log_std.device
        return torch.cat([torch.cat(self.encoder(batch.to(device)), dim=1) for batch in images.split(500)])

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed."""
        return self.decode(self.prior.sample(count, seed))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_dim) to images (N, C, H, W) in [-1, 1] on the CPU."""
        self.eval()
        device = self.log_std.device
        return torch.cat([self.decoder(z.to(device)).float().clamp(-1, 1).cpu() for z in latents.split(500)])

    def export(self, path: str | Path) -> Path:
        """Write encoder, decoder and prior as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config | {"prior": self.prior.config})

    @classmethod
    def from_weights(cls, path: str | Path) -> VAE:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


def train(
    vae: VAE,
    images: Tensor,
    vae_images: int,
    prior_images: int,
    batch_size: int,
    folder: Path,
    seed: int = 0,
    evaluate_prior: Callable | None = None,
    prior_batch: int = PRIOR_BATCH,
    **options,
) -> tuple[list[dict], list[dict]]:
    """Train a VAE on images (N, C, H, W) in [-1, 1], then its prior. Both trainings go on from their checkpoints.

    Args:
        vae_images: images seen by the VAE.
        prior_images: latents seen by the prior.
        batch_size: images in a step of the VAE.
        folder: folder for the checkpoints.
        evaluate_prior: the `evaluate` of `loop.fit` for the prior.
        prior_batch: latents in a step of the prior.
        options: arguments of `loop.fit` for the VAE.

    Returns:
        The histories of the VAE and of its prior.
    """
    steps = vae_images // batch_size
    history = loop.fit(vae, images, steps, batch_size, folder / "vae", vae.config, seed=seed, **options)
    posteriors = vae.posteriors(images)
    vae.prior.standardise(posteriors)
    prior_history = loop.fit(
        vae.prior,
        posteriors,
        max(1, prior_images // prior_batch),
        prior_batch,
        folder / "prior",
        vae.prior.config | {"encoder": checkpoints.fingerprint(vae.encoder)},
        seed=seed,
        evaluate=evaluate_prior,
        plot=False,  # its plot would replace the VAE's
        fresh=options.get("fresh", False),
        data_hash=identity.of_data((images,)),  # the last digits of the posteriors depend on the machine
    )
    return history, prior_history
