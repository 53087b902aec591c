"""Fills missing stripes: a U-Net that corrects an interpolation, and predicts the variance of each pixel.

Known pixels are never changed. The network gets a row-wise interpolation, the known pixels and their mask. It predicts
a correction of the interpolation and the logarithm of the variance (Nix & Weigend 1994).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from utils.data import masks
from utils.data.head_images import SIZE
from utils.data.masks import mask_of
from utils.models.heads import augmentation
from utils.models.heads.networks import UNet
from utils.training import checkpoints

NLL_WEIGHT = 0.01  # small, so that the variance hardly changes the layers that it shares with the mean
LOWEST_LOG_VARIANCE = -math.log(12 * 255**2)  # of rounding to a grey level; without a bound, a training became NaN
INITIAL_LOG_VARIANCE = -5.0  # before training; a standard deviation of 0.08
OWN_MASK = 0.6  # share of the complete images that get the test images' mask; the others get a variant or another kind
OTHER_MASKS = 0.25  # share of those others whose mask is of another kind
WARPED, MATCHED = 0.8, 0.5  # shares of the complete images that are deformed, and whose grey levels are matched
TONE = 0.3  # strength of `augmentation.augment_intensity`
SHARPNESS = 0.2  # the smallest tried value with which validation heads have 95 % of the truth's energy, see `sharpen`


class Imputer(nn.Module):
    """The network with its loss, its augmentation and its optimiser, for `loop.fit`.

    Args:
        mask: bool (H, W), true where pixels are missing; `from_weights` reads it from the file.
        levels: (M, 256), grey levels of M images in increasing order, as `augmentation.grey_levels` returns them. They
            are used in training only.
        widths: see `networks.UNet`.
        lr: AdamW's learning rate.
        augment: deform complete images, change all grey levels, and draw other masks too, see `pairs`; otherwise all
            complete images get `mask`.
        shift: images with gaps are moved by up to so many pixels.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        mask: Tensor | None = None,
        levels: Tensor | None = None,
        widths: tuple[int, ...] = (40, 64, 92, 140),
        lr: float = 2e-3,
        augment: bool = True,
        shift: int = 8,
    ):
        super().__init__()
        self.config = {"widths": list(widths), "lr": lr, "augment": augment, "shift": shift}
        self.register_buffer("mask", torch.zeros(SIZE, dtype=torch.bool) if mask is None else mask.clone())
        self.register_buffer("levels", torch.linspace(0, 1, 256)[None] if levels is None else levels, persistent=False)
        self.network = UNet(3, 2, widths)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"imputer": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=1e-2)}

    def forward(self, visible: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances of all pixels, (N, 1, H, W) each.

        Args:
            visible: (N, 1, H, W) in [0, 1], 0 at unknown pixels.
            known: bool (N, 1, H, W), true at known pixels.
        """
        filled = masks.fill_rows(visible, known)
        inputs = torch.cat([filled, visible, known.to(visible.dtype)], 1)
        correction, log_variance = self.network(inputs).float().chunk(2, 1)
        above = F.softplus(log_variance + INITIAL_LOG_VARIANCE - LOWEST_LOG_VARIANCE)
        return filled + correction, LOWEST_LOG_VARIANCE + above

    def pairs(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images of a training step, and which of their pixels are shown and which are hidden.

        Complete images are deformed, and stripes are hidden in them. Images that already have gaps are moved by whole
        pixels, and thin lines are hidden in them (self-supervision, Batson & Royer 2019). Both get other grey levels.
        Everything is drawn on the device.

        Returns:
            The changed images (N, 1, H, W); bool (N, 1, H, W), true at pixels that the network is shown; bool
            (N, 1, H, W), true at pixels that it has to predict.
        """
        complete = known.flatten(1).all(1)[:, None, None, None]
        moved, known = augmentation.shift(images, known, self.config["shift"])
        images, known = torch.where(complete, images, moved), complete | known
        stripes = self.mask.expand(images.shape)
        if self.config["augment"]:
            images, stripes = self.change(images, known, complete), self.draw_stripes(len(images))
        lines = masks.hide_lines(tuple(self.mask.shape), len(images), images.device)[:, None]
        hidden = torch.where(complete, stripes, lines)
        return images, known & ~hidden, known & hidden

    def change(self, images: Tensor, known: Tensor, complete: Tensor) -> Tensor:
        """Deform some complete images, give some of them the grey levels of a test image, and change all grey levels.

        Args:
            images, known: (N, 1, H, W), as in `pairs`.
            complete: bool (N, 1, 1, 1).
        """
        deformed = complete & self.draw(len(images), WARPED)
        images = torch.where(deformed, augmentation.warp(images), images)
        matched = complete & self.draw(len(images), MATCHED)
        amount = matched * torch.rand(len(images), 1, 1, 1, device=images.device)
        images = torch.lerp(images, augmentation.match_levels(images, self.levels), amount)
        return augmentation.augment_intensity(images, known, TONE)

    def draw_stripes(self, count: int) -> Tensor:
        """Masks bool (count, 1, H, W): the test images' own mask, variants of it, and masks of other kinds."""
        others = masks.other_masks(tuple(self.mask.shape), count, self.mask.device)[:, None]
        variants = torch.where(self.draw(count, OTHER_MASKS), others, masks.vary(self.mask, count)[:, None])
        return torch.where(self.draw(count, OWN_MASK), self.mask, variants)

    def draw(self, count: int, share: float) -> Tensor:
        """Booleans (count, 1, 1, 1); about this share of them is true."""
        return torch.rand(count, 1, 1, 1, device=self.mask.device) < share

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The collate function of a `DataLoader`: corrupted images, complete images, and the masks from `pairs`."""
        images, visible, hidden = self.pairs(*default_collate(examples))
        return images * visible, images, visible, hidden

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [0, 1] and the masks of their known pixels, bool (N, 1, H, W).

        All losses are computed on the hidden pixels: `error`, half the logarithm of each image's mean squared error,
        which is the PSNR up to a negative factor; `nll`, the negative log-likelihood in nats; and the `psnr` in dB.
        """
        images, visible, hidden = self.pairs(*batch)
        mean, log_variance = self(images * visible, visible)
        squares, counts = (mean - images).square(), hidden.sum((1, 2, 3)).clamp(min=1)

        def average(x: Tensor) -> Tensor:
            """The mean over each image's hidden pixels, (N,)."""
            return (x * hidden).sum((1, 2, 3)) / counts

        error = 0.5 * (average(squares) + 1e-6).log().mean()
        nll = 0.5 * average(squares.detach() / log_variance.exp() + log_variance + math.log(2 * math.pi)).mean()
        update("imputer", error + NLL_WEIGHT * nll, clip=1.0)
        return {"error": error, "nll": nll, "psnr": -20 / math.log(10) * error}

    def export(self, path: str | Path) -> Path:
        """Write network and mask as safetensors, the network in float16. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Imputer:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


@torch.no_grad()
def fill_masked(models: list[Imputer], visible: Tensor, known: Tensor, batch_size: int = 100) -> tuple[Tensor, Tensor]:
    """Fill the unknown pixels of images with the mean over the models.

    The variance is the mean of the predicted variances plus the variance of the predicted means (Lakshminarayanan et
    al. 2017).

    Args:
        models: at least one.
        visible, known: arguments of `Imputer.forward`.
        batch_size: number of images that are filled at a time.

    Returns:
        Filled images (N, 1, H, W) in [0, 1], and the standard deviation of each pixel (N, 1, H, W), which is 0 at known
        pixels; both on the CPU.
    """
    filled, deviations = [], []
    device = models[0].mask.device
    for x, k in zip(visible.to(device).split(batch_size), known.to(device).split(batch_size)):
        outputs = [model.eval()(x * k, k) for model in models]
        means, log_variances = (torch.stack(part) for part in zip(*outputs))
        variance = log_variances.exp().mean(0) + means.var(0, unbiased=False)
        filled.append(torch.where(k, x, means.mean(0).clamp(0, 1)))
        deviations.append(torch.where(k, 0.0, variance.sqrt()))
    return torch.cat(filled).cpu(), torch.cat(deviations).cpu()


def sharpen(filled: Tensor, known: Tensor, strength: float = SHARPNESS) -> Tensor:
    """Sharpen the unknown pixels of filled images along the rows; the known pixels do not change.

    A network's mean over all answers that are possible is too smooth across narrow stripes. So the difference between a
    pixel and the weighted mean (1, 2, 1) / 4 of its row at this place is added (unsharp masking).

    Args:
        filled: (N, 1, H, W) in [0, 1], from `fill_masked`.
        known: bool (N, 1, H, W).
        strength: factor on the difference; with 0, nothing is changed.
    """
    weights = torch.tensor([0.25, 0.5, 0.25], device=filled.device).view(1, 1, 1, 3)
    smooth = F.conv2d(F.pad(filled, (1, 1, 0, 0), mode="replicate"), weights)
    return torch.where(known, filled, (filled + strength * (filled - smooth)).clamp(0, 1))


def fill_zeros(images: np.ndarray, models: list[Imputer]) -> tuple[np.ndarray, np.ndarray]:
    """Find the missing pixels, which are 0, fill them with `fill_masked` and `sharpen` them.

    Args:
        images: float32 (N, 1, 64, 64) in [0, 1], as `head_images.read` returns them.
        models: networks that were trained for the same mask.

    Returns:
        Filled images float32 (N, 1, 64, 64) in [0, 1], and the standard deviation of each pixel, which is 0 at known
        pixels.

    Raises:
        ValueError: the networks were trained for different masks, or `masks.mask_of` finds no mask.
    """
    if any(not torch.equal(model.mask, models[0].mask) for model in models):
        raise ValueError("the networks were trained for different masks; use networks that were trained for one mask")
    missing = mask_of(images, models[0].mask.cpu().numpy())
    known = torch.from_numpy(~missing).expand(len(images), 1, *SIZE)
    filled, deviation = fill_masked(models, torch.from_numpy(images), known)
    return sharpen(filled, known).numpy(), deviation.numpy()
