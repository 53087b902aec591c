"""An autoregressive model: the distribution of each pixel, given all pixels before it (van den Oord et al. 2016).

This is a gated PixelCNN whose convolutions work on blocks of 2 x 2 pixels, at half the height and half the width. So a
layer needs a quarter of the computation, and its receptive field is twice as large. Causal attention between the
layers sees all earlier blocks (Chen et al. 2018). At the end, a small network predicts the pixels of a block one after
another. No pixels are assumed to be independent. The distribution of a pixel is a mixture of discretised logistics
(Salimans et al. 2017).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints

BLOCK = 2  # side of a block in pixels
LEVELS = 256  # grey levels
HEADS = 4  # of the attention
ATTENTION_EVERY = 2  # layers; after so many layers there is attention
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

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.above = CausalConv2d(width, 2 * width, (2, 3))
        self.left = CausalConv2d(width, 2 * width, (1, 2))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def from_above(self, above: Tensor) -> tuple[Tensor, Tensor]:
        """The next map of the vertical stack, and its link (N, 2 width, H, W) to the horizontal stack."""
        features = self.above(above)
        return above + self.dropout(gate(features)), self.link(features)

    def forward(self, left: Tensor, link: Tensor) -> Tensor:
        """The next map of the horizontal stack."""
        return left + self.out(self.dropout(gate(self.left(left) + link)))


class CausalAttention(nn.Module):
    """Self-attention of each place to itself and to all earlier places, added to a map (N, width, H, W).

    It is computed in float32, because its backward pass in bfloat16 is slow on a CPU.

    Args:
        places: H x W.
    """

    def __init__(self, width: int, places: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        self.inputs = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def parts(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, HEADS, P, width / HEADS) of the P places of a map, from place `first` on."""
        places = x.float().flatten(2).transpose(1, 2)
        inputs = self.norm(places) + self.place[first : first + places.shape[1]]
        return self.inputs(inputs).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        return x + self.out(attended.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.add(x, F.scaled_dot_product_attention(*self.parts(x, 0), is_causal=True))

    def at_place(self, x: Tensor, place: int, known: Tensor) -> Tensor:
        """The same for one place only, x (N, width, 1, 1). `known` (2, N, HEADS, places, width / HEADS) is filled."""
        query, known[0, :, :, place], known[1, :, :, place] = (part.squeeze(2) for part in self.parts(x, place))
        keys, values = known[:, :, :, : place + 1]
        return self.add(x, F.scaled_dot_product_attention(query[:, :, None], keys, values))


class BlockNetwork(nn.Module):
    """Predicts the pixels of a block one after another.

    Maps the context (N, width, H, W) and the pixels (N, D, H, W) of blocks to the parameters (N, D, outputs, H, W) of
    each pixel's distribution. The parameters of pixel k depend on the context, on the pixels before k, and on whether
    these are black. Each pixel has its own weights.
    """

    def __init__(self, pixels: int, width: int, hidden: int, outputs: int):
        super().__init__()
        self.context = nn.Linear(width, pixels * hidden)
        self.before = nn.Parameter(torch.randn(pixels, hidden, 2 * pixels) / pixels)
        self.register_buffer("order", torch.ones(pixels, pixels).tril(-1).repeat(1, 2)[:, None], persistent=False)
        self.layer = nn.Parameter(torch.randn(pixels, hidden, hidden) / math.sqrt(hidden))
        self.layer_bias = nn.Parameter(torch.zeros(pixels, 1, hidden))
        self.head = nn.Parameter(torch.randn(pixels, hidden, outputs) / math.sqrt(3 * hidden))
        self.head_bias = nn.Parameter(torch.zeros(pixels, 1, outputs))

    def forward(self, context: Tensor, pixels: Tensor) -> Tensor:
        places, count = context.permute(0, 2, 3, 1), len(self.before)  # (N, H, W, width)
        weight = (self.before * self.order).flatten(0, 1)
        before = torch.cat([pixels, is_black(pixels)], 1).permute(0, 2, 3, 1)
        hidden = F.silu(self.context(places) + F.linear(before, weight))
        hidden = hidden.unflatten(-1, (count, -1)).flatten(0, 2).transpose(0, 1)  # (D, N H W, hidden)
        hidden = F.silu(hidden + torch.baddbmm(self.layer_bias, hidden, self.layer))
        # In bfloat16, a mean near -1 would be off by half a grey level
        with torch.autocast(hidden.device.type, enabled=False):
            parameters = torch.baddbmm(self.head_bias, hidden.float(), self.head)
        return parameters.transpose(0, 1).unflatten(0, places.shape[:3]).permute(0, 3, 4, 1, 2)


def is_black(images: Tensor) -> Tensor:
    """1 where an image in [-1, 1] is exactly black, and 0 elsewhere. Half of a garment's pixels are black."""
    return (images <= -1).to(images.dtype)


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
        dropout: dropout rate in the gated layers.
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
        dropout: float = 0.1,
        lr: float = 1e-3,
    ):
        super().__init__()
        if size[0] % BLOCK or size[1] % BLOCK:
            raise ValueError(f"image sides must be divisible by {BLOCK}, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "width": width, "layers": layers, "hidden": hidden,
            "components": components, "dropout": dropout, "lr": lr,
        }  # fmt: skip
        pixels, places = channels * BLOCK**2, size[0] * size[1] // BLOCK**2
        self.network = nn.ModuleDict(
            {
                "above": CausalConv2d(2 * pixels + 1, width, (2, 3), strict=True),
                "left": CausalConv2d(2 * pixels + 1, width, (1, 2), strict=True),
                "layers": nn.ModuleList(GatedLayer(width, dropout) for _ in range(layers)),
                "attentions": nn.ModuleList(CausalAttention(width, places) for _ in range(layers // ATTENTION_EVERY)),
                "within": BlockNetwork(pixels, width, hidden, 3 * components),
            }
        )
        with torch.no_grad():  # the first means lie evenly over the grey range
            bias = self.network["within"].head_bias.view(pixels, 3, components)
            bias[:, 1] = torch.linspace(-1, 1, components)
            bias[:, 2] = -2.0

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"pixelcnn": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=1e-2)}

    def attention_after(self, layer: int) -> CausalAttention | None:
        """The attention that follows the layer with this number, if any."""
        number, rest = divmod(layer + 1, ATTENTION_EVERY)
        return None if rest else self.network["attentions"][number - 1]

    def context(self, blocks: Tensor) -> Tensor:
        """The context (N, width, h, w) of each of the blocks (N, D, h, w). It depends only on the blocks before it."""
        inputs = network_inputs(blocks)
        above = self.network["above"](inputs)
        left = self.network["left"](inputs) + above
        for number, layer in enumerate(self.network["layers"]):
            above, link = layer.from_above(above)
            left = layer(left, link)
            if attention := self.attention_after(number):
                left = attention(left)
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
    def sample(self, count: int, seed: int = 0, batch_size: int = 500) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        The values are integer grey levels, scaled to [-1, 1]. The pixels are drawn one after another. The random
        numbers are the same on every device. But a pixel that is rounded differently there changes the pixels after it.
        """
        self.eval()
        height, width = (side // BLOCK for side in self.config["size"])
        shape = (2, count, self.config["channels"] * BLOCK**2, height, width)
        uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        device = self.network["within"].before.device
        blocks = [self.sample_blocks(part.to(device)).cpu() for part in uniform.split(batch_size, 1)]
        return F.pixel_shuffle(torch.cat(blocks), BLOCK)

    def sample_blocks(self, uniform: Tensor) -> Tensor:
        """Blocks (N, D, h, w) from uniform random numbers (2, N, D, h, w), see `sample_mixture`.

        Nothing is computed twice, except for one row and one column: each layer keeps its last row, and in the row, its
        last column. The attentions keep their keys and values.
        """
        layers, features = self.network["layers"], self.config["width"]
        blocks = torch.zeros_like(uniform[0])
        count, pixels, height, width = blocks.shape
        kept = (2, count, HEADS, height * width, features // HEADS)
        known = [blocks.new_zeros(kept) for _ in self.network["attentions"]]
        rows = [blocks.new_zeros(count, features, 1, width) for _ in layers]  # the row above the current one
        for y in range(height):
            last = slice(max(0, y - 2), y + 1)
            above = self.network["above"](network_inputs(blocks[:, :, last]))[:, :, -1:]
            first, links = above, []
            for number, layer in enumerate(layers):
                strip = torch.cat([rows[number], above], 2)
                rows[number] = above
                above, link = (part[:, :, -1:] for part in layer.from_above(strip))
                links.append(link)
            row = blocks[:, :, y : y + 1]
            maps = [torch.zeros_like(first) for _ in layers]
            for x in range(width):
                last = slice(max(0, x - 2), x + 1)
                left = self.network["left"](network_inputs(row[..., last]))[..., -1:] + first[..., x : x + 1]
                for number, layer in enumerate(layers):
                    maps[number][..., x : x + 1] = left
                    last = slice(max(0, x - 1), x + 1)
                    left = layer(maps[number][..., last], links[number][..., last])[..., -1:]
                    if attention := self.attention_after(number):
                        left = attention.at_place(left, y * width + x, known[number // ATTENTION_EVERY])
                for k in range(pixels):
                    parameters = self.network["within"](left, row[..., x : x + 1])[:, k : k + 1]
                    row[:, k : k + 1, :, x : x + 1] = sample_mixture(
                        parameters, uniform[:, :, k : k + 1, y : y + 1, x : x + 1]
                    )
        return blocks

    def export(self, path: str | Path) -> Path:
        """Write the network as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> PixelCNN:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)


