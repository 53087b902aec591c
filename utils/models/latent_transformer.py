"""The second-stage prior: a small network that turns normal noise into a VAE's latents.

The method is flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023). The network learns the velocity along
straight lines from noise to data, and a sample follows this velocity. A latent is four times smaller in each direction
than an image, so this is fast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import devices

BATCH = 1000  # latents that are transported at a time


class Block(nn.Module):
    """A block of a transformer: self-attention, then a perceptron (Peebles & Xie 2023).

    The time shifts and scales the inputs of both parts, and scales what they add. These scales begin at zero.

    Args:
        width: numbers at each position; divisible by `heads`.
        dropout: dropout rate of what both parts add.
    """

    HEADS = 4

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map positions (N, P, width) and embedded times (N, width) to positions of the same shape."""
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(time)[:, None].chunk(6, dim=2)
        qkv = self.qkv(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)
        query, key, value = qkv.unflatten(2, (3, self.HEADS, -1)).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + gate * self.dropout(self.mixed(attention))
        normed = F.layer_norm(x, x.shape[-1:]) * (1 + scale_2) + shift_2
        return x + gate_2 * self.dropout(self.perceptron(normed))


class VelocityField(nn.Module):
    """Maps points (N, C, H, W) and times (N,) in [0, 1] to velocities (N, C, H, W), with a transformer.

    Each position of the map is a token. The network gets the time as sine and cosine features.
    """

    FREQUENCIES = 32

    def __init__(self, shape: tuple[int, int, int], width: int, depth: int, dropout: float):
        super().__init__()
        self.inputs = nn.Linear(shape[0], width)
        self.places = nn.Parameter(0.02 * torch.randn(shape[1] * shape[2], width))
        self.time = nn.Sequential(nn.Linear(2 * self.FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.outputs = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, shape[0]))
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 6, self.FREQUENCIES)))

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        hidden = self.inputs(points.flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            hidden = block(hidden, embedded)
        return self.outputs(hidden).transpose(1, 2).unflatten(2, points.shape[2:])


class LatentTransformer(nn.Module):
    """A distribution of latents. `loop.fit` trains it like any other model.

    Args:
        shape: (channels, height, width) of a latent.
        width, depth: width and number of blocks of the velocity field.
        dropout: dropout rate in the blocks.
        lr: AdamW's learning rate.
    """

    ema_modules = ("field",)
    STEPS = 16  # steps of Heun's method

    def __init__(
        self,
        shape: tuple[int, int, int] = (4, 8, 8),
        width: int = 160,
        depth: int = 6,
        dropout: float = 0.1,
        lr: float = 5e-4,
    ):
        super().__init__()
        self.config = {"shape": list(shape), "width": width, "depth": depth, "dropout": dropout, "lr": lr}
        self.field = VelocityField(shape, width, depth, dropout)
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("std", torch.ones(*shape))

    def standardise(self, posteriors: Tensor) -> None:
        """Set the mean and the scale of the latents from the posteriors (N, 2 C, H, W) of the training images."""
        mean, log_var = posteriors.chunk(2, dim=1)
        self.mean.copy_(mean.mean(0))
        self.std.copy_((mean.var(0) + log_var.exp().mean(0)).sqrt())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": torch.optim.AdamW(self.field.parameters(), self.config["lr"], weight_decay=1e-2)}

    def step(self, posteriors: Tensor, update) -> dict[str, Tensor]:
        """One update on posteriors (N, 2 C, H, W), which are means and log variances.

        Each step draws a new latent from each posterior. `flow` is the mean squared error of the velocity, in
        standardised units.
        """
        loss = self.loss(posteriors)
        update("flow", loss, clip=1.0)
        return {"flow": loss}

    def loss(self, posteriors: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The flow-matching loss. With the same generator seed, the losses of two models are comparable."""

        def normal() -> Tensor:
            return torch.randn(mean.shape, generator=generator, device=source).to(mean.device)

        mean, log_var = posteriors.chunk(2, dim=1)
        source = devices.drawn_on(generator, mean.device)
        latents = (mean + normal() * (log_var / 2).exp() - self.mean) / self.std
        noise = normal()
        time = torch.randn(len(mean), generator=generator, device=source).to(mean.device).sigmoid()
        share = time[:, None, None, None]
        return F.mse_loss(self.field(share * latents + (1 - share) * noise, time).float(), latents - noise)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, steps: int | None = None) -> Tensor:
        """Latents (count, C, H, W) on the CPU, the same for the same seed. They are noise moved by the velocity."""
        self.eval()
        noise = torch.randn(count, *self.mean.shape, generator=torch.Generator().manual_seed(seed))
        parts = noise.to(self.mean.device).split(BATCH)
        return torch.cat([self.transport(part, steps or self.STEPS) for part in parts]).cpu()

    @torch.no_grad()
    def transport(self, noise: Tensor, steps: int) -> Tensor:
        """Noise (N, C, H, W) to latents (N, C, H, W) by Heun's method; close noise gives close latents."""
        points = noise
        for k in range(steps):
            now = torch.full((len(noise),), k / steps, device=noise.device)
            first = self.field(points, now)
            second = self.field(points + first / steps, now + 1 / steps)
            points = points + (first + second) / (2 * steps)
        return points * self.std + self.mean
