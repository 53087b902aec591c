"""An autoregressive model: the distribution of each pixel, given all pixels before it (van den Oord et al. 2016).

This is a gated PixelCNN whose convolutions work on blocks of 2 x 2 pixels, at half the height and half the width. So a
layer needs a quarter of the computation, and its receptive field is twice as large. At the end, a small network
predicts the pixels of a block one after another. No pixels are assumed to be independent. The distribution of a pixel
is a mixture of discretised logistics (Salimans et al. 2017).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints

BLOCK = 2  # side of a block in pixels
LEVELS = 256  # grey levels
MIN_LOG_SCALE = -7.0  # smallest log scale of a logistic, in units of half the grey range; e ** -7 is 0.12 grey levels


class CausalConv2d(nn.Conv2d):
    """A convolution that depends only on rows above, or only on columns to the left.

    Args:
        size: (rows, columns) of the kernel. A kernel with several rows depends on rows above. A kernel with one row
            depends on columns to the left.
        strict: do not depend on the current row (or column) itself.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], strict: bool = False):
        super().__init__(inputs, outputs, size)
        rows, columns = size
        if rows > 1:
            self.around = (columns // 2, columns // 2, rows - 1 + strict, -int(strict))
        else:
            self.around = (columns - 1 + strict, -int(strict), 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.around))


def gate(x: Tensor) -> Tensor:
    """The gate of a layer, (N, 2 C, H, W) to (N, C, H, W): tanh of one half times the sigmoid of the other."""
    value, switch = x.chunk(2, 1)
    return value.tanh() * switch.sigmoid()


class GatedLayer(nn.Module):
    """One gated layer with residual connections, on maps (N, width, H, W).

    The vertical stack depends on the rows above. The horizontal stack depends on the pixels to the left and on the
    vertical stack.
    """

    def __init__(self, width: int):
        super().__init__()
        self.above = CausalConv2d(width, 2 * width, (2, 3))
        self.left = CausalConv2d(width, 2 * width, (1, 2))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def from_above(self, above: Tensor) -> tuple[Tensor, Tensor]:
        """The next map of the vertical stack, and its link (N, 2 width, H, W) to the horizontal stack."""
        features = self.above(above)
        return above + gate(features), self.link(features)

    def forward(self, left: Tensor, link: Tensor) -> Tensor:
        """The next map of the horizontal stack."""
        return left + self.out(gate(self.left(left) + link))


class BlockNetwork(nn.Module):
    """Predicts the pixels of a block one after another.

    Maps the context (N, width, H, W) and the pixels (N, D, H, W) of blocks to the parameters (N, D, outputs, H, W) of
    each pixel's distribution. The parameters of pixel k depend on the context and on the pixels before k.
    """

    def __init__(self, pixels: int, width: int, hidden: int, outputs: int):
        super().__init__()
        self.shape = (pixels, hidden)
        self.context = nn.Conv2d(width, pixels * hidden, 1)
        self.before = nn.Parameter(torch.randn(pixels, hidden, pixels) / pixels)
        self.register_buffer("order", torch.ones(pixels, pixels).tril(-1)[:, None], persistent=False)
        self.layer = nn.Conv2d(pixels * hidden, pixels * hidden, 1, groups=pixels)
        self.head = nn.Conv2d(pixels * hidden, pixels * outputs, 1, groups=pixels)

    def forward(self, context: Tensor, pixels: Tensor) -> Tensor:
        weight = (self.before * self.order).flatten(0, 1)[:, :, None, None]
        hidden = F.silu(self.context(context) + F.conv2d(pixels, weight.to(pixels.dtype)))
        hidden = F.silu(hidden + self.layer(hidden))
        return self.head(hidden).unflatten(1, (self.shape[0], -1))


def mixture_nats(parameters: Tensor, levels: Tensor) -> Tensor:
    """Negative log probabilities (N, D, H, W) in nats of grey levels under mixtures of discretised logistics.

    The probability of a level is the mass between the level - 0.5 and the level + 0.5. Levels 0 and 255 get the tails.

    Args:
        parameters: (N, D, 3 K, H, W): logits of the weights, means and log scales of K components. Means and scales are
            in units of half the grey range.
        levels: (N, D, H, W), whole numbers in [0, 255].
    """
    weights, means, log_scales = parameters.float().chunk(3, 2)
    log_scales = log_scales.clamp(min=MIN_LOG_SCALE)
    centre = levels[:, :, None] / 127.5 - 1 - means
    half = 1 / 255
    upper, lower = (centre + half) * (-log_scales).exp(), (centre - half) * (-log_scales).exp()
    first, last = (levels == 0)[:, :, None], (levels == LEVELS - 1)[:, :, None]
    # log(sigmoid(u) - sigmoid(l)) = logsigmoid(u) + logsigmoid(-l) + log(1 - exp(l - u)), without cancellation
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log1p(-torch.exp((lower - upper).clamp(max=-1e-7)))
    log_mass = torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))
    return -(weights.log_softmax(2) + log_mass).logsumexp(2)


