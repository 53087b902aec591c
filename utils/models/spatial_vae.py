"""A convolutional variational autoencoder whose samples are as sharp as its reconstructions.

This is the VAE of Kingma & Welling (2014) with three changes:

1. The latents are a small map of H / 4 x W / 4 positions, so that each of them describes a part of the image.
2. The decoder gives each grey level a probability, and learns how wide this distribution is (the sigma-VAE of Rybkin et
   al. 2021, with the discretised logistic distribution of Salimans et al. 2017). The width becomes smaller as the
   reconstructions become better. So the remaining error keeps its weight against the KL term.
3. The latents of samples come from a second-stage prior, a `LatentTransformer` (Dai & Wipf 2019). It is trained on the
   latents of the training images, because the distribution of these latents differs from the normal prior.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models import vae
from utils.models.blocks import Decoder, PreActivation, SelfAttention, group_norm
from utils.models.latent_transformer import LatentTransformer
from utils.models.vae import kl_to_normal
from utils.training import checkpoints

PRIOR_BATCH = 512  # latents in a training step of the prior
HALF_LEVEL = 1 / 255  # half the distance between two grey levels in [-1, 1]


def level_nats(levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log probabilities (N, C, H, W) in nats of grey levels in [-1, 1].

    The distribution of a pixel is a logistic distribution, discretised: a grey level gets the mass of the interval
    around it. Black and white also get the mass beyond them (Salimans et al. 2017).

    Args:
        levels, mean: (N, C, H, W).
        log_scale: logarithm of the logistic distribution's scale; a shape that broadcasts to the levels'.
    """
    upper = (levels - mean + HALF_LEVEL) * torch.exp(-log_scale)
    lower = (levels - mean - HALF_LEVEL) * torch.exp(-log_scale)
    black, white = levels < -1 + HALF_LEVEL, levels > 1 - HALF_LEVEL
    # sigmoid(upper) - sigmoid(lower) is this product of three factors, none of which is rounded to zero
    log_mass = (
        F.logsigmoid(upper).masked_fill(white, 0)
        + F.logsigmoid(-lower).masked_fill(black, 0)
        + torch.log(-torch.expm1(lower - upper)).masked_fill(black | white, 0)
    )
    return -log_mass


class Encoder(nn.Module):
    """Maps images (N, channels, H, W) to means and log variances of latents, (N, latent_channels, H / 4, W / 4) each.

    Args:
        base: channels at full size; twice as many at half size, four times as many at a quarter.
        dropout: dropout rate in the residual blocks.
    """

    def __init__(self, channels: int, latent_channels: int, base: int, dropout: float = 0.0):
        super().__init__()
        half, quarter = 2 * base, 4 * base
        self.layers = nn.Sequential(
            nn.Conv2d(channels, base, 3, padding=1), PreActivation(base, base, dropout),
            nn.Conv2d(base, half, 3, stride=2, padding=1), PreActivation(half, half, dropout),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            PreActivation(quarter, quarter, dropout), SelfAttention(quarter), PreActivation(quarter, quarter, dropout),
            group_norm(quarter), nn.SiLU(), nn.Conv2d(quarter, 2 * latent_channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.layers(images).float().chunk(2, dim=1)
        return mean, log_var.clamp(-10, 10)


class SpatialVAE(nn.Module):
    """Encoder, decoder with a learned variance, and the prior of the latents.

    `train` trains the prior after the VAE itself.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: number of channels of an image.
        latent_channels: numbers at each position of the latent map.
        base: channels of the largest hidden maps.
        dropout: dropout rate in the residual blocks.
        lr: AdamW's learning rate.
        scale_per_pixel: whether the decoder predicts a scale for each pixel. Otherwise, one scale is learned.
        prior: arguments of `LatentTransformer`.

    Raises:
        ValueError: a side is not divisible by 4.
    """

    ema_modules = ("encoder", "decoder")

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: int = 1,
        latent_channels: int = 4,
        base: int = 48,
        dropout: float = 0.1,
        lr: float = 1e-3,
        scale_per_pixel: bool = False,
        prior: dict | None = None,
    ):
        super().__init__()
        if size[0] % 4 or size[1] % 4:
            raise ValueError(f"image sides must be divisible by 4, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "latent_channels": latent_channels, "base": base,
            "dropout": dropout, "lr": float(lr), "scale_per_pixel": scale_per_pixel,
        }  # fmt: skip
        self.encoder = Encoder(channels, latent_channels, base, dropout)
        self.decoder = Decoder(latent_channels, channels * (2 if scale_per_pixel else 1), base, dropout)
        self.log_scale = nn.Parameter(torch.full((1, channels, 1, 1), -3.0))
        shape = (latent_channels, size[0] // 4, size[1] // 4)
        self.prior = LatentTransformer(**{"shape": shape} | (prior or {}))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        trained = [*self.encoder.parameters(), *self.decoder.parameters(), self.log_scale]
        return {"vae": torch.optim.AdamW(trained, self.config["lr"], weight_decay=1e-2)}

    def predict(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Means (N, C, H, W) of the pixels' distributions, and the logarithms of their scales, in a shape that fits."""
        outputs = self.decoder(latents)
        if not self.config["scale_per_pixel"]:
            return outputs, self.log_scale
        mean, change = outputs.chunk(2, dim=1)
        return mean, (self.log_scale + change).clamp(min=-7)

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """The negative evidence lower bound of images (N, C, H, W) in [-1, 1], in nats per image.

        `negative_elbo` is `reconstruction`, the negative log probability of the grey levels, plus `kl`.
        """
        mean, log_var = self.encoder(images)
        predicted = self.predict(mean + torch.randn_like(mean) * (log_var / 2).exp())
        with torch.autocast(images.device.type, enabled=False):
            reconstruction = level_nats(images, *predicted).flatten(1).sum(1).mean()
            kl = kl_to_normal(mean.flatten(1), log_var.flatten(1)).mean()
        return {"reconstruction": reconstruction, "kl": kl, "negative_elbo": reconstruction + kl}

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; returns `losses`."""
        losses = self.losses(images)
        update("vae", losses["negative_elbo"] / images[0].numel(), clip=1.0)
        return losses

    @torch.no_grad()
    def posteriors(self, images: Tensor) -> Tensor:
        """Means and log variances (N, 2 latent_channels, H / 4, W / 4) of the latents of images (N, C, H, W)."""
        self.eval()
        device = self.log_scale.device
        return torch.cat([torch.cat(self.encoder(part.to(device)), dim=1) for part in images.split(500)])

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        They are the means of the pixels' distributions. A mean below -1 is black.
        """
        self.eval()
        device = self.log_scale.device
        parts = self.prior.sample(count, seed).split(500)
        return torch.cat([self.predict(z.to(device))[0].clamp(-1, 1).cpu() for z in parts])

    def export(self, path: str | Path) -> Path:
        """Write encoder, decoder and prior as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config | {"prior": self.prior.config})

    @classmethod
    def from_weights(cls, path: str | Path) -> SpatialVAE:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


def train(
    model: SpatialVAE, images: Tensor, vae_images: int, prior_images: int, batch_size: int, folder: Path, seed: int = 0,
    **options,
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """Train the VAE and then its prior, see `vae.train`; the batches of the prior are larger here."""
    lengths = (vae_images, prior_images, batch_size)
    return vae.train(model, images, *lengths, folder, seed, prior_batch=PRIOR_BATCH, **options)
