"""The second-stage prior: a small network that turns normal noise into a VAE's latents.

Flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023): a velocity field is regressed
on straight lines from noise to data, and samples are made by following it. On 64 numbers instead of
1024 pixels this costs seconds, and unlike a mixture of Gaussians it has no components to place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints, devices

DRAWN: dict[tuple, Tensor] = {}  # latents by the network's weights, their number, the seed and the steps
KEPT = 16


class VelocityField(nn.Module):
    """Point (N, latent_dim) and time (N,) in [0, 1] to the velocity there (N, latent_dim).

    A residual perceptron; time enters every block through sine and cosine features.
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
    """A distribution over latents that is trained by the shared loop like any other model.

    Args:
        latent_dim: length of a latent.
        width, depth: of the velocity field.
        dropout: in its blocks; there are only some thousand latents to learn from.
        lr: AdamW's learning rate.
    """

    ema_modules = ("field",)
    STEPS = 20  # of Heun's method

    def __init__(self, latent_dim: int = 64, width: int = 320, depth: int = 4, dropout: float = 0.1, lr: float = 2e-3):
        super().__init__()
        self.config = {"latent_dim": latent_dim, "width": width, "depth": depth, "dropout": dropout, "lr": lr}
        self.lr = lr
        self.field = VelocityField(latent_dim, width, depth, dropout)
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def standardise(self, posteriors: Tensor) -> None:
        """Set the scale of the latents from the posteriors (N, 2 * latent_dim) it will be trained on."""
        mean, log_var = posteriors.chunk(2, dim=1)
        self.mean.copy_(mean.mean(0))
        self.std.copy_((mean.var(0) + log_var.exp().mean(0)).sqrt())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": torch.optim.AdamW(self.field.parameters(), self.lr, weight_decay=1e-2)}

    def step(self, posteriors: Tensor, update) -> dict[str, Tensor]:
        """One update on posteriors (N, 2 * latent_dim): means and log variances, a fresh latent drawn
        from each. `flow` is the mean squared error of the velocity, in standardised units."""
        loss = self.loss(posteriors)
        update("flow", loss)
        return devices.over_processes({"flow": loss})

    def loss(self, posteriors: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The flow-matching loss; with a seeded generator it can be compared between models."""

        def normal() -> Tensor:
            return torch.randn(mean.shape, generator=generator, device=mean.device)

        mean, log_var = posteriors.chunk(2, dim=1)
        latents = (mean + normal() * (log_var / 2).exp() - self.mean) / self.std
        noise = normal()
        time = torch.randn(len(mean), generator=generator, device=mean.device).sigmoid()
        between = time[:, None] * latents + (1 - time[:, None]) * noise
        return F.mse_loss(self.field(between, time).float(), latents - noise)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, steps: int | None = None) -> Tensor:
        """Latents (count, latent_dim), the same for the same seed: noise carried along the field.

        The last draws are kept: a VAE and the GANs that begin from it all ask for the same ones.
        """
        self.eval()
        steps = steps or self.STEPS
        key = (checkpoints.fingerprint(self), count, seed, steps)
        if key not in DRAWN:
            noise = torch.randn(count, len(self.mean), generator=torch.Generator().manual_seed(seed))
            DRAWN[key] = torch.cat([self.transport(n.to(self.mean.device), steps) for n in noise.split(2000)])
            if len(DRAWN) > KEPT:
                del DRAWN[next(iter(DRAWN))]
        return DRAWN[key].to(self.mean.device, copy=True)

    @torch.no_grad()
    def transport(self, noise: Tensor, steps: int) -> Tensor:
        """Noise (N, latent_dim) to latents by Heun's method: a smooth, invertible map."""
        points = noise
        for k in range(steps):
            now = torch.full((len(noise),), k / steps, device=noise.device)
            first = self.field(points, now)
            second = self.field(points + first / steps, now + 1 / steps)
            points = points + (first + second) / (2 * steps)
        return points * self.std + self.mean
