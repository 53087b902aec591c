"""A GAN that begins with random weights, for one class or for several.

This is the GAN of Goodfellow et al. (2014) with the loss of Huang et al. (2024): the discriminator compares a real
image with a generated one, and its gradients at both are kept small. This lets a strong discriminator train for a long
time without driving some kinds of images out. Further parts:

1. Augmentation: the discriminator sees some images moved, turned, scaled or with another brightness (Karras et al.
   2020a), so that it does not learn the real images by heart.
2. Noise inputs in the generator (Karras et al. 2019), and a moving average of its weights (in the training loop).
3. The discriminator sees the generated images as they are saved: in whole grey levels. So the generator learns to make
   pixels that are exactly black, as in the real images.
4. Classes, if wanted: the generator gets the class as further channels of its latent, and the discriminator has one
   score for each class (Mescheder et al. 2018).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.augmentation import augment
from utils.models.blocks import Decoder
from utils.models.dcgan import CriticBlock
from utils.training import checkpoints, devices


class Discriminator(nn.Module):
    """Maps images (N, channels, H, W) to scores (N, outputs). A higher score means more real.

    It has no normalisation, so the score of an image does not depend on the other images of the batch.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        base: channels at full size; twice as many at half size, four times as many below.
    """

    def __init__(self, size: tuple[int, int], channels: int, base: int, outputs: int = 1):
        super().__init__()
        half, quarter = 2 * base, 4 * base
        last = [-(-side // 8) for side in size]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, base, 3, padding=1), CriticBlock(base), CriticBlock(base),
            nn.Conv2d(base, half, 4, stride=2, padding=1), CriticBlock(half), CriticBlock(half),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1), CriticBlock(quarter), CriticBlock(quarter),
            nn.Conv2d(quarter, quarter, 3, stride=2, padding=1), CriticBlock(quarter), nn.LeakyReLU(0.2),
            nn.Conv2d(quarter, 2 * quarter, tuple(last)), nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Linear(2 * quarter, outputs),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.contiguous(memory_format=torch.channels_last)).float()


def as_grey_levels(images: Tensor) -> Tensor:
    """Images (N, C, H, W), limited to [-1, 1] and rounded to the 256 grey levels, as they are saved.

    Rounding has no useful gradient. So the gradient of the identity function is used, as a straight-through estimator
    (Bengio et al. 2013).
    """
    with torch.no_grad():
        saved = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return images + (saved - images).detach()


class GAN(nn.Module):
    """Generator and discriminator, for `loop.fit`. The latents are standard normal.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: number of channels of an image.
        latent_channels: numbers at each position of the latent map.
        base: channels of the generator's largest hidden map.
        discriminator_base: channels of the discriminator's largest hidden map.
        classes: number of classes. With 0, the images have no classes.
        lr_generator, lr_discriminator: Adam's learning rates.
        penalty: weight of the squared gradients of the discriminator at real and at generated images.
        augmentation: probability of each augmentation; see `augment`.

    Raises:
        ValueError: a side is not divisible by 4.
    """

    ema_modules = ("generator",)

    def __init__(
        self,
        size: tuple[int, int] = (28, 28),
        channels: int = 1,
        latent_channels: int = 8,
        base: int = 40,
        discriminator_base: int = 32,
        classes: int = 0,
        lr_generator: float = 2e-4,
        lr_discriminator: float = 2e-4,
        penalty: float = 0.5,
        augmentation: float = 0.1,
    ):
        super().__init__()
        if size[0] % 4 or size[1] % 4:
            raise ValueError(f"image sides must be divisible by 4, not {size[0]}x{size[1]}")
        self.config = {
            "size": list(size), "channels": channels, "latent_channels": latent_channels, "base": base,
            "discriminator_base": discriminator_base, "classes": classes, "lr_generator": float(lr_generator),
            "lr_discriminator": float(lr_discriminator), "penalty": penalty, "augmentation": augmentation,
        }  # fmt: skip
        self.latent_shape = (latent_channels, size[0] // 4, size[1] // 4)
        self.generator = Decoder(latent_channels + classes, channels, base, noise=True)
        self.discriminator = Discriminator(size, channels, discriminator_base, max(1, classes))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = {"generator": self.config["lr_generator"], "discriminator": self.config["lr_discriminator"]}
        return {
            name: torch.optim.Adam(getattr(self, name).parameters(), rate, betas=(0.0, 0.99))
            for name, rate in rates.items()
        }

    def with_classes(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (N, C, h, w) with one more channel for each class. The channel of the label (N,) is 1."""
        classes = F.one_hot(labels, self.config["classes"]).to(latents)[:, :, None, None]
        return torch.cat([latents, classes.expand(-1, -1, *latents.shape[2:])], 1)

    def scores(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The discriminator's scores (N,) of images (N, C, H, W) with labels (N,), if there are classes."""
        scores = self.discriminator(images)
        return scores[:, 0] if labels is None else scores.gather(1, labels[:, None])[:, 0]

    def step(self, batch: Tensor | tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update of each network with the losses of Huang et al. (2024).

        Each real image is paired with a generated one of the same class. The discriminator's loss is small if the real
        one has the higher score, and the generator's loss if the generated one has. If the discriminator can only
        guess, both are log 2 = 0.69. `gradient` is the mean squared gradient of the score at real and at generated
        images. `ranked` is the share of pairs in which the real image has the higher score.

        Both updates use the same generated images.

        Args:
            batch: images (N, C, H, W) in [-1, 1], or images and labels int64 (N,) if there are classes.
        """
        images, labels = batch if self.config["classes"] else (batch, None)
        both = None if labels is None else labels.repeat(2)
        latents = torch.randn(len(images), *self.latent_shape, device=images.device)
        generated = self.generator(latents if labels is None else self.with_classes(latents, labels))
        generated = as_grey_levels(generated)
        probability = self.config["augmentation"]

        shown = augment(torch.cat([images, generated.detach()]), probability).requires_grad_()
        scores = self.scores(shown, both)
        (slope,) = torch.autograd.grad(scores.sum(), shown, create_graph=True)
        gradient = slope.float().square().sum((1, 2, 3)).mean()
        real, fake = scores.chunk(2)
        loss_d = F.softplus(fake - real).mean()
        update("discriminator", loss_d + self.config["penalty"] * gradient)

        self.discriminator.requires_grad_(False)  # its weights need no gradients here
        with torch.no_grad():
            against = self.scores(augment(images, probability), labels)
        loss_g = F.softplus(against - self.scores(augment(generated, probability), labels)).mean()
        update("generator", loss_g)
        self.discriminator.requires_grad_(True)
        ranked = (real > fake).float().mean()
        return {"discriminator": loss_d, "generator": loss_g, "gradient": gradient, "ranked": ranked}

    def sample_latents(self, count: int, seed: int = 0, label: int | None = None) -> Tensor:
        """Latents (count, C, h, w) on the CPU, the same for the same seed. With classes, they hold the class too.

        Args:
            label: the class of all images. Without it, each class has the same probability.
        """
        generator = torch.Generator().manual_seed(seed)
        latents, classes = torch.randn(count, *self.latent_shape, generator=generator), self.config["classes"]
        if not classes:
            return latents
        drawn = torch.randint(classes, (count,), generator=generator)
        return self.with_classes(latents, drawn if label is None else torch.full_like(drawn, label))

    def sample(self, count: int, seed: int = 0, label: int | None = None) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        Args:
            label: see `sample_latents`.
        """
        return self.decode(self.sample_latents(count, seed, label), seed)

    @torch.no_grad()
    def decode(self, latents: Tensor, seed: int = 0) -> Tensor:
        """Latents of `sample_latents` to images (N, C, H, W) in [-1, 1] on the CPU.

        Args:
            seed: seed of the generator's noise inputs.
        """
        self.eval()
        device = next(self.generator.parameters()).device
        with devices.seeded(seed):
            return torch.cat([self.generator(z.to(device)).clamp(-1, 1).cpu() for z in latents.split(500)])

    def export(self, path: str | Path) -> Path:
        """Write the generator as float16 safetensors. Returns the path."""
        return checkpoints.export_weights(path, nn.ModuleDict({"generator": self.generator}), self.config)

    @classmethod
    def from_weights(cls, path: str | Path) -> GAN:
        """A model for sampling, from a file that `export` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointDamaged: the file does not hold weights of this class.
        """
        config, tensors = checkpoints.read_weights(path)
        try:
            model = cls(**config)
            nn.ModuleDict({"generator": model.generator}).load_state_dict(tensors)
        except (TypeError, RuntimeError) as error:
            raise checkpoints.CheckpointDamaged(f"'{path}' holds no GAN of this project: {error}") from error
        return model.eval()