class PixelCNN(nn.Module):
    """The network with its loss, its exact likelihood, its sampler and its optimiser, for `loop.fit`.

    Args:
        size: (height, width) of an image in pixels, both even.
        channels: number of channels of an image.
        width: channels of the convolutions.
        layers: number of gated layers.
        hidden: width of the network that predicts the pixels of a block.
        components: number of logistics in the mixture of a pixel.
        lr: AdamW's learning rate.

    Raises:
        ValueError: a side is odd.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        size: tuple[int, int] = (28, 28),
        channels: int = 1,
        width: int = 64,
        layers: int = 6,
        hidden: int = 48,
        components: int = 8,
        lr: float = 1e-3,
    ):
        super().__init__()
        if size[0] % BLOCK or size[1] % BLOCK:
            raise ValueError(f"image sides must be divisible by {BLOCK}, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "width": width, "layers": layers, "hidden": hidden,
            "components": components, "lr": lr,
        }  # fmt: skip
        pixels = channels * BLOCK**2
        self.network = nn.ModuleDict(
            {
                "above": CausalConv2d(pixels + 1, width, (2, 3), strict=True),
                "left": CausalConv2d(pixels + 1, width, (1, 2), strict=True),
                "layers": nn.ModuleList(GatedLayer(width) for _ in range(layers)),
                "within": BlockNetwork(pixels, width, hidden, 3 * components),
            }
        )
        with torch.no_grad():  # the first means lie evenly over the grey range
            bias = self.network["within"].head.bias.view(pixels, 3, components)
            bias[:, 1] = torch.linspace(-1, 1, components)
            bias[:, 2] = -2.0

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"pixelcnn": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=1e-2)}

    def from_above(self, blocks: Tensor) -> list[Tensor]:
        """The links from the vertical stack for blocks (N, D, h, w): one for the first map, then one for each layer."""
        above = self.network["above"](with_ones(blocks))
        links = [above]
        for layer in self.network["layers"]:
            above, link = layer.from_above(above)
            links.append(link)
        return links

    def context(self, blocks: Tensor) -> Tensor:
        """The context (N, width, h, w) of each of the blocks (N, D, h, w). It depends only on the blocks before it."""
        first, *links = self.from_above(blocks)
        left = self.network["left"](with_ones(blocks)) + first
        for layer, link in zip(self.network["layers"], links):
            left = layer(left, link)
        return left

    def nats(self, images: Tensor) -> Tensor:
        """Exact negative log probability (N,) in nats of images (N, C, H, W): grey levels scaled to [-1, 1]."""
        blocks = F.pixel_unshuffle(images, BLOCK)
        parameters = self.network["within"](self.context(blocks), blocks)
        return mixture_nats(parameters, ((blocks + 1) * 127.5).round()).flatten(1).sum(1)

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; returns the mean `nats` of an image."""
        nats = self.nats(images).mean()
        update("pixelcnn", nats / images[0].numel(), clip=1.0)
        return {"nats": nats}

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        The values are integer grey levels, scaled to [-1, 1]. The pixels are drawn one after another. The vertical
        stack is computed once for each row. In a row, only the columns that the last block has changed are computed.
        The random numbers are the same on every device. But a pixel that is rounded differently there changes the
        pixels after it.
        """
        self.eval()
        device = self.network["within"].before.device
        generator = torch.Generator().manual_seed(seed)
        height, width = (side // BLOCK for side in self.config["size"])
        blocks = torch.zeros(count, self.config["channels"] * BLOCK**2, height, width, device=device)
        for y in range(height):
            first, *links = (link[:, :, y:] for link in self.from_above(blocks[:, :, : y + 1]))
            row = blocks[:, :, y : y + 1]
            maps = [torch.zeros_like(first) for _ in links]
            for x in range(width):
                last = slice(max(0, x - 2), x + 1)
                left = self.network["left"](with_ones(row[..., last]))[..., -1:] + first[..., x : x + 1]
                for layer, link, known in zip(self.network["layers"], links, maps):
                    known[..., x : x + 1] = left
                    last = slice(max(0, x - 1), x + 1)
                    left = layer(known[..., last], link[..., last])[..., -1:]
                for k in range(len(blocks[0])):
                    parameters = self.network["within"](left, row[..., x : x + 1])[:, k, :, 0, 0]
                    row[:, k, 0, x] = sample_mixture(parameters.float().cpu(), generator).to(device)
        return F.pixel_shuffle(blocks, BLOCK).cpu()

    def export(self, path: str | Path) -> Path:
        """Write the network as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> PixelCNN:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


def with_ones(blocks: Tensor) -> Tensor:
    """Add a channel of ones to blocks (N, D, h, w). Outside the image it is 0, so the network can see the border."""
    return torch.cat([blocks, torch.ones_like(blocks[:, :1])], 1).contiguous(memory_format=torch.channels_last)


def sample_mixture(parameters: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one grey level from each mixture, (N,) in [-1, 1]. For the parameters (N, 3 K), see `mixture_nats`."""
    weights, means, log_scales = parameters.chunk(3, 1)
    chosen = torch.multinomial(weights.softmax(1), 1, generator=generator)
    mean, log_scale = means.gather(1, chosen), log_scales.clamp(min=MIN_LOG_SCALE).gather(1, chosen)
    uniform = torch.rand(mean.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    value = mean + log_scale.exp() * uniform.logit()
    return (((value[:, 0].clamp(-1, 1) + 1) * 127.5).round()) / 127.5 - 1
