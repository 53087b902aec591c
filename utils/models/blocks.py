"""Convolutional building blocks that several models use, for any image whose sides are divisible by 4."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The two filters of `HighPass`, not yet scaled
LAPLACIAN = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
KV = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]


def num_downsamplings(size: tuple[int, int]) -> int:
    """How many times an image (height, width) can be halved, until a side has fewer than 8 pixels or is odd.

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
    """Adds noise to each channel, with a learned strength that begins at zero (Karras et al. 2019).

    The noise gives fine detail that does not fit into a latent. It is also added in eval mode. Without it, the texture
    would be missing. In eval mode, it is drawn on the CPU, so that a seed gives the same images on every device.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to a map of the same shape; each image has its own noise."""
        device = x.device if self.training else "cpu"
        noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=device, dtype=x.dtype)
        return x + self.strength.to(x.dtype) * noise.to(x.device)


class Upsampler(nn.Module):
    """Maps latents (N, latent_dim) to images (N, channels, H, W).

    A linear layer makes a small map, and transposed convolutions double its size (Radford et al. 2016). The values of
    the images are not bounded. After training, they are about in [-1, 1].

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: number of channels of an image.
        latent_dim: length of a latent.
        base: channels of the largest hidden map; each smaller map has twice as many.
        noise: add noise after each transposed convolution.
    """

    def __init__(self, size: tuple[int, int], channels: int, latent_dim: int, base: int, noise: bool = False):
        super().__init__()
        levels = num_downsamplings(size)
        widest = base * 2**levels
        self.map_shape = (widest, size[0] >> levels, size[1] >> levels)
        self.linear = nn.Sequential(nn.Linear(latent_dim, widest * self.map_shape[1] * self.map_shape[2]), nn.SiLU())
        layers: list[nn.Module] = []
        for level in reversed(range(levels)):
            inputs, outputs = base * 2 ** (level + 1), base * 2**level
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            if noise:
                layers.append(Noise(outputs))
            layers += [nn.BatchNorm2d(outputs), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(base, channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(self.linear(latents).view(-1, *self.map_shape))

    def copy_from(self, other: Upsampler) -> None:
        """Copy the weights of a network of the same shape. Noise layers that only this network has do not change."""
        self.linear.load_state_dict(other.linear.state_dict())
        own = [layer for layer in self.layers if not isinstance(layer, Noise)]
        for mine, theirs in zip(own, [layer for layer in other.layers if not isinstance(layer, Noise)]):
            mine.load_state_dict(theirs.state_dict())


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018) with 8 groups; with fewer if the channels cannot be shared equally."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class PreActivation(nn.Module):
    """A residual block: normalisation, activation and convolution, twice (He et al. 2016b).

    Maps (N, inputs, H, W) to (N, outputs, H, W). The last convolution begins at zero, so at first the block does
    nothing. This makes deep networks easy to train (Zhang et al. 2019).

    Args:
        dropout: dropout rate before the second convolution.
        noise: add `Noise` after the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, noise: bool = False):
        super().__init__()
        self.first = nn.Sequential(group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.noise = Noise(outputs) if noise else nn.Identity()
        self.second = nn.Sequential(
            group_norm(outputs), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.second[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.noise(self.first(x)))


class SelfAttention(nn.Module):
    """Each position of a map (N, C, H, W) looks at all positions (Vaswani et al. 2017); C is divisible by 4."""

    HEADS = 4

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.outputs = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.outputs.weight)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.HEADS, -1)).transpose(-1, -2)
        query, key, value = (part.contiguous() for part in parts.unbind(1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.outputs(mixed.transpose(-1, -2).reshape(x.shape))


class Decoder(nn.Module):
    """Maps latents (N, latent_channels, H / 4, W / 4) to images (N, outputs, H, W).

    The residual blocks at a quarter of the size have self-attention, so that the parts of an image fit together. The
    values of the images are not bounded. After training, they are about in [-1, 1].

    Args:
        base: channels at full size; twice as many at half size, four times as many at a quarter.
        dropout: dropout rate in the residual blocks.
        noise: add noise in each block above the smallest size.
    """

    def __init__(self, latent_channels: int, outputs: int, base: int, dropout: float = 0.0, noise: bool = False):
        super().__init__()
        half, quarter = 2 * base, 4 * base
        self.layers = nn.Sequential(
            nn.Conv2d(latent_channels, quarter, 3, padding=1),
            PreActivation(quarter, quarter, dropout), SelfAttention(quarter), PreActivation(quarter, quarter, dropout),
            nn.Upsample(scale_factor=2), nn.Conv2d(quarter, half, 3, padding=1),
            PreActivation(half, half, dropout, noise), PreActivation(half, half, dropout, noise),
            nn.Upsample(scale_factor=2), nn.Conv2d(half, base, 3, padding=1),
            PreActivation(base, base, dropout, noise), PreActivation(base, base, dropout, noise),
            group_norm(base), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Conv2d(base, outputs, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.layers(latents)
        with torch.autocast(hidden.device.type, enabled=False):  # in bfloat16, bright pixels are rounded to grey levels
            return self.head(hidden.float())


class HighPass(nn.Module):
    """Two fixed high-pass filters from steganalysis for each channel (Fridrich & Kodovsky 2012).

    Maps images (N, C, H, W) to filtered images (N, 2 C, H, W).
    """

    def __init__(self, channels: int):
        super().__init__()
        small = F.pad(torch.tensor(LAPLACIAN, dtype=torch.float32), (1, 1, 1, 1)) / 4
        filters = torch.stack([small, torch.tensor(KV) / 12])[:, None]
        self.register_buffer("filters", filters.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(padded, self.filters.to(images.dtype), groups=images.shape[1])


class Residual(nn.Module):
    """A residual block: two 3 x 3 convolutions whose output is added to their input (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.body(x))


class TextureClassifier(nn.Module):
    """Maps images (N, channels, H, W) in [-1, 1] to logits (N, outputs). The sides have at least 16 pixels.

    This small residual network separates real from generated images. Its inputs are the pixels and their high-pass
    residuals. Each of the last maps is pooled to its mean and its standard deviation. The reason: generated images
    differ from real ones mostly in fine texture. Statistics describe texture well, and its position does not matter.

    Args:
        channels: number of channels of an image.
        outputs: number of logits.
        base: channels at full size; twice as many at half size, four times as many at a quarter.
        high_pass: whether the network gets the high-pass residuals too.
        dropout: dropout rate before the last layer.
    """

    def __init__(self, channels: int, outputs: int, base: int, high_pass: bool = True, dropout: float = 0.0):
        super().__init__()
        self.high_pass = HighPass(channels) if high_pass else None
        inputs = 3 * channels if high_pass else channels
        self.stem = nn.Sequential(nn.Conv2d(inputs, base, 3, padding=1, bias=False), nn.BatchNorm2d(base), nn.ReLU())
        self.stages = nn.Sequential(
            Residual(base, base), nn.MaxPool2d(2),
            Residual(base, 2 * base), nn.MaxPool2d(2),
            Residual(2 * base, 4 * base),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8 * base, outputs))

    def forward(self, images: Tensor) -> Tensor:
        inputs = torch.cat([images, self.high_pass(images)], 1) if self.high_pass is not None else images
        maps = self.stages(self.stem(inputs.contiguous(memory_format=torch.channels_last))).float()
        return self.head(torch.cat([maps.mean((2, 3)), maps.flatten(2).std(2)], 1))
