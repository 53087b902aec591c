"""A normalising flow: an invertible network that maps images to uniform noise, so their exact density is known.

The network consists of coupling layers (Dinh et al. 2017) on the unit cube. Each layer applies monotone
rational-quadratic splines (Durkan et al. 2019) to a part of the pixels. A network computes the knots of these splines
from the other pixels. The parts are the four phases of a 2 x 2 grid. Two of them are halved like a chessboard, because
their pixels have few neighbours in the other parts. After three phases are changed, the fourth is split in the same way
(a multi-scale model).

Integer grey levels have no density. So uniform noise is added to them, and the result is a bound on their probability
(Theis et al. 2016).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints, devices

MIN_BIN_SIZE = 1e-4  # smallest width and height of a bin; a grey level is 4e-3 wide
MIN_SLOPE = 1e-3  # smallest slope at a knot
LEVELS = 256  # grey levels
MIN_SIDE = 4  # pixels; a smaller map is not split again


def spline(x: Tensor, parameters: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic splines from [0, 1] to [0, 1]; each number has its own spline.

    Args:
        x: any shape (...), in [0, 1].
        parameters: (..., 3 K + 1): unnormalised widths and heights of K bins, and slopes at K + 1 knots.
        inverse: compute the inverse function.

    Returns:
        The values (...) of the splines at x, and the logarithms (...) of their derivatives there.
    """
    bins = (parameters.shape[-1] - 1) // 3
    sizes, slopes = parameters.to(x.dtype).split([2 * bins, bins + 1], -1)
    sizes = MIN_BIN_SIZE + (1 - MIN_BIN_SIZE * bins) * sizes.unflatten(-1, (2, bins)).softmax(-1)
    edges = F.pad(sizes.cumsum(-1), (1, 0))  # (..., 2, K + 1): left edges, lower edges
    slopes = MIN_SLOPE + F.softplus(slopes + math.log(math.expm1(1 - MIN_SLOPE)))  # 1 if the parameter is 0
    inner = edges[..., int(inverse), 1:-1].contiguous()
    which = torch.searchsorted(inner, x[..., None].contiguous(), right=True)
    both_ends = torch.cat([which, which + 1], -1)[..., None, :].expand(*x.shape, 3, 2)
    knots = torch.cat([edges, slopes[..., None, :]], -2).gather(-1, both_ends)
    (x0, y0, d0), (x1, y1, d1) = (end.unbind(-1) for end in knots.unbind(-1))
    w, h = x1 - x0, y1 - y0
    bin_slope = h / w
    bend = d0 + d1 - 2 * bin_slope
    if inverse:
        rise = x - y0
        a = h * (bin_slope - d0) + rise * bend
        b = h * d0 - rise * bend
        c = -bin_slope * rise
        t = (2 * c / (-b - (b * b - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
    else:
        t = ((x - x0) / w).clamp(0, 1)
    rest = 1 - t
    between = t * rest
    below = bin_slope + bend * between
    y = x0 + t * w if inverse else y0 + h * (bin_slope * t * t + d0 * between) / below
    slope = (bin_slope / below) ** 2 * (d1 * t * t + 2 * bin_slope * between + d0 * rest * rest)
    log_slope = slope.clamp(min=1e-12).log()
    return y.clamp(0, 1), -log_slope if inverse else log_slope


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions whose output is added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Coupling(nn.Module):
    """Changes the pixels of a mask with splines that depend on the other pixels. The maps are (N, D, H, W) in [0, 1].

    Args:
        mask: bool (D, H, W), true for the pixels that are changed. They are in every channel or in every k-th channel.
        width, depth: channels and number of blocks of the network.
        bins: bins of a spline.
    """

    def __init__(self, mask: Tensor, width: int, depth: int, bins: int):
        super().__init__()
        self.register_buffer("mask", mask.clone(), persistent=False)
        channels = mask.flatten(1).any(1).nonzero()[:, 0].tolist()
        apart = channels[1] - channels[0] if len(channels) > 1 else len(mask)
        self.changed = slice(channels[0], None, apart)  # a list of numbers would be sent to the GPU in every step
        self.bins = bins
        self.network = nn.Sequential(
            nn.Conv2d(2 * len(mask), width, 3, padding=1),
            *[Block(width) for _ in range(depth)],
            nn.SiLU(),
            nn.Conv2d(width, len(channels) * (3 * bins + 1), 1),
        )
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The changed maps (N, D, H, W), and the logarithms (N,) of the Jacobian determinants."""
        kept = ~self.mask
        inputs = torch.cat([(2 * x - 1) * kept, kept.expand_as(x).to(x.dtype)], 1)
        parameters = self.network(inputs.contiguous(memory_format=torch.channels_last))
        parameters = parameters.unflatten(1, (-1, 3 * self.bins + 1)).movedim(2, -1)
        y, log_slope = spline(x[:, self.changed], parameters, inverse)
        mask = self.mask[self.changed]
        out = x.clone()
        out[:, self.changed] = torch.where(mask, y, x[:, self.changed])
        return out, (log_slope * mask).flatten(1).sum(1)


def chessboard(height: int, width: int) -> Tensor:
    """A mask (height, width) that is true for the fields of one colour of a chessboard."""
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0


class Flow(nn.Module):
    """The couplings with their exact density, their sampler and their optimiser, for `loop.fit`.

    Args:
        size: (height, width) of an image in pixels, both even.
        channels: number of channels of an image.
        width, depth: channels and number of blocks of each coupling's network.
        bins: bins of a spline.
        lr: AdamW's learning rate.

    Raises:
        ValueError: a side is odd.
    """

    ema_modules = ("couplings",)

    def __init__(
        self,
        size: tuple[int, int] = (28, 28),
        channels: int = 1,
        width: int = 64,
        depth: int = 3,
        bins: int = 24,
        lr: float = 1e-3,
    ):
        super().__init__()
        if size[0] % 2 or size[1] % 2:
            raise ValueError(f"image sides must be divisible by 2, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "width": width, "depth": depth, "bins": bins, "lr": lr,
        }  # fmt: skip
        (height, across), levels = size, []
        while height % 2 == 0 and across % 2 == 0 and min(height, across) > MIN_SIDE:  # a level changes 3 of 4 phases
            height, across = height // 2, across // 2
            phase, board = torch.arange(4).repeat(channels)[:, None, None], chessboard(height, across)
            parts = [(phase == 3).expand(-1, height, across)]
            parts += [(phase == k) & half for k in (2, 1) for half in (board, ~board)]
            levels.append(nn.ModuleList(Coupling(part, width, depth, bins) for part in parts))
        board = chessboard(height, across).repeat(channels, 1, 1)
        last = nn.ModuleList(Coupling(part, width, depth, bins) for part in (board, ~board, board, ~board))
        self.couplings = nn.ModuleDict({"levels": nn.ModuleList(levels), "last": last})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"flow": torch.optim.AdamW(self.couplings.parameters(), self.config["lr"], weight_decay=1e-2)}

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (N, C, H, W) in [0, 1] to uniform noise, in parts, and the log determinants (N,)."""
        parts, total = [], torch.zeros(len(x), device=x.device)
        for level in self.couplings["levels"]:
            x = F.pixel_unshuffle(x, 2)
            for coupling in level:
                x, log_slope = coupling(x)
                total = total + log_slope
            phases = x.unflatten(1, (-1, 4))
            parts.append(phases[:, :, 1:])
            x = phases[:, :, 0]
        for coupling in self.couplings["last"]:
            x, log_slope = coupling(x)
            total = total + log_slope
        return [*parts, x], total

    def inverse(self, parts: list[Tensor]) -> Tensor:
        """The images (N, C, H, W) from which `forward` made these parts."""
        *parts, x = parts
        for coupling in reversed(self.couplings["last"]):
            x, _ = coupling(x, inverse=True)
        for level, part in zip(reversed(self.couplings["levels"]), reversed(parts)):
            x = torch.cat([x[:, :, None], part], 2).flatten(1, 2)
            for coupling in reversed(level):
                x, _ = coupling(x, inverse=True)
            x = F.pixel_shuffle(x, 2)
        return x

    def nats(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Upper bound (N,) in nats on the negative log probability of images (N, C, H, W) in [-1, 1].

        Args:
            images: integer grey levels, scaled to [-1, 1].
            generator: random generator of the noise that is added to the grey levels.
        """
        source = devices.drawn_on(generator, images.device)
        noise = torch.rand(images.shape, generator=generator, device=source).to(images.device)
        x = (((images + 1) * 127.5).round() + noise) / LEVELS
        return images[0].numel() * math.log(LEVELS) - self(x.clamp(0, 1))[1]

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; returns the mean `nats` of an image."""
        nats = self.nats(images).mean()
        update("flow", nats / images[0].numel(), clip=1.0)
        return {"nats": nats}

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, batch_size: int = 250) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        The values are integer grey levels, scaled to [-1, 1].
        """
        self.eval()
        device = next(self.parameters()).device
        channels, (height, width) = self.config["channels"], self.config["size"]
        noise = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))
        images = []
        for batch in noise.to(device).split(batch_size):
            x, parts = batch, []
            for _ in self.couplings["levels"]:
                phases = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
                parts.append(phases[:, :, 1:])
                x = phases[:, :, 0]
            images.append(self.inverse([*parts, x]))
        levels = (torch.cat(images).cpu() * LEVELS).floor().clamp(max=LEVELS - 1)
        return levels / 127.5 - 1

    def export(self, path: str | Path) -> Path:
        """Write the couplings as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Flow:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)
