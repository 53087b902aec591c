"""Probabilities of whole grey levels, for models whose densities are continuous: by a Gaussian, or by counting."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = 256  # grey levels
LEVEL = 1 / 127.5  # the distance of two grey levels where images are in [-1, 1]
PRIOR_PIXELS = 50.0  # pixels that the prior of each row of a table counts for


def bins(images: Tensor, count: int) -> Tensor:
    """The number of the bin of each value, int64 of the same shape; `count` bins of equal width cover [-1, 1]."""
    return ((images.clamp(-1, 1) + 1) / 2 * (count - 1)).round().long()


def gaussian_level_nats(images: Tensor, mean: Tensor, std: float) -> Tensor:
    """Negative log probability of each grey level in [-1, 1] under a Gaussian around `mean`, of the images' shape.

    The Gaussian is discretised: a level gets the mass around it, and the outermost levels get the tails.
    """
    upper, lower = (images - mean + LEVEL / 2) / std, (images - mean - LEVEL / 2) / std
    upper = torch.where(images > 1 - LEVEL / 2, math.inf, upper)
    lower = torch.where(images < LEVEL / 2 - 1, -math.inf, lower)
    mirrored = lower > 0  # in the upper tail, both values are near 1 and their difference is rounded to 0
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    mass = torch.special.ndtr(upper.double()) - torch.special.ndtr(lower.double())
    return -mass.clamp(min=1e-300).log().to(images.dtype)


def table_nats(table: Tensor, prediction: Tensor, images: Tensor) -> Tensor:
    """Negative log probability of each grey level in [-1, 1] by a table of `count_levels`, of the images' shape."""
    return -table.to(images.device)[bins(prediction, len(table)), bins(images, LEVELS)]


def count_levels(predict: Callable[[Tensor], Tensor], images: Tensor, prior: Tensor) -> Tensor:
    """Log probabilities (rows, 256) of a pixel's grey level, given the bin that its prediction is in.

    Args:
        predict: maps images to predictions of the same shape, both in [-1, 1].
        images: (N, C, H, W), what is counted.
        prior: (rows, 256), probabilities for bins that hold few pixels.
    """
    rows = len(prior)
    counts = torch.zeros(rows * LEVELS)
    for batch in images.split(500):
        places = bins(predict(batch).cpu(), rows) * LEVELS + bins(batch, LEVELS)
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    # one more pixel, spread over all levels, so that none is impossible
    counts = counts.view(rows, LEVELS) + PRIOR_PIXELS * prior + 1 / LEVELS
    return (counts / counts.sum(1, keepdim=True)).log()
