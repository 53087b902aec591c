"""A diffusion model: noise is added to images step by step, and a network learns to remove it (Ho et al. 2020).

At the lowest noise level, the network also predicts the distribution of each pixel's grey level. The last step of
sampling draws from it. So the model itself says which pixels are exactly black, and its bound has no other parts.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.pixelcnn import mixture_nats, sample_mixture
from utils.models.unet import UNet
from utils.training import checkpoints, devices

SCHEDULERS = {"ddim": 0.0, "ddpm": 1.0}  # eta, the share of new noise in each step of sampling
NOISE_LEVELS = 1000
LOWEST = 19  # the lowest noise level that is used; its noise has a standard deviation of 0.04, or 5 grey levels
DECODED = 8  # one of so many images in a batch has the lowest level, if the grey levels are predicted there
GREY_WEIGHT = 0.15  # weight of the grey levels in the loss; then both parts of it are in the proportion of the bound


def noise_schedule() -> Tensor:
    """The image's share of the variance (NOISE_LEVELS,) at each noise level; it falls from almost 1 to 0.

    This is the cosine schedule (Nichol & Dhariwal 2021). It is changed so that the last level is pure noise (Lin et al.
    2024).
    """
    share = torch.cos((torch.arange(NOISE_LEVELS + 1).double() / NOISE_LEVELS + 0.008) / 1.008 * math.pi / 2) ** 2
    root = (share[1:] / share[:-1]).clamp(min=0.001).cumprod(0).sqrt()
    return (((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2).float()


def draw_levels(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Noise levels int64 (count,) for the images of a batch: half evenly spaced, half on a logarithmic scale.

    The low levels hold most of the likelihood, and the high levels hold the shapes.
    """
    number = torch.arange(count, device=device)
    place = (torch.rand(1, generator=generator, device=device) + number / count) % 1
    even, log = LOWEST + place * (NOISE_LEVELS - LOWEST), LOWEST * (NOISE_LEVELS / LOWEST) ** place
    return torch.where(number % 2 == 0, even, log).long().clamp(max=NOISE_LEVELS - 1)


