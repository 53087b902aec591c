"""Random changes of head slices: another place, shape or tone, so that a network learns from more than there are."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(images: Tensor) -> Tensor:
    """Rotate, scale, squeeze, move and bend each of the images (N, C, H, W) in [0, 1] a little, at random.

    Everything is drawn and computed on the images' device. The bending is a smooth random field of displacements, with
    a standard deviation of about one pixel (Simard et al. 2003).
    """
    count, device = len(images), images.device
    angle, scale, squeeze, right, down = torch.randn(5, count, device=device)
    angle, scale, squeeze = 0.05 * angle, (0.03 * scale).exp(), (0.02 * squeeze).exp()
    across = torch.stack([scale * squeeze * angle.cos(), -scale * angle.sin(), 0.03 * right], 1)
    along = torch.stack([scale * angle.sin(), scale / squeeze * angle.cos(), 0.03 * down], 1)
    with torch.autocast(device.type, enabled=False):  # bfloat16 would move pixels by up to a sixteenth of a pixel
        grid = F.affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
    coarse = 0.04 * torch.randn(count, 2, 6, 6, device=device)
    bend = F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True)
    moved = F.grid_sample(images, grid + bend.permute(0, 2, 3, 1), "bicubic", "border", align_corners=False)
    return moved.clamp(0, 1)


def shift(images: Tensor, known: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Move each of the images (N, 1, H, W) and its mask by whole pixels, at random, by up to `most` in each direction.

    Args:
        known: bool (N, 1, H, W), true at known pixels.

    Returns:
        The moved images and masks. What comes in from outside is 0 and not known.
    """
    (count, _, height, width), device = images.shape, images.device
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    row = row - torch.randint(-most, most + 1, (count, 1), device=device)
    column = column - torch.randint(-most, most + 1, (count, 1), device=device)
    inside = ((row >= 0) & (row < height))[:, None, :, None] & ((column >= 0) & (column < width))[:, None, None, :]
    place = (row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None, :]).flatten(1)[:, None]
    moved, still_known = (x.flatten(2).gather(2, place).view(x.shape) for x in (images, known))
    return moved * inside, still_known & inside


def augment(images: Tensor, copies: int, seed: int = 0) -> Tensor:
    """Add copies to images (N, 1, H, W) in [0, 1]. Each copy is changed by `warp`.

    Args:
        copies: number of changed copies of each image.

    Returns:
        The images, followed by the copies: (N * (copies + 1), 1, H, W).
    """
    if not len(images) * copies:
        return images
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.cat([images, warp(images.repeat(copies, 1, 1, 1))])


def match_levels(images: Tensor, levels: Tensor) -> Tensor:
    """Change the grey levels of images so that each has the histogram of another image, drawn at random.

    Args:
        images: (N, 1, H, W) in [0, 1].
        levels: (M, 256), the other images' grey levels in increasing order.
    """
    grey = (255 * images).round().long().flatten(1)
    counts = torch.zeros(len(images), 256, device=images.device).scatter_add_(1, grey, torch.ones_like(grey).float())
    ranks = (counts.cumsum(1) - counts / 2) / grey.shape[1]  # of each grey level, in [0, 1]
    place = (256 * ranks - 0.5).clamp(0, 255)
    low = place.long().clamp(max=254)
    chosen = levels[torch.randint(len(levels), (len(images),), device=images.device)]
    table = torch.lerp(chosen.gather(1, low), chosen.gather(1, low + 1), place - low)
    return table.gather(1, grey).view_as(images)


def augment_intensity(images: Tensor, known: Tensor, strength: float) -> Tensor:
    """Change images (N, 1, H, W) in [0, 1] randomly, as if they came from another scanner.

    The changes are contrast, coil sensitivity, a darker lower right corner, and sharpness.

    Args:
        known: bool (N, 1, H, W); unknown pixels stay as they are and do not change their neighbours.
        strength: factor on all changes but the sharpness.
    """
    count, _, height, width = images.shape
    device = images.device

    def normal(*shape: int) -> Tensor:
        return strength * torch.randn(*shape, count, 1, 1, 1, device=device)

    def uniform() -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device)

    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)
    changed = images.clamp(0, 1) ** (0.3 * normal()).exp()
    phase = 2 * torch.pi * uniform()
    changed = changed + 0.05 * normal() * (torch.sin(2 * torch.pi * changed + phase) - torch.sin(phase))
    down, right, both = 0.3 * normal(3)
    coil = (down * y + right * x + both * x * y).exp().clamp(max=1.6)
    corner = strength * uniform() * torch.sigmoid(5 * (x + y - 1 + 0.3 * normal()))
    changed = changed * coil * (1 - corner).clamp(min=0)
    mean = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
    soft = mean(changed * known) / mean(known.to(changed.dtype)).clamp(min=1 / 9)
    changed = changed + (0.8 * uniform() - 0.2) * (soft - changed)
    return torch.where(known, changed.clamp(0, 1), images)


def grey_levels(images: Tensor, known: Tensor) -> Tensor:
    """Grey levels (N, 256) of the known pixels of images (N, 1, H, W), in increasing order: their quantiles.

    Args:
        known: bool (H, W).
    """
    shares = (torch.arange(256) + 0.5) / 256
    return torch.quantile(images[:, 0, known], shares, dim=1).T.contiguous()
