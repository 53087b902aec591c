"""Missing stripes: finding the mask, drawing others like it, and filling along rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST_IMAGES = 5  # in fewer images, gaps cannot be told from dark background
STRAY_SHARE = 0.01  # of the pixels outside the mask; this many may be 0 in all images by chance
LEAST_MISSING_SHARE = 0.2  # of the pixels; what is 0 in all images is taken for another mask if it is at least this


def find_mask(images: np.ndarray) -> np.ndarray:
    """Where pixels are missing, bool (H, W): exactly 0 in every one of the images (N, 1, H, W).

    Raises:
        ValueError: fewer than 5 images, or nothing is missing, or nothing is known.
    """
    if len(images) < LEAST_IMAGES:
        raise ValueError(
            f"{len(images)} images are too few to find the mask: their dark background is 0 too. "
            f"At least {LEAST_IMAGES} are needed."
        )
    mask = (images == 0).all(axis=(0, 1))
    if not mask.any():
        raise ValueError("no pixel is missing: a missing pixel is 0 in all images, and here none is.")
    if mask.all():
        raise ValueError("no pixel is known: all images are 0 everywhere.")
    return mask


def mask_of(images: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Where pixels are missing, bool (H, W), in images (N, 1, H, W).

    This is the usual mask (H, W) where it fits. Else it is what is 0 in all images, and a line is printed.

    Raises:
        ValueError: nothing is missing or nothing is known in the file or in one of its images; or what is 0 may be
            background. Says in which image.
    """
    dark = np.flatnonzero((images == 0).all(axis=(1, 2, 3)))
    if len(dark):
        raise ValueError(f"nothing is known in image {dark[0]} ({len(dark)} such): 0 everywhere. Leave it out.")
    zero = (images == 0).all(axis=(0, 1))
    complete = np.flatnonzero((images[:, 0, usual] != 0).any(axis=1))
    if not len(complete) and (len(images) < LEAST_IMAGES or (zero & ~usual).mean() < STRAY_SHARE):
        return usual
    if 0 < len(complete) < len(images):
        raise ValueError(
            f"image {complete[0]} ({len(complete)} such) has values where the others have gaps. "
            "Fill images of one mask at a time."
        )
    if zero.mean() < LEAST_MISSING_SHARE or len(images) < LEAST_IMAGES:
        raise ValueError(
            f"no gaps were found: {zero.mean():.0%} of the pixels are 0 in all {len(images)} images, which may be "
            f"background. A mask that is not the course's can be found in at least {LEAST_IMAGES} images, and if at "
            f"least {LEAST_MISSING_SHARE:.0%} of the pixels are missing."
        )
    print(f"The network was trained for another mask than this one ({zero.mean():.0%} missing): expect a worse answer.")
    return zero


def vary(mask: Tensor, count: int) -> Tensor:
    """Masks bool (count, H, W) with the stripes of `mask` (H, W), moved, mirrored and tilted by other angles.

    Rows are rolled, so stripes keep their widths, except a stripe that is cut at the border.
    """
    height, width = mask.shape
    down = torch.randint(height, (count, 1))
    right = torch.randint(width, (count, 1)).float()
    slope = torch.randn(count, 1) * 0.15  # columns a row; the test images' own tilt is 0.18
    rows = (torch.arange(height) + down) % height
    columns = torch.arange(width)[None, None] - (right + slope * torch.arange(height)).round().long()[:, :, None]
    masks = mask[rows[:, :, None], columns % width]
    return torch.where(torch.rand(count, 1, 1) < 0.5, masks.flip(2), masks)


def hide_lines(shape: tuple[int, int], count: int) -> Tensor:
    """Masks bool (count, H, W) of sparse slanting lines, for a shape (height, width).

    Lines are 1 to 3 pixels wide, 5 to 12 apart, and up to 45 degrees from the vertical. They hide known pixels of a
    test image, which a network can then be asked for.
    """
    height, width = shape
    period = 5 + 7 * torch.rand(count, 1, 1)
    wide = torch.randint(1, 4, (count, 1, 1))
    slope, start = torch.rand(count, 1, 1) * 2 - 1, torch.rand(count, 1, 1) * period
    across = torch.arange(width)[None, None] + slope * torch.arange(height)[None, :, None] + start
    return across % period < wide


def fill_rows(visible: Tensor, known: Tensor) -> Tensor:
    """Linear interpolation along each row. Beyond the outermost known pixels, these are repeated.

    Args:
        visible: (N, 1, H, W), any values where nothing is known.
        known: bool, the same shape. A row with nothing known becomes 0.
    """
    width = visible.shape[3]
    place = torch.arange(width, device=visible.device).expand_as(visible)
    left = torch.where(known, place, -1).cummax(3).values
    right = torch.where(known, place, width).flip(3).cummin(3).values.flip(3)
    first, last = left.clamp(min=0), right.clamp(max=width - 1)
    first, last = torch.where(left < 0, last, first), torch.where(right == width, first, last)
    weight = (place - first) / (last - first).clamp(min=1)
    filled = visible.gather(3, first) * (1 - weight) + visible.gather(3, last) * weight
    return torch.where(known, visible, torch.where(known.any(3, keepdim=True), filled, torch.zeros_like(filled)))
