"""A convolutional GAN for small images and small data sets.

This is the GAN of Goodfellow et al. (2014) with the generator of Radford et al. (2016) and the loss of Huang et al.
(2024): the discriminator compares a real image with a generated one, and its gradients at both are kept small. This
lets a strong discriminator train for a long time without driving some kinds of images out. Further parts:

1. A warm start: the generator begins as the decoder of a trained VAE, and its latents come from the VAE's prior. The
   VAE makes every kind of hand, because it maximises a likelihood. The GAN only has to make the images sharper.
   (Larsen et al. 2016 train a VAE and a GAN together.)
2. Augmentation: the discriminator sees some images moved, turned, scaled or with another brightness (Karras et al.
   2020). So it cannot learn the few thousand real images by heart.
3. Noise inputs in the generator (Karras et al. 2019) and a moving average of its weights (in the training loop).
4. `jpeg_quality`: the discriminator gets the generated images as JPEGs, because the real images are JPEGs too.
5. `anchor`: at low resolution, the image stays close to the VAE's image or to its real one. So only details change.
6. Own pairs: a real image can be paired with one that is generated from its own latents. Both get the same
   augmentation. So the discriminator sees what the generator does wrong, and not two different images.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.data import image_files
from utils.models.augmentation import as_jpeg, augment, augment_pairs, jpeg_table
from utils.models.blocks import Upsampler
from utils.models.classifier import Detector
from utils.models.latent_flow import LatentFlow
from utils.models.vae import VAE, cosine_matrix
from utils.training import checkpoints, devices


def coarse(images: Tensor) -> Tensor:
    """Means of blocks of 4 x 4 pixels: (N, C, H, W) to (N, C, H / 4, W / 4)."""
    return F.avg_pool2d(images, 4)


def best_of_neighbours(images: Tensor, scores: Tensor, count: int, spare: int = 0) -> Tensor:
    """Indices (count,) of images with high scores, with little loss of variety.

    The first `count + spare` images (N, C, H, W) are the centres of groups. Each other image joins the group of the
    nearest centre, at low resolution. The image with the highest score (N,) of each group is its best. The best ones
    are returned in the order of the centres, without the `spare` lowest of them. (Azadi et al. 2019 choose among all
    images at once.)
    """
    centres = count + spare
    points = coarse(images).flatten(1)
    group = torch.cdist(points, points[:centres]).argmin(1)
    group[:centres] = torch.arange(centres)
    best = torch.arange(centres)
    for index in scores.argsort(stable=True).tolist():  # the last one of each group is its best
        best[group[index]] = index
    return best[scores[best].argsort(descending=True, stable=True)[:count].sort().values]


class CriticBlock(nn.Module):
    """A residual block without normalisation. Its last convolution begins at zero (Zhang et al. 2019).

    Maps (N, C, H, W) to the same shape.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )  # fmt: skip
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Discriminator(nn.Module):
    """Maps images (N, channels, H, W) to scores (N,). A higher score means more real.

    It has no normalisation, so the score of an image does not depend on the other images of the batch.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        base: channels at full size; twice as many at half size, four times as many below.
    """

    def __init__(self, size: tuple[int, int], channels: int, base: int):
        super().__init__()
        half, quarter = 2 * base, 4 * base
        last = [-(-side // 8) for side in size]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, base, 3, padding=1), CriticBlock(base), CriticBlock(base),
            nn.Conv2d(base, half, 4, stride=2, padding=1), CriticBlock(half), CriticBlock(half),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1), CriticBlock(quarter), CriticBlock(quarter),
            nn.Conv2d(quarter, quarter, 3, stride=2, padding=1), CriticBlock(quarter), nn.LeakyReLU(0.2),
            nn.Conv2d(quarter, 2 * quarter, tuple(last)), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * quarter, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.contiguous(memory_format=torch.channels_last)).float().squeeze(1)


