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
from utils.models.heads.networks import build_network
from utils.training import checkpoints

NLL_WEIGHT = 0.01  # small, so that the variance hardly changes the layers that it shares with the mean
SMOOTHING = 0.01  # the Charbonnier loss is quadratic for errors below this; images are in [0, 1]
INITIAL_LOG_VARIANCE = -5.0  # before training; a standard deviation of 0.08
WARPED, MATCHED = 0.8, 0.5  # shares of the complete images that are deformed, and whose grey levels are matched
OTHER_MASKS = 0.25  # share of the masks that are not the test images' own one that are of another kind
SHARPNESS = 0.25  # the smallest tried value with which validation heads have 95 % of the truth's energy, see `sharpen`
TRUSTED = 0.8  # share of a deformed pixel that has to come from known pixels, so that the network learns from it


class Imputer(nn.Module):
    """The network with its loss, its augmentation and its optimiser, for `loop.fit`.

    Args:
        mask: bool (H, W), true where pixels are missing; `from_weights` reads it from the file.
        levels: (M, 256), grey levels of M images in increasing order, as `augmentation.grey_levels` returns them. They
            are used in training only.
        kind: of network, see `networks.build_network`.
        widths, depths, attention, dropout: arguments of `networks.UNet`.
        lr: AdamW's learning rate.
        own_mask: share of the complete training images that get this mask; the others get a variant of it or another.
        warp: strength of `augmentation.warp`, for complete images.
        shift: images with gaps are moved by up to so many pixels.
        match: strength of `augmentation.match_levels`, in [0, 1].
        tone: strength of `augmentation.augment_intensity`; 0 does not change the images.
        mirror: also train on images that are mirrored from left to right. Then the prediction is the mean over an image
            and its mirror image.
        residual: predict a correction of the interpolation instead of the grey level.
        loss: "decibel", the logarithm of each image's error; or "charbonnier", close to the mean absolute error.
        spectrum: weight of `spectral_error`.
        completed: share of the training images that `complete` is applied to.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        mask: Tensor | None = None,
        levels: Tensor | None = None,
        kind: str = "ours",
        widths: tuple[int, ...] = (64, 64, 64),
        depths: tuple[int, ...] = (3, 2, 1),
        attention: bool = True,
        dropout: float = 0.0,
        lr: float = 2e-3,
        own_mask: float = 0.6,
        warp: float = 1.0,
        shift: int = 8,
        match: float = 1.0,
        tone: float = 0.3,
        mirror: bool = False,
        residual: bool = True,
        loss: str = "decibel",
        spectrum: float = 0.3,
        completed: float = 0.0,
    ):
        super().__init__()
        shape = {"widths": list(widths), "depths": list(depths), "attention": attention, "dropout": dropout}
        self.config = {
            "kind": kind, **shape, "lr": lr, "own_mask": own_mask, "warp": warp, "shift": shift, "match": match,
            "tone": tone, "mirror": mirror, "residual": residual, "loss": loss, "spectrum": spectrum,
            "completed": completed,
        }  # fmt: skip
        self.register_buffer("mask", torch.zeros(SIZE, dtype=torch.bool) if mask is None else mask.clone())
        self.register_buffer("levels", torch.linspace(0, 1, 256)[None] if levels is None else levels, persistent=False)
        self.network = build_network(kind, **shape)

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
        mean, log_variance = self.network(inputs).float().chunk(2, 1)
        return mean + filled if self.config["residual"] else mean, log_variance + INITIAL_LOG_VARIANCE

    def pairs(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images of a training step, and which of their pixels are shown and which are hidden.

        Complete images are deformed, their grey levels are changed, and stripes are hidden. Images that already have
        gaps are moved, and thin lines are hidden in them (self-supervision, Batson & Royer 2019). Everything is drawn
        on the device.

        Returns:
            The changed images (N, 1, H, W); bool (N, 1, H, W), true at pixels that the network is shown; bool
            (N, 1, H, W), true at pixels that it has to predict.
        """
        count, device = len(images), images.device

        def chance(share: float) -> Tensor:
            return torch.rand(count, 1, 1, 1, device=device) < share

        complete = known.flatten(1).all(1)[:, None, None, None]
        striped, trusted = complete, known
        if self.config["completed"]:
            images, striped = self.complete(images, known)
        if self.config["warp"]:
            both = torch.cat([images, known.to(images.dtype)], 1)
            warped, share = augmentation.warp(both, self.config["warp"]).split(1, 1)
            chosen = striped & chance(WARPED)
            images, trusted = torch.where(chosen, warped, images), torch.where(chosen, share > TRUSTED, known)
        shown = known | striped
        if self.config["shift"]:
            moved = augmentation.shift(images, shown, self.config["shift"])
            images, shown = (torch.where(striped, x, y) for x, y in zip((images, shown), moved))
            trusted = torch.where(striped, trusted, shown)
        others = torch.where(
            chance(OTHER_MASKS),
            masks.other_masks(tuple(self.mask.shape), count, device)[:, None],
            masks.vary(self.mask, count)[:, None],
        )
        lines = masks.hide_lines(tuple(self.mask.shape), count, device)[:, None]
        hidden = torch.where(striped, torch.where(chance(self.config["own_mask"]), self.mask, others), lines)
        if self.config["match"]:
            amount = self.config["match"] * torch.rand(count, 1, 1, 1, device=device) * chance(MATCHED) * complete
            images = torch.lerp(images, augmentation.match_levels(images, self.levels), amount)
        images = augmentation.augment_intensity(images, shown, self.config["tone"])
        mirrored = chance(0.5 if self.config["mirror"] else 0.0)
        return tuple(torch.where(mirrored, x.flip(3), x) for x in (images, shown & ~hidden, trusted & hidden))

    def complete(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Fill some of the images with gaps with what the network predicts, so that they can be deformed.

        Then the network also learns from test images under the test images' mask. It never learns from what it has
        filled itself, only from pixels that were known.

        Returns:
            The images (N, 1, H, W), and which of them are complete now, bool (N, 1, 1, 1).
        """
        gaps = ~known.flatten(1).all(1)
        number = max(1, round(self.config["completed"] * len(images)))
        chosen = (gaps + torch.rand(len(images), device=images.device)).topk(number).indices
        some, their = images[chosen], known[chosen]
        with torch.no_grad():
            mean, _ = self(some * their, their)
        torch.clear_autocast_cache()  # it holds copies of the weights that have no gradient
        images = images.index_copy(0, chosen, torch.where(their, some, mean.clamp(0, 1)))
        done = (~gaps).index_fill(0, chosen, True)
        return images, done[:, None, None, None]

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The collate function of a `DataLoader`: corrupted images, complete images, and the masks from `pairs`."""
        images, visible, hidden = self.pairs(*default_collate(examples))
        return images * visible, images, visible, hidden

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [0, 1] and the masks of their known pixels, bool (N, 1, H, W).

        All losses are computed on the hidden pixels: `error`, see `loss`; `spectrum`, see `spectral_error`; `nll`, the
        negative log-likelihood in nats; and the `psnr` in dB.
        """
        images, visible, hidden = self.pairs(*batch)
        mean, log_variance = self(images * visible, visible)
        squares, counts = (mean - images).square(), hidden.sum((1, 2, 3)).clamp(min=1)

        def average(x: Tensor) -> Tensor:
            """The mean over each image's hidden pixels, (N,)."""
            return (x * hidden).sum((1, 2, 3)) / counts

        logarithm = (average(squares) + 1e-6).log()
        spectrum = spectral_error(torch.where(hidden, mean, images), images)
        nll = 0.5 * average(squares.detach() / log_variance.exp() + log_variance + math.log(2 * math.pi)).mean()
        if self.config["loss"] == "decibel":
            error = 0.5 * logarithm.mean()
        else:
            error = average((squares + SMOOTHING**2).sqrt()).mean()
        update("imputer", error + self.config["spectrum"] * spectrum + NLL_WEIGHT * nll, clip=1.0)
        return {"error": error, "spectrum": spectrum, "nll": nll, "psnr": -10 / math.log(10) * logarithm.mean()}

    def export(self, path: str | Path) -> Path:
        """Write network and mask as safetensors, the network in float16. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Imputer:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


@torch.no_grad()
def fill_masked(
    models: list[Imputer], visible: Tensor, known: Tensor, batch_size: int = 100, plain: bool = False
) -> tuple[Tensor, Tensor]:
    """Fill the unknown pixels of images.

    The result is the mean over the models. If a model was trained on mirrored images, the mean is also over each image
    and its mirror image. The variance is the mean of the predicted variances plus the variance of the predicted means
    (Lakshminarayanan et al. 2017).

    Args:
        models: at least one.
        visible, known: arguments of `Imputer.forward`.
        batch_size: number of images that are filled at a time.
        plain: do not use mirror images.

    Returns:
        Filled images (N, 1, H, W) in [0, 1], and the standard deviation of each pixel (N, 1, H, W), which is 0 at known
        pixels; both on the CPU.
    """
    filled, deviations = [], []
    device = models[0].mask.device
    for x, k in zip(visible.to(device).split(batch_size), known.to(device).split(batch_size)):
        means, variances = [], []
        for model in models:
            model.eval()
            for flipped in ((), (3,)) if model.config["mirror"] and not plain else ((),):  # no axis, or the columns
                mean, log_variance = model((x * k).flip(flipped), k.flip(flipped))
                means.append(mean.flip(flipped))
                variances.append(log_variance.exp().flip(flipped))
        mean, variance = torch.stack(means), torch.stack(variances)
        filled.append(torch.where(k, x, mean.mean(0).clamp(0, 1)))
        deviations.append(torch.where(k, 0.0, (variance.mean(0) + mean.var(0, unbiased=False)).sqrt()))
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


def spectral_error(filled: Tensor, images: Tensor) -> Tensor:
    """Mean squared difference of the logarithms of two spectra, the powers of the rows in a batch (Durall et al. 2020).

    A mean over all answers that are possible is too smooth: it lacks power at high frequencies.
    """

    def log_power(x: Tensor) -> Tensor:
        return (torch.fft.rfft(x.float(), dim=3).abs().square().mean((0, 1, 2))[1:] + 1e-6).log()

    return (log_power(filled) - log_power(images)).square().mean()


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
