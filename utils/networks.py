"""The convolutional building blocks that the models share, for any image size divisible by 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def halvings(size: tuple[int, int]) -> int:
    """How often an image (height, width) is halved on its way to a map of 4 to 7 pixels a side.

    Raises:
        ValueError: a side is not divisible by 4.
    """
    if size[0] % 4 or size[1] % 4:
        raise ValueError(f"image sides must be divisible by 4, not {size[0]}x{size[1]}")
    height, width, count = *size, 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) > 7:
        height, width, count = height // 2, width // 2, count + 1
    return count


class Noise(nn.Module):
    """Adds noise of a learned strength to each channel, zero at first (Karras et al. 2019).

    It carries the detail that no latent has room for; in eval mode too, or the texture would vanish.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same; one noise map per image."""
        noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return x + self.strength.to(x.dtype) * noise


class Upsampler(nn.Module):
    """Latent (N, latent_dim) to image (N, channels, H, W), unbounded; about [-1, 1] once trained.

    A linear layer to a small map, then transposed convolutions that double it (Radford et al. 2016).

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: of the image.
        latent_dim: length of a latent.
        base: channels of the last, largest hidden map; doubled at each smaller one.
        noise: inject noise after each transposed convolution.
    """

    def __init__(self, size: tuple[int, int], channels: int, latent_dim: int, base: int, noise: bool = False):
        super().__init__()
        levels = halvings(size)
        widest = base * 2**levels
        self.first = (widest, size[0] >> levels, size[1] >> levels)
        self.linear = nn.Sequential(nn.Linear(latent_dim, widest * self.first[1] * self.first[2]), nn.SiLU())
        layers: list[nn.Module] = []
        for level in reversed(range(levels)):
            inputs, outputs = base * 2 ** (level + 1), base * 2**level
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            if noise:
                layers.append(Noise(outputs))
            layers += [nn.BatchNorm2d(outputs), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(base, channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(self.linear(latents).view(-1, *self.first))

    def copy_from(self, other: Upsampler) -> None:
        """Take the weights of an equal network; noise, where only this one has it, stays silent."""
        self.linear.load_state_dict(other.linear.state_dict())
        own = [layer for layer in self.layers if not isinstance(layer, Noise)]
        for mine, theirs in zip(own, [layer for layer in other.layers if not isinstance(layer, Noise)]):
            mine.load_state_dict(theirs.state_dict())
