"""A U-Net of gated convolutions (Yu et al. 2019), a published network for inpainting: an opponent of the imputer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.heads.imputer import Imputer
from utils.models.heads.networks import Convolution


class GatedConvolution(nn.Module):
    """A 3 x 3 convolution with batch normalisation and ELU: (N, inputs, H, W) to (N, outputs, H, W).

    It is multiplied by a learned gate in (0, 1) for each channel and pixel, so it can learn which pixels to trust.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.conv(x).chunk(2, 1)
        return F.elu(self.norm(values)) * torch.sigmoid(gate)


class GatedImputer(Imputer):
    """The imputer with a gate in each 3 x 3 convolution. The widths give it as many weights as the imputer has."""

    def __init__(self, *arguments, widths: tuple[int, ...] = (28, 46, 66, 100), **settings):
        super().__init__(*arguments, widths=widths, **settings)
        for part in list(self.network.modules()):
            if isinstance(part, nn.Sequential):
                for place, layer in enumerate(part):
                    if isinstance(layer, Convolution):
                        part[place] = GatedConvolution(layer.conv.in_channels, layer.conv.out_channels)
