"""Missing stripes: finding the mask, drawing similar masks, and filling along rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST_IMAGES = 5  # with fewer images, gaps look the same as dark background
STRAY_SHARE = 0.01  # up to this share of the pixels may be 0 in all images by chance, outside the mask
FARTHEST = 8  # with a larger distance from a missing pixel to the nearest known one, a mask is refused
LEAST_MISSING_SHARE = 0.2  # another mask is found only if at least this share of the pixels is 0 in all images


def find_mask(images: np.ndarray) -> np.ndarray:
    """The mask bool (H, W) of images (N, 1, H, W). Missing pixels are true: those that are exactly 0 in all images.

    Raises:
        ValueError: there are fewer than 5 images, no pixel is missing, or no pixel is known.
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
    """The mask bool (H, W) of images (N, 1, H, W), true where pixels are missing.

    If the usual mask (H, W) fits the images, it is returned. Otherwise, the pixels that are 0 in all images are the
    mask, and a line is printed.

    Raises:
        ValueError: no pixel is missing or no pixel is known, in all images or in one of them; the pixels that are 0 may
            be background; or a gap is too large. If one image is the reason, the message says which.
    """
    dark = np.flatnonzero((images == 0).all(axis=(1, 2, 3)))
    if len(dark):
        raise ValueError(f"image {dark[0]} is 0 everywhere ({len(dark)} image(s) in total). Leave it out.")
    zero = (images == 0).all(axis=(0, 1))
    complete = np.flatnonzero((images[:, 0, usual] != 0).any(axis=1))
    if not len(complete) and (len(images) < LEAST_IMAGES or (zero & ~usual).mean() < STRAY_SHARE):
        return usual
    if 0 < len(complete) < len(images):
        raise ValueError(
            f"image {complete[0]} ({len(complete)} image(s) in total) has values where the others have gaps. "
            "Fill images of one mask at a time."
        )
    if zero.mean() < LEAST_MISSING_SHARE or len(images) < LEAST_IMAGES:
        raise ValueError(
            f"no gaps were found: {zero.mean():.0%} of the pixels are 0 in all {len(images)} images, which may be "
            f"background. A mask other than the course's can only be found in at least {LEAST_IMAGES} images, and only "
            f"if at least {LEAST_MISSING_SHARE:.0%} of the pixels are missing."
        )
    if (distance := farthest(zero)) > FARTHEST:
        raise ValueError(
            f"a missing pixel is {distance} pixels away from the nearest known pixel, but at most "
            f"{FARTHEST} are possible: what the network would put there has little to do with the patient."
        )
    print(f"The network was trained for another mask than this one ({zero.mean():.0%} missing): expect worse results.")
    return zero


def farthest(mask: np.ndarray) -> int:
    """The largest distance, in rows or columns, from a missing pixel of a mask bool (H, W) to the nearest known one."""
    from scipy.ndimage import distance_transform_cdt

    return int(distance_transform_cdt(mask, "chessboard").max())


def vary(mask: Tensor, count: int) -> Tensor:
    """Masks bool (count, H, W) with the stripes of `mask` (H, W), moved, mirrored and tilted by other angles.

    They are drawn on the device of `mask`.

    Each row is shifted cyclically. So stripes keep their widths, except a stripe that is cut at the border.
    """
    (height, width), device = mask.shape, mask.device
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    down = torch.randint(height, (count, 1), device=device)
    right = torch.randint(width, (count, 1), device=device).float()
    slope = torch.randn(count, 1, device=device) * 0.15  # columns per row; in the test images it is 0.18
    rows = (row + down) % height
    columns = column[None, None] - (right + slope * row).round().long()[:, :, None]
    masks = mask[rows[:, :, None], columns % width]
    return torch.where(torch.rand(count, 1, 1, device=device) < 0.5, masks.flip(2), masks)


def hide_lines(shape: tuple[int, int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Masks bool (count, H, W) of sparse slanting lines, for a shape (height, width). They are drawn on `device`.

    Lines are 1 to 3 pixels wide, 5 to 12 apart, and up to 45 degrees from the vertical. They hide known pixels of a
    test image, so that a network can learn to predict them.
    """
    height, width = shape

    def uniform() -> Tensor:
        return torch.rand(count, 1, 1, device=device)

    period = 5 + 7 * uniform()
    wide = torch.randint(1, 4, (count, 1, 1), device=device)
    slope, start = uniform() * 2 - 1, uniform() * period
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    across = column + slope * row + start
    return across % period < wide


def other_masks(shape: tuple[int, int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Masks bool (count, H, W) of three kinds, drawn on `device`: stripes of any angle, random pixels, and squares.

    They hide 20 to 70 % of the pixels. A network that has learned from them can fill gaps of many shapes.
    """
    (height, width), each = shape, (count, 1, 1)
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(each, device=device)

    share, angle, period = uniform(0.2, 0.7), uniform(0, torch.pi), uniform(3, 8)
    stripes = (column * angle.cos() + row * angle.sin() + period * uniform(0, 1)) % period < share * period
    pixels = torch.rand(count, height, width, device=device) < share
    side = share.sqrt() * period  # one square in each field of period x period pixels
    squares = ((column + uniform(0, 8)) % period < side) & ((row + uniform(0, 8)) % period < side)
    kind = torch.randint(4, each, device=device)
    return torch.where(kind < 2, stripes, torch.where(kind == 2, pixels, squares))


def fill_rows(visible: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by linear interpolation along each row. Near the border, the nearest known pixel is repeated.

    Args:
        visible: (N, 1, H, W), with any values at unknown pixels.
        known: bool (N, 1, H, W), true at known pixels. A row without known pixels becomes 0.
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