class DCGAN(nn.Module):
    """Generator, discriminator and the distribution of the latents.

    Latents are standard normal; after `start_from` they come from a VAE's prior.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: number of channels of an image.
        latent_dim: length of a latent.
        base: channels of the generator's largest hidden map.
        discriminator_base: channels of the discriminator's largest hidden map.
        lr_generator, lr_discriminator: Adam's learning rates.
        penalty: weight of the squared gradients of the discriminator at real and at generated images.
        augmentation: probability of each augmentation; see `augment`.
        anchor: after `start_from`, weight of the squared difference from the VAE's image of the same latent, or from
            the real image of a pair. Both images are averaged over blocks of 4 x 4 pixels.
        jpeg_quality: quality of the JPEG files that the images will be saved as; None if they are not saved as JPEGs.

    Raises:
        ValueError: `jpeg_quality` is given for colour images.
    """

    ema_modules = ("generator",)
    OWN_PAIRS = 0.5  # share of the real images that are compared with one that is generated from their own latents
    CANDIDATES, ROUND, SPARE = 8, 300, 30  # a round makes 8 x 300 images in 330 groups, and chooses 300
    LATENT_BANK_SIZE = 10_000  # at most this many latents of the prior are used in training; drawing them is slow

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: int = 1,
        latent_dim: int = 64,
        base: int = 32,
        discriminator_base: int = 24,
        lr_generator: float = 5e-5,
        lr_discriminator: float = 2e-4,
        penalty: float = 0.5,
        augmentation: float = 0.3,
        anchor: float = 10.0,
        jpeg_quality: int | None = None,
    ):
        super().__init__()
        if jpeg_quality and channels != 1:
            raise ValueError("jpeg_quality is for grey images; colour JPEGs are quantised differently")
        self.config = {
            "size": list(size), "channels": channels, "latent_dim": latent_dim, "base": base,
            "discriminator_base": discriminator_base, "lr_generator": lr_generator,
            "lr_discriminator": lr_discriminator, "penalty": penalty, "augmentation": augmentation, "anchor": anchor,
            "jpeg_quality": jpeg_quality,
        }  # fmt: skip
        self.rates = {"generator": float(lr_generator), "discriminator": float(lr_discriminator)}
        self.generator = Upsampler(size, channels, latent_dim, base, noise=True)
        self.discriminator = Discriminator(size, channels, discriminator_base)
        self.start = "random weights"
        self.prior: LatentFlow | None = None
        self.selector: Detector | None = None  # chooses among candidates in `sample`
        constants = {
            "latent_bank": None,  # latents of the prior
            "latent_bank_coarse": None,  # the VAE's images of them, averaged over 4 x 4 pixels
            "table": jpeg_table(jpeg_quality) if jpeg_quality else None,
            "transform": cosine_matrix(8) if jpeg_quality else None,
        }
        for name, constant in constants.items():  # they move to the device with the model, but are not weights
            self.register_buffer(name, constant, persistent=False)

    def start_from(self, vae: VAE, images_seen: int) -> None:
        """Begin with the decoder of a trained VAE as the generator, and with its prior for the latents.

        After that, `self.start` identifies both. Add it to the configuration of a run.

        Args:
            images_seen: number of images that the next training sees; it needs no more latents of the prior than
                this.

        Raises:
            ValueError: the VAE has another size, channels, latent_dim or base.
        """
        for name in ("size", "channels", "latent_dim", "base"):
            if vae.config[name] != self.config[name]:
                raise ValueError(f"the VAE has {name} {vae.config[name]}, but this GAN has {self.config[name]}")
        self.generator.copy_from(vae.decoder)
        self.prior = copy.deepcopy(vae.prior).requires_grad_(False)
        self.latent_bank = vae.prior.latent_bank(min(images_seen, self.LATENT_BANK_SIZE))
        self.latent_bank_coarse = coarse(vae.decode(self.latent_bank))
        self.start = checkpoints.fingerprint(vae.decoder, vae.prior)

    def draw_latents(self, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Latents (count, latent_dim) for a training step, and the VAE's coarse images (count, C, H / 4, W / 4).

        The latents are drawn with the global random state. Without a VAE, the second value is None.
        """
        if self.latent_bank is None:
            return torch.randn(count, self.config["latent_dim"], device=device), None
        chosen = torch.randint(len(self.latent_bank), (count,), device=device)
        return self.latent_bank[chosen], self.latent_bank_coarse[chosen]

    def draw_pairs(self, images: Tensor, posteriors: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (N, latent_dim) for a training step on pairs, and coarse images (N, C, H / 4, W / 4).

        For OWN_PAIRS of the images (N, C, H, W), the latents are drawn from their posteriors (N, 2 * latent_dim), and
        the coarse images are their own. The others come from `draw_latents`, which needs a VAE here.
        """
        own = round(self.OWN_PAIRS * len(images))
        mean, log_var = posteriors[:own].chunk(2, dim=1)
        latents = mean + torch.randn_like(mean) * (log_var / 2).exp()
        others, of_others = self.draw_latents(len(images) - own, images.device)
        return torch.cat([latents, others]), torch.cat([coarse(images[:own]), of_others])

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(getattr(self, name).parameters(), rate, betas=(0.0, 0.99))
            for name, rate in self.rates.items()
        }

    def as_saved(self, images: Tensor) -> Tensor:
        """Generated images (N, C, H, W) as they will be saved: as JPEGs if `jpeg_quality` is set. Differentiable."""
        return as_jpeg(images, self.table, self.transform) if self.table is not None else images

    def step(self, batch: Tensor | tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update of each network, with the losses of Huang et al. (2024).

        The batch is images (N, C, H, W) in [-1, 1], or a tuple of them and of their posteriors (N, 2 * latent_dim) from
        `VAE.posteriors`. Each real image is paired with a generated one. If there are posteriors, half of the real
        images are paired with one that is generated from their own latents, and both of a pair get the same
        augmentation.

        The discriminator's loss is small if the real one has the higher score, and the generator's loss if the
        generated one has. If the discriminator can only guess, both are log 2 = 0.69. `gradient` is the mean squared
        gradient of the score at real and at generated images. `ranked` is the share of pairs in which the real image
        has the higher score. `drift` is the mean squared difference whose weight is `anchor`. Both updates use the
        same generated images.
        """
        images, *posteriors = batch if isinstance(batch, tuple) else (batch,)
        latents, target = (
            self.draw_pairs(images, *posteriors) if posteriors else self.draw_latents(len(images), images.device)
        )
        generated = self.generator(latents).float()
        saved, probability = self.as_saved(generated), self.config["augmentation"]

        if posteriors:
            shown = torch.cat(augment_pairs(images, saved.detach(), probability)).requires_grad_()
        else:
            shown = augment(torch.cat([images, saved.detach()]), probability).requires_grad_()
        scores = self.discriminator(shown)
        (slope,) = torch.autograd.grad(scores.sum(), shown, create_graph=True)
        gradient = slope.float().square().sum((1, 2, 3)).mean()
        real, fake = scores.chunk(2)
        loss_d = F.softplus(fake - real).mean()
        update("discriminator", loss_d + self.config["penalty"] * gradient)

        self.discriminator.requires_grad_(False)  # its weights need no gradients here
        if posteriors:
            real_shown, fake_shown = augment_pairs(images, saved, probability)
        else:
            real_shown, fake_shown = augment(images, probability), augment(saved, probability)
        with torch.no_grad():
            against = self.discriminator(real_shown)
        loss_g = F.softplus(against - self.discriminator(fake_shown)).mean()
        drift = F.mse_loss(coarse(generated), target) if target is not None else generated.new_zeros(())
        update("generator", loss_g + self.config["anchor"] * drift)
        self.discriminator.requires_grad_(True)
        ranked = (real > fake).float().mean()
        return {
            "discriminator": loss_d, "generator": loss_g, "gradient": gradient, "ranked": ranked, "drift": drift,
        }  # fmt: skip

    def sample_latents(self, count: int, seed: int = 0) -> Tensor:
        """Latents (count, latent_dim) on the CPU, the same for the same seed."""
        if self.prior is not None:
            return self.prior.sample(count, seed)
        return torch.randn(count, self.config["latent_dim"], generator=torch.Generator().manual_seed(seed))

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """New images float32 (count, C, H, W) in [-1, 1] on the CPU, the same for the same seed.

        With a `selector`, they are the best of CANDIDATES times as many; see `best_of_neighbours`.
        """
        if self.selector is None:
            return self.decode(self.sample_latents(count, seed), seed)
        rounds = -(-count // self.ROUND)
        candidates = self.decode(self.sample_latents(rounds * self.ROUND * self.CANDIDATES, seed), seed)
        parts = candidates.chunk(rounds)
        best = [best_of_neighbours(part, self.scores(part), self.ROUND, self.SPARE) for part in parts]
        return torch.cat([part[i] for part, i in zip(parts, best)])[:count]

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """The selector's scores (N,) of images (N, 1, H, W) in [-1, 1], judged as the JPEG files that they become."""
        saved = image_files.to_float(image_files.as_saved(images))
        device = self.selector.laplacian.device
        return torch.cat([self.selector(part.to(device)).float().cpu() for part in saved.split(500)])

    @torch.no_grad()
    def decode(self, latents: Tensor, seed: int = 0) -> Tensor:
        """Latents (N, latent_dim) to images (N, C, H, W) in [-1, 1] on the CPU.

        Args:
            seed: seed of the generator's noise inputs.
        """
        self.eval()
        device = next(self.generator.parameters()).device
        with devices.seeded(seed):
            return torch.cat([self.generator(z.to(device)).float().clamp(-1, 1).cpu() for z in latents.split(500)])

    def export(self, path: str | Path) -> Path:
        """Write the generator, the prior and the selector, if any, as float16 safetensors. Returns the path."""
        parts = nn.ModuleDict({"generator": self.generator})
        config = {"model": self.config}
        if self.selector is not None:
            parts["selector"] = self.selector
            config["selector"] = {}
        if self.prior is not None:
            parts["prior"] = self.prior
            config["prior"] = self.prior.config
        return checkpoints.export_weights(path, parts, config)

    @classmethod
    def from_weights(cls, path: str | Path) -> DCGAN:
        """A model for sampling, from a file that `export` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointDamaged: the file does not hold weights of this class.
        """
        config, tensors = checkpoints.read_weights(path)
        try:
            model = cls(**config["model"])
            parts = nn.ModuleDict({"generator": model.generator})
            if "prior" in config:
                model.prior = parts["prior"] = LatentFlow(**config["prior"])
            if "selector" in config:
                model.selector = parts["selector"] = Detector(**config["selector"])
            parts.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise checkpoints.CheckpointDamaged(f"'{path}' holds no DCGAN of this project: {error}") from error
        return model.eval()
