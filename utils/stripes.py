"""Missing stripes: finding the mask, making others like it, and filling gaps the classical way."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import griddata
from skimage.restoration import inpaint_biharmonic
from torch import Tensor


def find_mask(images: np.ndarray) -> np.ndarray:
    """Where pixels are missing, bool (H, W): exactly 0 in every one of the images (N, 1, H, W).

    One image is not enough to tell: its background holds zeros as well.

    Raises:
        ValueError: nothing is missing, or nothing is known.
    """
    mask = (images == 0).all(axis=(0, 1))
    if not mask.any():
        raise ValueError(
            "no pixel is missing: a missing pixel is 0 in all images, and here none is. There is nothing to fill."
        )
    if mask.all():
        raise ValueError("no pixel is known: all images are 0 everywhere.")
    return mask


def vary(mask: Tensor, count: int) -> Tensor:
    """Masks bool (count, H, W) of the same stripes (H, W), moved, mirrored and tilted by other angles.

    Rows are rolled, so stripes keep their widths; a column may lose or gain a neighbour where it wraps.
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
    """Masks bool (count, H, W) of sparse slanting lines: 1 to 3 pixels wide, 5 to 12 apart, up to 45 degrees
    from the vertical. What they cover of a test image's known pixels, a network can be asked for."""
    height, width = shape
    period = 5 + 7 * torch.rand(count, 1, 1)
    wide = torch.randint(1, 4, (count, 1, 1))
    slope, start = torch.rand(count, 1, 1) * 2 - 1, torch.rand(count, 1, 1) * period
    across = torch.arange(width)[None, None] + slope * torch.arange(height)[None, :, None] + start
    return across % period < wide


def fill_rows(visible: Tensor, known: Tensor) -> Tensor:
    """Linear interpolation along each row; beyond the outermost known pixels, they are repeated.

    Args:
        visible: (N, 1, H, W), whatever at unknown places.
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


def fill_cubic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Piecewise cubic interpolation between scattered known pixels (SciPy's Clough-Tocher triangles); where that
    is undefined, outside their hull, the nearest one. Images float (N, 1, H, W), known bool (N, 1, H, W)."""
    filled = images.copy()
    for image, is_known in zip(filled[:, 0], known[:, 0]):
        have, want = np.argwhere(is_known), np.argwhere(~is_known)
        values = griddata(have, image[is_known], want, method="cubic")
        nearest = griddata(have, image[is_known], want, method="nearest")
        image[~is_known] = np.where(np.isnan(values), nearest, values).clip(0, 1)
    return filled


def fill_biharmonic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """scikit-image's biharmonic inpainting (Damelin & Hoang 2018); arguments as of `fill_cubic`."""
    filled = [inpaint_biharmonic(image, ~is_known) for image, is_known in zip(images[:, 0], known[:, 0])]
    return np.where(known, images, np.stack(filled)[:, None].clip(0, 1)).astype(images.dtype)
