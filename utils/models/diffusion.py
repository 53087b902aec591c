"""A diffusion model: noise is added to images step by step, and a network learns to remove it (Ho et al. 2020).

The U-Net and the samplers come from the library `diffusers`. The loss and the sampling loop are here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.training import checkpoints, devices

SCHEDULERS = {"ddim": 0.0, "ddpm": 0.999}  # eta, the share of new noise; with 1, rounding leads to the root of -1e-8
NOISE_LEVELS = 1000


def randn_tensor(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Normal noise (N, ...). Each image has its own generator, so its noise does not depend on the batch."""
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in generators])


class AttentionInFloat32:
    """An attention processor of `diffusers` that computes in float32 on a CPU.

    On a CPU, its backward pass took eight times as long in bfloat16.

    Args:
        processor: the processor of `diffusers` that computes the attention.
    """

    def __init__(self, processor: Callable):
        self.processor = processor

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None) -> Tensor:
        others = {"encoder_hidden_states": encoder_hidden_states, "attention_mask": attention_mask, "temb": temb}
        if hidden_states.device.type != "cpu":
            return self.processor(attn, hidden_states, **others)
        with torch.autocast("cpu", enabled=False):
            return self.processor(attn, hidden_states.float(), **others)


class Diffusion(nn.Module):
    """The network with its loss, its sampler and its optimiser, for `loop.fit`.

    The network predicts the velocity (Salimans & Ho 2022). The noise schedule is the cosine schedule (Nichol & Dhariwal
    2021). Blocks of `fold` x `fold` pixels become channels before the network and pixels after it. This loses no
    information and saves most of the computation (Luhman & Luhman 2022).

    Args:
        size: (height, width) of an image in pixels, each divisible by fold x 2 ** (levels - 1).
        channels: number of channels of an image.
        widths: channels at each level of the U-Net; the last level has self-attention.
        layers: residual blocks in each level.
        fold: see above.
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
        dropout: float = 0.1,
        lr: float = 5e-4,
    ):
        super().__init__()
        from diffusers import DDIMScheduler, UNet2DModel  # here, because this import takes seconds
        from diffusers.models.attention_processor import Attention

        step = fold * 2 ** (len(widths) - 1)
        if size[0] % step or size[1] % step:
            raise ValueError(f"image sides must be divisible by {step}, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "widths": list(widths), "layers": layers, "fold": fold,
            "dropout": dropout, "lr": lr,
        }  # fmt: skip
        self.network = UNet2DModel(
            sample_size=(size[0] // fold, size[1] // fold),
            in_channels=channels * fold**2,
            out_channels=channels * fold**2,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * (len(widths) - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (len(widths) - 1),
            layers_per_block=layers,
            attention_head_dim=24,
            norm_num_groups=12,
            dropout=dropout,
        )
        for module in self.network.modules():
            if isinstance(module, Attention):
                module.set_processor(AttentionInFloat32(module.processor))
        self.scheduler = DDIMScheduler(
            NOISE_LEVELS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            timestep_spacing="trailing",  # the first step is pure noise (Lin et al. 2024)
            rescale_betas_zero_snr=True,
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"diffusion": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=1e-2)}

    def velocity(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """The predicted velocity (N, C, H, W) of noisy images (N, C, H, W) at noise levels (N,) in 0 ... 999."""
        fold = self.config["fold"]
        return F.pixel_shuffle(self.network(F.pixel_unshuffle(noisy, fold), levels).sample.float(), fold)

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1]; `velocity` is the mean squared error."""
        loss = self.loss(images)
        update("diffusion", loss, clip=1.0)
        return {"velocity": loss}

    def loss(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the velocity. With the same generator seed, the losses of two models are comparable."""
        device = next(self.network.parameters()).device
        images, source = images.to(device), devices.drawn_on(generator, device)
        noise = torch.randn(images.shape, generator=generator, device=source).to(device)
        levels = torch.randint(NOISE_LEVELS, (len(images),), generator=generator, device=source).to(device)
        noisy = self.scheduler.add_noise(images, noise, levels)
        return F.mse_loss(self.velocity(noisy, levels), self.scheduler.get_velocity(images, noise, levels))

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
            steps: evaluations of the network for each image; a divisor of 1000, such as 10, 25, 40 or 50.
            batch_size: number of images that are made at a time.
            scheduler: `ddim` uses only the noise at the start (Song et al. 2021). `ddpm` adds new noise in each step;
                it is DDIM with eta = 1.
            temperature: factor on all noise, in [0, 1]. Smaller values give more typical and less diverse images; with
                0, all images are the same.

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
        if steps < 1 or NOISE_LEVELS % steps:  # otherwise the library's steps would miss some levels
            raise ValueError(f"steps is {steps}, but must divide {NOISE_LEVELS}, for example 10, 25, 40, 50 or 100")
        self.eval()
        device = next(self.network.parameters()).device
        shape = (self.config["channels"], *self.config["size"])
        self.scheduler.set_timesteps(steps)
        eta = SCHEDULERS[scheduler]
        batches = []
        for start in range(0, count, batch_size):
            members = range(start, min(start + batch_size, count))
            own = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in members]
            x = temperature * randn_tensor((len(members), *shape), own).to(device)
            for level in self.scheduler.timesteps:
                velocity = self.velocity(x, torch.full((len(x),), int(level), device=device))
                fresh = temperature * randn_tensor(x.shape, own).to(device) if eta else None
                x = self.scheduler.step(velocity, level, x, eta=eta, variance_noise=fresh).prev_sample
            batches.append(x.float().clamp(-1, 1).cpu())
        return torch.cat(batches)

    def export(self, path: str | Path) -> Path:
        """Write the network as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, self, self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> Diffusion:
        """A model from a file that `export` wrote. For the errors, see `checkpoints.load_weights`."""
        return checkpoints.load_weights(path, cls)
