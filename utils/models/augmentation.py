"""What a discriminator sees: images that are moved or get another brightness, and images as JPEG files."""

from __future__ import annotations

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def augment(images: Tensor, probability: float = 0.3) -> Tensor:
    """Move, turn and scale images (N, C, H, W), and change brightness and contrast (Karras et al. 2020).

    Each image gets the change of geometry with this probability, and independently the change of brightness. The rest
    stays as it is. So the generator cannot learn that changed images are the right ones. Images are not mirrored,
    because all hands are left hands. Differentiable once.
    """
    count, device = len(images), images.device

    def draw(width: float) -> Tensor:
        """Random numbers (N,) in [-width, width]; zero for the images that are not changed."""
        return (2 * torch.rand(count, device=device) - 1) * width * changed

    changed = (torch.rand(count, device=device) < probability).float()
    angle, scale = draw(math.pi / 12), 1 + draw(0.15)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    maps = torch.stack([cos, -sin, draw(0.25), sin, cos, draw(0.25)], 1).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = torch.where(changed[:, None, None, None] > 0, moved, images)

    changed = (torch.rand(count, device=device) < probability).float()
    brightness, contrast = draw(0.2)[:, None, None, None], 1 + draw(0.2)[:, None, None, None]
    return images * contrast + brightness


def augment_pairs(real: Tensor, fake: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """`augment` with the same random changes for both images of each pair; both are (N, C, H, W)."""
    return augment(torch.cat([real, fake], 1), probability).chunk(2, dim=1)


def jpeg_table(quality: int) -> Tensor:
    """Quantisation steps (8, 8) of grey JPEGs that Pillow writes with this quality, one step for each frequency."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
    return torch.tensor(Image.open(buffer).quantization[0], dtype=torch.float32).view(8, 8)


def as_jpeg(images: Tensor, table: Tensor, transform: Tensor) -> Tensor:
    """Change grey images (N, 1, H, W) in [-1, 1] as if they were saved as JPEGs and read again; differentiable.

    JPEG rounds the cosine coefficients of each block of 8 x 8 pixels (ITU T.81, 1992). Rounding has no useful gradient.
    So the gradient of the identity function is used, as a straight-through estimator (Bengio et al. 2013).

    Args:
        table: quantisation steps (8, 8) from `jpeg_table`.
        transform: `cosine_matrix(8)`. Both are on the device of the images.
    """
    height, width = images.shape[2:]
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # bfloat16 is not exact enough
        grey = images.float().clamp(-1, 1) * 127.5 - 0.5  # JPEG's zero is grey level 128
        grey = F.pad(grey, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = grey.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, rows, columns, 8, 8)
        coefficients = ((transform @ blocks @ transform.T) / table).round() * table
        blocks = (transform.T @ coefficients @ transform).round()
        saved = blocks.permute(0, 1, 2, 4, 3, 5).reshape(grey.shape)[:, :, :height, :width]
        saved = ((saved + 0.5) / 127.5).clamp(-1, 1)
    return images + (saved - images).detach()
