"""A GAN of residual blocks that begins with random weights: the opponent of the GAN that begins with a VAE.

It differs from `DCGAN` in its generator only. Batch normalisation makes an image depend on the other images of its
batch. From random weights, a generator with it stagnated here, so this one has group normalisation (Wu & He 2018).
"""

from __future__ import annotations

from torch import Tensor, nn

from utils.models.blocks import Noise, SelfAttention, group_norm
from utils.models.dcgan import DCGAN
from utils.models.vae import VAE


class GeneratorBlock(nn.Module):
    """A residual block: normalisation, activation and convolution, twice (He et al. 2016), with noise between them.

    Maps (N, C, H, W) to the same shape. The last convolution begins at zero, so at first the block does nothing
    (Zhang et al. 2019).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            group_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), Noise(channels),
            group_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResidualGenerator(nn.Module):
    """Maps latents (N, latent_dim) to images (N, channels, H, W).

    The latents are a small map of a quarter of the image's size. There, the parts of an image are fitted together by
    self-attention; two steps then double the size.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        latent_dim: a multiple of H / 4 times W / 4.
        base: channels at full size; twice as many at half size, four times as many at a quarter.

    Raises:
        ValueError: `latent_dim` is no such multiple.
    """

    def __init__(self, size: tuple[int, int], channels: int, latent_dim: int, base: int):
        super().__init__()
        height, width, half, quarter = size[0] // 4, size[1] // 4, 2 * base, 4 * base
        if latent_dim % (height * width):
            raise ValueError(f"latent_dim is {latent_dim}, but must be a multiple of {height * width}")
        self.map_shape = (latent_dim // (height * width), height, width)
        self.layers = nn.Sequential(
            nn.Conv2d(self.map_shape[0], quarter, 3, padding=1),
            GeneratorBlock(quarter), SelfAttention(quarter), GeneratorBlock(quarter),
            nn.Upsample(scale_factor=2), nn.Conv2d(quarter, half, 3, padding=1),
            GeneratorBlock(half), GeneratorBlock(half),
            nn.Upsample(scale_factor=2), nn.Conv2d(half, base, 3, padding=1),
            GeneratorBlock(base), GeneratorBlock(base),
            group_norm(base), nn.SiLU(), nn.Conv2d(base, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents.view(-1, *self.map_shape))


class ResidualGAN(DCGAN):
    """`DCGAN` with a `ResidualGenerator`; the arguments are the same. Its latents are always normal noise."""

    def __init__(self, size: tuple[int, int] = (32, 32), channels: int = 1, latent_dim: int = 256, **settings):
        super().__init__(size, channels, latent_dim, **settings)
        self.generator = ResidualGenerator(size, channels, latent_dim, self.config["base"])

    def start_from(self, vae: VAE, images_seen: int) -> None:
        """A VAE's decoder has other layers, so this GAN cannot begin with one."""
        raise ValueError("a ResidualGAN begins with random weights, not with a VAE")
