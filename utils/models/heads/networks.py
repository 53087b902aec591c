"""The U-Net that fills missing stripes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Module):
    """A 3 x 3 convolution with batch normalisation (Ioffe & Szegedy 2015) and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015): (N, inputs, H, W) to (N, outputs, H, W), with H and W divisible by 8.

    Each level has two convolutions on each side. Before training, the output is 0.

    Args:
        widths: number of channels of each of the four levels, from the finest one on.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]):
        super().__init__()

        def pair(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(Convolution(before, after), Convolution(after, after))

        steps = list(zip(widths, widths[1:]))
        self.first = pair(inputs, widths[0])
        self.down = nn.ModuleList(pair(fine, coarse) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(pair(2 * fine, fine) for fine, _ in steps)
        self.head = nn.Conv2d(widths[0], outputs, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x.contiguous(memory_format=torch.channels_last))]
        for layers in self.down:
            maps.append(layers(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for grow, layers in reversed(list(zip(self.grow, self.up))):
            x = layers(torch.cat([grow(x), maps.pop()], 1))
        return self.head(x)
