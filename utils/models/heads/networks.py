"""The U-Nets that fill missing stripes: ours, and the plain one that it is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block. It has no normalisation, because that harms restoration (Lim et al. 2017)."""

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        inner = F.dropout2d(F.silu(self.first(F.silu(x))), self.dropout, self.training)
        return x + self.second(inner)


class Attention(nn.Module):
    """Self-attention between all positions of a map, added to its input (Vaswani et al. 2017)."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.inputs, self.output = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # (N, 3, heads, channels, HW)
        query, key, value = parts.transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.output(mixed.transpose(2, 3).reshape(x.shape))


def initialise(module: nn.Module) -> None:
    """Set the initial weights of a convolution so that signals keep their scale (He et al. 2015).

    PyTorch's default weights are smaller. Without normalisation, training would begin more slowly with them. The output
    of a residual block is halved.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
    if isinstance(module, Block):
        with torch.no_grad():
            module.first.weight *= 2**0.5  # the activation loses half of the signal's power
            module.second.weight *= 0.5
    if isinstance(module, Attention):
        nn.init.zeros_(module.output.weight)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015), (N, inputs, H, W) to (N, outputs, H, W); H and W divisible by 8.

    Before training, its output is 0. Blocks of 2 x 2 pixels become channels before the network and pixels after it (Shi
    et al. 2016). This loses no information, and each layer needs only a quarter of the computation.

    Args:
        widths: channels at half size, at a quarter and at an eighth.
        depths: residual blocks on each side of each level.
        attention: whether the level of an eighth has self-attention.
        dropout: rate at which a residual block drops a channel during training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...] = (64, 64, 64),
        depths: tuple[int, ...] = (3, 2, 1),
        attention: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()

        def blocks(level: int) -> list[nn.Module]:
            return [Block(widths[level], dropout) for _ in range(depths[level])]

        steps, last = list(zip(widths, widths[1:])), len(widths) - 1
        self.stem = nn.Conv2d(4 * inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Sequential(*blocks(level)) for level in range(last))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.middle = nn.Sequential(
            *blocks(last), Attention(widths[last]) if attention else nn.Identity(), *blocks(last)
        )  # fmt: skip
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Sequential(*blocks(level)) for level in range(last))
        self.head = nn.Conv2d(widths[0], 4 * outputs, 3, padding=1)
        self.apply(initialise)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, downsample in zip(self.down, self.shrink):
            skips.append(blocks(x))
            x = downsample(skips[-1])
        x = self.middle(x)
        for blocks, upsample, skip in reversed(list(zip(self.up, self.grow, skips))):
            x = blocks(upsample(x) + skip)
        return F.pixel_shuffle(self.head(F.silu(x)), 2)


class PlainConv(nn.Module):
    """A convolution with batch normalisation (Ioffe & Szegedy 2015) and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class PlainUNet(nn.Module):
    """The U-Net of Ronneberger et al. (2015) with fewer channels: (N, inputs, H, W) to (N, outputs, H, W).

    H and W are divisible by 8. Each level has two convolutions on each side.
    """

    WIDTHS = (40, 64, 92, 140)  # with these, it has about as many weights as ours

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        widths = self.WIDTHS

        def pair(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(PlainConv(before, after), PlainConv(after, after))

        steps = list(zip(widths, widths[1:]))
        self.first = pair(inputs, widths[0])
        self.down = nn.ModuleList(pair(fine, coarse) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(pair(2 * fine, fine) for fine, _ in steps)
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x.contiguous(memory_format=torch.channels_last))]
        for layers in self.down:
            maps.append(layers(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for grow, layers in reversed(list(zip(self.grow, self.up))):
            x = layers(torch.cat([grow(x), maps.pop()], 1))
        return self.head(x)


def build_network(kind: str, **settings) -> nn.Module:
    """A network with 3 input maps and 2 output maps.

    Args:
        kind: "ours" or "plain".
        settings: arguments of `UNet`.
    """
    return UNet(3, 2, **settings) if kind == "ours" else PlainUNet(3, 2)