def normal(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Normal noise (N, ...). Each image has its own generator, so its noise does not depend on the batch."""
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])


class Diffusion(nn.Module):
    """The network with its loss, its sampler and its optimiser, for `loop.fit`.

    The network predicts the velocity (Salimans & Ho 2022).

    Args:
        size: (height, width) of an image in pixels, each divisible by fold x 2 ** (levels - 1).
        channels: number of channels of an image.
        widths: channels at each level of the U-Net, multiples of 24; the last level has self-attention.
        layers: residual blocks in each level.
        fold: blocks of `fold` x `fold` pixels become channels before the network and pixels after it. A fold of 2 saves
            most of the computation, but neighbouring pixels get different weights.
        components: number of logistics in the distribution of a pixel's grey level. With 0, there is no such
            distribution: the samples are the predicted images, and there is no bound.
        dropout: dropout rate in the residual blocks.
        lr: AdamW's learning rate.

    Raises:
        ValueError: a side is not divisible as above.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        size: tuple[int, int] = (64, 64),
        channels: int = 1,
        widths: tuple[int, ...] = (48, 72, 96),
        layers: int = 1,
        fold: int = 2,
        components: int = 0,
        dropout: float = 0.1,
        lr: float = 5e-4,
    ):
        super().__init__()
        step = fold * 2 ** (len(widths) - 1)
        if size[0] % step or size[1] % step:
            raise ValueError(f"image sides must be divisible by {step}, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "widths": list(widths), "layers": layers, "fold": fold,
            "components": components, "dropout": dropout, "lr": lr,
        }  # fmt: skip
        pixels = channels * fold**2
        self.network = UNet(pixels, pixels * (1 + 3 * components), widths, layers, dropout)
        self.register_buffer("signal", noise_schedule(), persistent=False)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"diffusion": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=1e-2)}

    def factors(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The factors (N, 1, 1, 1) of image and noise in noisy images at noise levels (N,) in 0 ... 999."""
        signal = self.signal[levels].view(-1, 1, 1, 1)
        return signal.sqrt(), (1 - signal).sqrt()

    def outputs(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the network predicts: the velocity (N, C, H, W), and then the parameters of the grey levels."""
        fold = self.config["fold"]
        return F.pixel_shuffle(self.network(F.pixel_unshuffle(noisy, fold), levels).float(), fold)

    def velocity(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """The predicted velocity (N, C, H, W) of noisy images (N, C, H, W) at noise levels (N,)."""
        return self.outputs(noisy, levels)[:, : self.config["channels"]]

    def predict_x0(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """The image (N, C, H, W) in [-1, 1] that the network predicts from a noisy image."""
        image, noise = self.factors(levels)
        return (image * noisy - noise * self.velocity(noisy, levels)).clamp(-1, 1)

    def mixtures(self, noisy: Tensor, outputs: Tensor) -> Tensor:
        """The parameters (N, C, 3 K, H, W) of each pixel's grey level, see `mixture_nats`. The level is LOWEST.

        The network predicts them relative to the predicted image, in units of the standard deviation of the noise.
        """
        channels = self.config["channels"]
        image, noise = self.factors(torch.full((1,), LOWEST, device=noisy.device))
        x0 = (image * noisy - noise * outputs[:, :channels].detach())[:, :, None]
        weights, means, log_scales = outputs[:, channels:].unflatten(1, (channels, -1)).chunk(3, 2)
        return torch.cat([weights, x0 + noise[..., None] * means, log_scales + noise.log()[..., None] - 1], 2)

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; for the losses, see `losses`."""
        losses = self.losses(images)
        update("diffusion", losses["velocity"] + GREY_WEIGHT * losses.get("grey_nats", 0.0), clip=1.0)
        return losses

    def losses(self, images: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Mean squared error of the velocity, and mean nats of a grey level at the lowest noise level, if predicted.

        With the same generator seed, the losses of two models are comparable.
        """
        device = next(self.network.parameters()).device
        images, source = images.to(device), devices.drawn_on(generator, device)
        noise = torch.randn(images.shape, generator=generator, device=source).to(device)
        levels = draw_levels(len(images), generator, source).to(device)
        if self.config["components"]:
            levels[::DECODED] = LOWEST
        image_factor, noise_factor = self.factors(levels)
        noisy = image_factor * images + noise_factor * noise
        outputs = self.outputs(noisy, levels)
        wanted = image_factor * noise - noise_factor * images
        losses = {"velocity": F.mse_loss(outputs[:, : images.shape[1]], wanted)}
        if self.config["components"]:
            few = slice(None, None, DECODED)
            losses["grey_nats"] = self.grey_nats(images[few], noisy[few], outputs[few]).mean()
        return losses

    def grey_nats(self, images: Tensor, noisy: Tensor, outputs: Tensor) -> Tensor:
        """Negative log probabilities (N, C, H, W) in nats of grey levels in [-1, 1]. The level is LOWEST."""
        return mixture_nats(self.mixtures(noisy, outputs), ((images + 1) * 127.5).round())

    @torch.no_grad()
    def sample(
        self,
        count: int,
        seed: int = 0,
        steps: int = 50,
        batch_size: int = 100,
        scheduler: str = "ddim",
        temperature: float = 1.0,
    ) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed and any batch size.

        They are computed in float32 on every device, so that a seed gives the same images everywhere. On a CPU with
        fast bfloat16 this takes twice as long, but bfloat16 would change a pixel by up to seven grey levels.

        Args:
            steps: evaluations of the network for each image, from 2 to 981. The noise levels are evenly spaced.
            batch_size: number of images that are made at a time.
            scheduler: `ddim` uses only the noise at the start (Song et al. 2021). `ddpm` adds new noise in each step.
            temperature: factor on all noise, in [0, 1]. Smaller values give more typical and less diverse images; with
                0, all images are the same, except for the drawn grey levels.

        Raises:
            ValueError: an argument is out of its range.
        """
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler is '{scheduler}', but must be one of {', '.join(SCHEDULERS)}")
        if count < 1 or batch_size < 1 or not 0 <= temperature <= 1:
            raise ValueError(
                "count and batch_size must be at least 1, and temperature in [0, 1]; "
                f"they are {count}, {batch_size} and {temperature}"
            )
        if not 2 <= steps <= NOISE_LEVELS - LOWEST:
            raise ValueError(f"steps is {steps}, but must be from 2 to {NOISE_LEVELS - LOWEST}")
        self.eval()
        device = next(self.network.parameters()).device
        shape = (self.config["channels"], *self.config["size"])
        levels = torch.linspace(NOISE_LEVELS - 1, LOWEST, steps).round().long().tolist()
        batches = []
        for start in range(0, count, batch_size):
            members = range(start, min(start + batch_size, count))
            own = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in members]
            x = temperature * normal((len(members), *shape), own).to(device)
            for level, after in zip(levels, levels[1:]):
                fresh = temperature * normal(x.shape, own).to(device) if SCHEDULERS[scheduler] else None
                x = self.less_noise(x, level, after, fresh)
            batches.append(self.last_step(x, own).cpu())
        return torch.cat(batches)

    def less_noise(self, noisy: Tensor, level: int, after: int, fresh: Tensor | None) -> Tensor:
        """One step of sampling, from noise level `level` to the lower level `after` (Song et al. 2021, equation 12).

        Args:
            fresh: new noise (N, C, H, W). With it, this is a step of DDPM, otherwise of DDIM.
        """
        here = torch.full((len(noisy),), level, device=noisy.device)
        (image, noise), (next_image, next_noise) = self.factors(here), self.factors(torch.full_like(here, after))
        x0 = self.predict_x0(noisy, here)
        same = (noisy - image * x0) / noise  # the noise that is in the image, so that x0 and noise give the image
        if fresh is None:
            return next_image * x0 + next_noise * same
        new = next_noise / noise * (1 - (image / next_image) ** 2).sqrt()
        return next_image * x0 + (next_noise**2 - new**2).clamp(min=0).sqrt() * same + new * fresh

    def last_step(self, noisy: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from noisy images at the level LOWEST: drawn grey levels or the prediction."""
        levels = torch.full((len(noisy),), LOWEST, device=noisy.device)
        if not self.config["components"]:
            return self.predict_x0(noisy, levels)
        uniform = torch.stack([torch.rand(2, *noisy.shape[1:], generator=own) for own in generators], 1)
        mixtures = self.mixtures(noisy, self.outputs(noisy, levels))
        return sample_mixture(mixtures, uniform.to(noisy.device))

    def export(self, path: str | Path) -> Path:
        """Write the network as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Diffusion:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)
