"""Probabilities of grey levels for models with continuous densities: from a Gaussian, or from counted pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = 256  # grey levels
LEVEL = 1 / 127.5  # the distance between two grey levels, for images in [-1, 1]
PRIOR_PIXELS = 50.0  # weight of the prior in each row of a table, as a number of pixels


def bins(images: Tensor, count: int) -> Tensor:
    """The bin of each value, int64 of the same shape. The centres of `count` bins are evenly spaced in [-1, 1]."""
    return ((images.clamp(-1, 1) + 1) / 2 * (count - 1)).round().long()


def gaussian_level_nats(images: Tensor, mean: Tensor, std: float) -> Tensor:
    """Negative log probability of each grey level in [-1, 1] under a Gaussian, in the shape of the images.

    The Gaussian is discretised. Each level gets the probability mass of the interval around it, and the first and the
    last level get the tails.

    Args:
        images: grey levels in [-1, 1].
        mean: the means of the Gaussians, in the shape of the images.
        std: the standard deviation of all Gaussians.
    """
    upper, lower = (images - mean + LEVEL / 2) / std, (images - mean - LEVEL / 2) / std
    upper = torch.where(images > 1 - LEVEL / 2, math.inf, upper)
    lower = torch.where(images < LEVEL / 2 - 1, -math.inf, lower)
    mirrored = lower > 0  # in the upper tail both probabilities are near 1, and their difference would be rounded to 0
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    mass = torch.special.ndtr(upper.double()) - torch.special.ndtr(lower.double())
    return -mass.clamp(min=1e-300).log().to(images.dtype)


def table_nats(table: Tensor, prediction: Tensor, images: Tensor) -> Tensor:
    """Negative log probability of each grey level in [-1, 1], from a table of `count_levels`, in the images' shape."""
    return -table.to(images.device)[bins(prediction, len(table)), bins(images, LEVELS)]


def count_levels(predict: Callable[[Tensor], Tensor], images: Tensor, prior: Tensor) -> Tensor:
    """Log probabilities (rows, 256) of a pixel's grey level, given the bin of its prediction.

    Args:
        predict: maps images to predictions of the same shape. Both are in [-1, 1].
        images: (N, C, H, W). Their pixels are counted.
        prior: (rows, 256), probabilities that matter most for bins with few pixels.
    """
    rows = len(prior)
    counts = torch.zeros(rows * LEVELS)
    for batch in images.split(500):
        places = bins(predict(batch).cpu(), rows) * LEVELS + bins(batch, LEVELS)
        counts += torch.bincount(places.flatten(), minlength=len(counts))
    # One more pixel is spread over all levels, so that no level has probability 0.
    counts = counts.view(rows, LEVELS) + PRIOR_PIXELS * prior + 1 / LEVELS
    return (counts / counts.sum(1, keepdim=True)).log()
