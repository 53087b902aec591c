"""The U-Net of the diffusion model (Ronneberger et al. 2015; Ho et al. 2020).

Structure and names are those of `UNet2DModel` in the library `diffusers`, so weights of that class can be loaded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 12  # groups of the group normalisation
HEAD = 24  # channels of one attention head


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018)."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-5)


def level_features(levels: Tensor, count: int) -> Tensor:
    """Cosines and sines (N, count) of noise levels (N,), at geometrically spaced frequencies (Vaswani et al. 2017)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(count // 2, device=levels.device) / (count // 2))
    angles = levels.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class LevelEmbedding(nn.Module):
    """Two linear layers from the features of a noise level to a vector that all residual blocks get."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class ResidualBlock(nn.Module):
    """Two convolutions, with the noise level between them, added to the input: (N, inputs, H, W) to (N, outputs, H, W).

    Args:
        embedding: length of the vector that stands for the noise level.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(F.silu(level))[:, :, None, None]
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return hidden + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    """Self-attention over the places of a map (N, channels, H, W), added to the map.

    It is computed in float32: in bfloat16, its backward pass took eight times as long on a CPU.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.group_norm = norm(channels)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            places = self.group_norm(x.float()).flatten(2).transpose(1, 2)
            parts = [
                layer(places).unflatten(2, (-1, HEAD)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
            ]
            attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
            return x + self.to_out[0](attended).transpose(1, 2).view_as(x)


class Resample(nn.Module):
    """A convolution that halves the sides of a map, or that follows the doubling of the sides.

    Args:
        factor: 0.5 or 2.
    """

    def __init__(self, channels: int, factor: float):
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if factor < 1 else 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.factor > 1 else x)


class Stage(nn.Module):
    """Residual blocks at one resolution, each followed by attention if wanted, and then perhaps a change of the size.

    Args:
        inputs: input channels of each residual block. All blocks have the same number of output channels.
        resample: the name and the factor of the `Resample` at the end, if any.
    """

    def __init__(
        self, inputs: list[int], outputs: int, embedding: int, dropout: float, attention: int = 0, **resample: float
    ):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(count, outputs, embedding, dropout) for count in inputs)
        if attention:
            self.attentions = nn.ModuleList(Attention(outputs) for _ in range(attention))
        for name, factor in resample.items():
            setattr(self, name, nn.ModuleList([Resample(outputs, factor)]))

    def block(self, k: int, x: Tensor, level: Tensor) -> Tensor:
        """Residual block k with its attention."""
        x = self.resnets[k](x, level)
        return self.attentions[k](x) if k < len(getattr(self, "attentions", ())) else x


class UNet(nn.Module):
    """Maps noisy images (N, channels, H, W) and their noise levels (N,) to maps (N, outputs, H, W).

    Args:
        widths: channels at each resolution, multiples of 24; the smallest maps have self-attention.
        layers: residual blocks at each resolution on the way down; on the way up there is one more.
    """

    def __init__(self, channels: int, outputs: int, widths: tuple[int, ...], layers: int, dropout: float):
        super().__init__()
        self.width, embedding, last = widths[0], 4 * widths[0], len(widths) - 1
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time_embedding = LevelEmbedding(widths[0], embedding)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        shared, before, skips = (embedding, dropout), widths[0], [widths[0]]
        for i, width in enumerate(widths):
            end = {"downsamplers": 0.5} if i < last else {}
            inputs = [before] + [width] * (layers - 1)
            self.down_blocks.append(Stage(inputs, width, *shared, attention=layers * (i == last), **end))
            skips += [width] * (layers + (i < last))
            before = width
        self.mid_block = Stage([before, before], before, *shared, attention=1)
        for i, width in reversed(list(enumerate(widths))):
            end = {"upsamplers": 2.0} if i else {}
            inputs = [(before if k == 0 else width) + skips.pop() for k in range(layers + 1)]
            self.up_blocks.append(Stage(inputs, width, *shared, attention=(layers + 1) * (i == last), **end))
            before = width
        self.conv_norm_out = norm(before)
        self.conv_out = nn.Conv2d(before, outputs, 3, padding=1)

    def forward(self, noisy: Tensor, levels: Tensor) -> Tensor:
        level = self.time_embedding(level_features(levels, self.width))
        x = self.conv_in(noisy.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for stage in self.down_blocks:
            for k in range(len(stage.resnets)):
                x = stage.block(k, x, level)
                skips.append(x)
            if hasattr(stage, "downsamplers"):
                x = stage.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[1](self.mid_block.block(0, x, level), level)
        for stage in self.up_blocks:
            for k in range(len(stage.resnets)):
                x = stage.block(k, torch.cat([x, skips.pop()], 1), level)
            if hasattr(stage, "upsamplers"):
                x = stage.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
