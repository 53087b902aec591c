"""Fills missing stripes: a U-Net that corrects an interpolation and says how unsure it is of each pixel.

What is known is never touched: the network is asked for the missing pixels alone. It sees a row-wise
interpolation, what is known, and where. It predicts a correction of the interpolation and the logarithm of its
variance (Nix & Weigend 1994).
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

SMOOTHING = 0.01  # of the Charbonnier loss: below this error, in [0, 1], it is quadratic
NLL_WEIGHT = 0.01  # the variance learns from the mean's errors, and hardly pulls at the shared layers
FIRST_LOG_VARIANCE = -5.0  # where training begins: a standard deviation of 0.08


class Block(nn.Module):
    """Two 3 x 3 convolutions added to their input; no normalisation, which harms restoration (Lim et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def first_weights(module: nn.Module) -> None:
    """Weights of convolutions that keep the size of signals (He et al. 2015), but halve what a block adds.

    There is no normalisation to make up for PyTorch's own, which are smaller: training would begin slower.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
    if isinstance(module, Block):
        with torch.no_grad():
            module.first.weight *= 2**0.5  # half of its input's power is lost in the activation
            module.second.weight *= 0.5


class UNet(nn.Module):
    """(N, inputs, H, W) to (N, outputs, H, W), at first 0; H and W divisible by 8 (Ronneberger et al. 2015).

    Images are folded to half the height and width and four times the channels (Shi et al. 2016): no
    information is lost, and a layer costs a quarter.

    Args:
        base: channels at half size; doubled at a quarter, and kept at an eighth.
        depth: blocks on each side of each level.
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
        self.apply(first_weights)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        passed = []
        for blocks, shrink in zip(self.down, self.shrink):
            passed.append(blocks(x))
            x = shrink(passed[-1])
        x = self.down[-1](x)
        for blocks, grow, skip in reversed(list(zip(self.up, self.grow, passed))):
            x = blocks(grow(x) + skip)
        return F.pixel_shuffle(self.head(F.silu(x)), 2)


class Imputer(nn.Module):
    """The network with its loss, its augmentation and its optimiser, for `loop.fit`.

    Args:
        mask: bool (H, W), where pixels are missing. From weights it is read back.
        base, depth: of `UNet`.
        lr: AdamW's learning rate.
        own_mask: share of the complete training images that get this mask; the others get a variant of it.
        tone: strength of `retone`; 0 leaves the images as they are.
        mirror: train on images mirrored left to right too, as `fill` needs for its mean over both.
        residual: correct the interpolation; else predict the grey level itself.
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
        """Mean and log variance (N, 1, H, W) of all pixels.

        Args:
            visible: (N, 1, H, W) in [0, 1], 0 where unknown.
            known: bool (N, 1, H, W).
        """
        filled = masks.fill_rows(visible, known)
        inputs = torch.cat([filled, visible, known.to(visible.dtype)], 1)
        mean, log_variance = self.network(inputs).float().chunk(2, 1)
        return mean + filled if self.config["residual"] else mean, log_variance + FIRST_LOG_VARIANCE

    def pairs(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a training step is made of: randomly retoned and mirrored images (N, 1, H, W), what of them the
        network gets to see and what it is asked for, bool (N, 1, H, W) each.

        Of complete images, stripes are hidden; of images that have gaps already, thin lines of what is
        left (self-supervision, Batson & Royer 2019).
        """
        count, device = len(images), images.device
        complete = known.flatten(1).all(1)[:, None, None, None]
        own = (torch.rand(count) < self.config["own_mask"]).to(device)[:, None, None, None]
        others = masks.vary(self.mask.cpu(), count)[:, None].to(device)
        lines = masks.hide_lines(images.shape[2:], count)[:, None].to(device)
        hidden = torch.where(complete, torch.where(own, self.mask, others), lines) & known
        images = retone(images, known, self.config["tone"])
        mirrored = torch.rand(count, 1, 1, 1, device=device) < (0.5 if self.config["mirror"] else 0.0)
        return tuple(torch.where(mirrored, x.flip(3), x) for x in (images, known & ~hidden, hidden))

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [0, 1] and what of them is known, bool (N, 1, H, W).

        The loss looks at hidden pixels alone: `charbonnier`, about their mean absolute error (Charbonnier
        et al. 1994), their negative log-likelihood `nll` in nats, and their `psnr` in dB.
        """
        images, visible, hidden = self.pairs(*batch)
        mean, log_variance = self(images * visible, visible)
        squares, log_variance = (mean - images)[hidden].square(), log_variance[hidden]
        charbonnier = (squares + SMOOTHING**2).sqrt().mean()
        nll = 0.5 * (squares.detach() / log_variance.exp() + log_variance + math.log(2 * math.pi)).mean()
        update("imputer", charbonnier + NLL_WEIGHT * nll, clip=1.0)
        return {"charbonnier": charbonnier, "nll": nll, "psnr": -10 * squares.mean().log10()}

    def export(self, path: str | Path) -> Path:
        """Write network and mask as safetensors, the network in float16."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Imputer:
        """A trained model from what `export` wrote; errors as of `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


@torch.no_grad()
def fill(
    models: list[Imputer], visible: Tensor, known: Tensor, batch_size: int = 100, plain: bool = False
) -> tuple[Tensor, Tensor]:
    """Filled images (N, 1, H, W) in [0, 1], and each pixel's standard deviation, 0 at known ones; on the CPU.

    The answer is the mean over models, and over each image and its mirror image if the model was trained for it;
    the variance is the mean of the predicted ones, and how much the answers differ (Lakshminarayanan et al. 2017).

    Args:
        models: at least one.
        visible, known: as of `Imputer.forward`.
        plain: no mirror images.
    """
    filled, deviations = [], []
    device = models[0].mask.device
    for x, k in zip(visible.to(device).split(batch_size), known.to(device).split(batch_size)):
        means, variances = [], []
        for model in models:
            model.eval()
            for turned in ((), (3,)) if model.config["mirror"] and not plain else ((),):
                mean, log_variance = model((x * k).flip(turned), k.flip(turned))
                means.append(mean.flip(turned))
                variances.append(log_variance.exp().flip(turned))
        mean, variance = torch.stack(means), torch.stack(variances)
        filled.append(torch.where(k, x, mean.mean(0).clamp(0, 1)))
        deviations.append(torch.where(k, 0.0, (variance.mean(0) + mean.var(0, unbiased=False)).sqrt()))
    return torch.cat(filled).cpu(), torch.cat(deviations).cpu()


def retone(images: Tensor, known: Tensor, strength: float) -> Tensor:
    """Images (N, 1, H, W) in [0, 1] as another scanner might have given them: other contrast, an uneven coil,
    a dark lower right corner, softer or sharper.

    Args:
        known: bool (N, 1, H, W); what is not known takes no part in softening its neighbours.
        strength: of all of it.
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
    toned = images.clamp(0, 1) ** (0.3 * normal()).exp()
    phase = 2 * torch.pi * uniform()
    toned = toned + 0.05 * normal() * (torch.sin(2 * torch.pi * toned + phase) - torch.sin(phase))
    down, right, both = 0.3 * normal(3)
    coil = (down * y + right * x + both * x * y).exp().clamp(max=1.6)
    corner = strength * uniform() * torch.sigmoid(5 * (x + y - 1 + 0.3 * normal()))
    toned = toned * coil * (1 - corner).clamp(min=0)
    mean = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
    soft = mean(toned * known) / mean(known.to(toned.dtype)).clamp(min=1 / 9)
    toned = toned + strength * (uniform() - 0.5) * (soft - toned)
    return torch.where(known, toned.clamp(0, 1), images)


def fill_missing(images: np.ndarray, models: list[Imputer]) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 (N, 1, 64, 64) with their gaps filled, and each pixel's standard deviation, 0 at known ones.

    Args:
        images: as `check` returns them, missing pixels 0.
        models: their mean is the answer; where they differ, the standard deviation grows.

    Raises:
        ValueError: as of `mask_of`.
    """
    if any(not torch.equal(model.mask, models[0].mask) for model in models):
        raise ValueError("the networks were trained for different masks; fill with those of one mask")
    missing = mask_of(images, models[0].mask.cpu().numpy())
    known = torch.from_numpy(~missing).expand(len(images), 1, *SIZE)
    filled, deviation = fill(models, torch.from_numpy(images), known)
    return filled.numpy(), deviation.numpy()
