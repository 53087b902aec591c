"""The second-stage prior: a small network that turns normal noise into a VAE's latents.

The method is flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023). The network learns the velocity along
straight lines from noise to data, and a sample follows this velocity. A latent has only 64 numbers, while an image has
1024 pixels. So this takes seconds. For a mixture of Gaussians, one would have to choose the number of components.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints, devices

BATCH = 2000  # latents that are transported at a time


class VelocityField(nn.Module):
    """Maps points (N, latent_dim) and times (N,) in [0, 1] to velocities (N, latent_dim).

    This is a residual multi-layer perceptron. Each block gets the time as sine and cosine features.
    """

    FREQUENCIES = 32

    def __init__(self, latent_dim: int, width: int, depth: int, dropout: float):
        super().__init__()
        self.inputs = nn.Linear(latent_dim, width)
        self.time = nn.Sequential(nn.Linear(2 * self.FREQUENCIES, width), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )
        self.outputs = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent_dim))
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 6, self.FREQUENCIES)))

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        hidden = self.inputs(points)
        for block in self.blocks:
            hidden = hidden + block(hidden + embedded)
        return self.outputs(hidden)


class LatentFlow(nn.Module):
    """A distribution of latents. `loop.fit` trains it like any other model.

    Args:
        latent_dim: length of a latent.
        width, depth: width and number of blocks of the velocity field.
        dropout: dropout rate in the blocks, because there are only a few thousand latents to learn from.
        lr: AdamW's learning rate.
    """

    ema_modules = ("field",)
    STEPS = 20  # steps of Heun's method

    def __init__(self, latent_dim: int = 64, width: int = 320, depth: int = 4, dropout: float = 0.1, lr: float = 2e-3):
        super().__init__()
        self.config = {"latent_dim": latent_dim, "width": width, "depth": depth, "dropout": dropout, "lr": lr}
        self.lr = lr
        self.field = VelocityField(latent_dim, width, depth, dropout)
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        self._bank: tuple[tuple[str, int], Tensor] | None = None  # see `latent_bank`

    def standardise(self, posteriors: Tensor) -> None:
        """Set the mean and the scale of the latents from the posteriors (N, 2 * latent_dim) of the training images."""
        mean, log_var = posteriors.chunk(2, dim=1)
        self.mean.copy_(mean.mean(0))
        self.std.copy_((mean.var(0) + log_var.exp().mean(0)).sqrt())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": torch.optim.AdamW(self.field.parameters(), self.lr, weight_decay=1e-2)}

    def step(self, posteriors: Tensor, update) -> dict[str, Tensor]:
        """One update on posteriors (N, 2 * latent_dim), which are means and log variances.

        Each step draws a new latent from each posterior. `flow` is the mean squared error of the velocity, in
        standardised units.
        """
        loss = self.loss(posteriors)
        update("flow", loss)
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
        between = time[:, None] * latents + (1 - time[:, None]) * noise
        return F.mse_loss(self.field(between, time).float(), latents - noise)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, steps: int | None = None) -> Tensor:
        """Latents (count, latent_dim) on the CPU, the same for the same seed. They are noise moved by the velocity."""
        self.eval()
        noise = torch.randn(count, len(self.mean), generator=torch.Generator().manual_seed(seed))
        parts = noise.to(self.mean.device).split(BATCH)
        return torch.cat([self.transport(part, steps or self.STEPS) for part in parts]).cpu()

    def latent_bank(self, count: int) -> Tensor:
        """Latents (count, latent_dim) on the CPU for the training of GANs, always from the same seed.

        Sampling 10,000 latents takes about ten seconds. So they are kept until the weights change. Other GANs that
        begin with the same VAE get them again.
        """
        key = checkpoints.fingerprint(self), count
        if self._bank is None or self._bank[0] != key:
            self._bank = key, self.sample(count, seed=1)
        return self._bank[1]

    @torch.no_grad()
    def transport(self, noise: Tensor, steps: int) -> Tensor:
        """Noise (N, latent_dim) to latents (N, latent_dim) by Heun's method; close noise gives close latents."""
        points = noise
        for k in range(steps):
            now = torch.full((len(noise),), k / steps, device=noise.device)
            first = self.field(points, now)
            second = self.field(points + first / steps, now + 1 / steps)
            points = points + (first + second) / (2 * steps)
        return points * self.std + self.mean
