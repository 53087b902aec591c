"""Fills missing stripes: a U-Net that corrects an interpolation, and predicts the variance of each pixel.

Known pixels are never changed. The network gets a row-wise interpolation, the known pixels and their mask. It predicts
a correction of the interpolation and the logarithm of the variance (Nix & Weigend 1994).
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.data import masks
from utils.data.head_images import SIZE
from utils.data.masks import mask_of
from utils.training import checkpoints

SMOOTHING = 0.01  # the Charbonnier loss is quadratic for errors below this; images are in [0, 1]
NLL_WEIGHT = 0.01  # small, so that the variance hardly changes the layers that it shares with the mean
INITIAL_LOG_VARIANCE = -5.0  # before training; a standard deviation of 0.08


class Block(nn.Module):
    """A residual block. It has no normalisation, because that harms restoration (Lim et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def initialise(module: nn.Module) -> None:
    """Set the initial weights of a convolution so that signals keep their scale (He et al. 2015).

    PyTorch's default weights are smaller. Without normalisation, training would begin more slowly with them. The output
    of a residual block is halved.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
    if isinstance(module, Block):
        with torch.no_grad():
            module.first.weight *= 2**0.5  # the activation loses half of the signal's power
            module.second.weight *= 0.5


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015), (N, inputs, H, W) to (N, outputs, H, W); H and W divisible by 8.

    Before training, its output is 0. Blocks of 2 x 2 pixels become channels before the network and pixels after it (Shi
    et al. 2016). This loses no information, and each layer needs only a quarter of the computation.

    Args:
        base: channels at half size; twice as many at a quarter and at an eighth.
        depth: residual blocks on each side of each level.
    """

    def __init__(self, inputs: int, outputs: int, base: int, depth: int):
        super().__init__()
        widths = (base, 2 * base, 2 * base)
        steps = list(zip(widths, widths[1:]))
        self.stem = nn.Conv2d(4 * inputs, base, 3, padding=1)
        self.down = nn.ModuleList(nn.Sequential(*[Block(width) for _ in range(depth)]) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Sequential(*[Block(width) for _ in range(depth)]) for width in widths[:-1])
        self.head = nn.Conv2d(base, 4 * outputs, 3, padding=1)
        self.apply(initialise)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, downsample in zip(self.down, self.shrink):
            skips.append(blocks(x))
            x = downsample(skips[-1])
        x = self.down[-1](x)
        for blocks, upsample, skip in reversed(list(zip(self.up, self.grow, skips))):
            x = blocks(upsample(x) + skip)
        return F.pixel_shuffle(self.head(F.silu(x)), 2)


class Imputer(nn.Module):
    """The network with its loss, its augmentation and its optimiser, for `loop.fit`.

    Args:
        mask: bool (H, W), true where pixels are missing; `from_weights` reads it from the file.
        base, depth: arguments of `UNet`.
        lr: AdamW's learning rate.
        own_mask: share of the complete training images that get this mask; the others get a variant of it.
        tone: strength of `augment_intensity`; 0 does not change the images.
        mirror: also train on images that are mirrored from left to right. Then the prediction is the mean over an image
            and its mirror image.
        residual: predict a correction of the interpolation instead of the grey level.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        mask: Tensor | None = None,
        base: int = 32,
        depth: int = 2,
        lr: float = 2e-3,
        own_mask: float = 0.5,
        tone: float = 1.0,
        mirror: bool = True,
        residual: bool = True,
    ):
        super().__init__()
        self.config = {
            "base": base, "depth": depth, "lr": lr, "own_mask": own_mask, "tone": tone, "mirror": mirror,
            "residual": residual,
        }  # fmt: skip
        self.register_buffer("mask", torch.zeros(64, 64, dtype=torch.bool) if mask is None else mask.clone())
        self.network = UNet(3, 2, base, depth)

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

        In complete images, stripes are hidden. In images that already have gaps, thin lines are hidden too
        (self-supervision, Batson & Royer 2019).

        Returns:
            The images (N, 1, H, W), randomly mirrored and changed by `augment_intensity`; bool (N, 1, H, W), true at
            pixels that the network is shown; bool (N, 1, H, W), true at pixels that it has to predict.
        """
        count, device = len(images), images.device
        complete = known.flatten(1).all(1)[:, None, None, None]
        own = (torch.rand(count, device=device) < self.config["own_mask"])[:, None, None, None]
        others = masks.vary(self.mask, count)[:, None]
        lines = masks.hide_lines(images.shape[2:], count, device)[:, None]
        hidden = torch.where(complete, torch.where(own, self.mask, others), lines) & known
        images = augment_intensity(images, known, self.config["tone"])
        mirrored = torch.rand(count, 1, 1, 1, device=device) < (0.5 if self.config["mirror"] else 0.0)
        return tuple(torch.where(mirrored, x.flip(3), x) for x in (images, known & ~hidden, hidden))

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [0, 1] and the masks of their known pixels, bool (N, 1, H, W).

        All losses are computed on the hidden pixels: `charbonnier`, which is close to the mean absolute error
        (Charbonnier et al. 1994); `nll`, the negative log-likelihood in nats; and the `psnr` in dB.
        """
        images, visible, hidden = self.pairs(*batch)
        mean, log_variance = self(images * visible, visible)
        squares, log_variance = (mean - images)[hidden].square(), log_variance[hidden]
        charbonnier = (squares + SMOOTHING**2).sqrt().mean()
        nll = 0.5 * (squares.detach() / log_variance.exp() + log_variance + math.log(2 * math.pi)).mean()
        update("imputer", charbonnier + NLL_WEIGHT * nll, clip=1.0)
        return {"charbonnier": charbonnier, "nll": nll, "psnr": -10 * squares.mean().log10()}

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


def augment_intensity(images: Tensor, known: Tensor, strength: float) -> Tensor:
    """Change images (N, 1, H, W) in [0, 1] randomly, as if they came from another scanner.

    The changes are contrast, coil sensitivity, sharpness, and a darker lower right corner.

    Args:
        known: bool (N, 1, H, W); unknown pixels stay as they are and do not change their neighbours.
        strength: factor on all changes; with 0, nothing is changed.
    """
    if not strength:
        return images
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
    changed = changed + strength * (uniform() - 0.5) * (soft - changed)
    return torch.where(known, changed.clamp(0, 1), images)


def fill_zeros(images: np.ndarray, models: list[Imputer]) -> tuple[np.ndarray, np.ndarray]:
    """Find the missing pixels, which are 0, and fill them with `fill_masked`.

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
    return filled.numpy(), deviation.numpy()