def network_inputs(blocks: Tensor) -> Tensor:
    """The blocks (N, D, h, w), where they are black, and a channel of ones: (N, 2 D + 1, h, w).

    Outside the image this channel is 0, so the network can see the border.
    """
    inputs = torch.cat([blocks, is_black(blocks), torch.ones_like(blocks[:, :1])], 1)
    return inputs.contiguous(memory_format=torch.channels_last)


def sample_mixture(parameters: Tensor, uniform: Tensor) -> Tensor:
    """Draw one grey level from each mixture, (N, D, H, W) in [-1, 1].

    Args:
        parameters: (N, D, 3 K, H, W), see `mixture_nats`.
        uniform: random numbers (2, N, D, H, W) in [0, 1): for the choice of the logistic, and for the value.
    """
    weights, means, log_scales = parameters.float().chunk(3, 2)
    beyond = weights.softmax(2).cumsum(2) < uniform[0][:, :, None]
    chosen = beyond.sum(2, keepdim=True).clamp(max=weights.shape[2] - 1)
    mean, log_scale = (part.gather(2, chosen)[:, :, 0] for part in (means, log_scales.clamp(min=MIN_LOG_SCALE)))
    value = mean + log_scale.exp() * uniform[1].clamp(1e-6, 1 - 1e-6).logit()
    return ((value.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
