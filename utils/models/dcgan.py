"""A convolutional GAN for small images and few of them.

Goodfellow et al. (2014) with the generator of Radford et al. (2016) and what has proved itself since:
differentiable augmentation of all that the discriminator sees (Zhao et al. 2020), noise inputs in
the generator (Karras et al. 2019) and, by the training loop, an average of the generator's weights.
Four things are less usual, and measured in the hypertune notebook:

1. A warm start: the generator begins as the decoder of a trained VAE and its latents come from that
   VAE's prior. The likelihood has then seen to it that every kind of hand is made; the adversary
   only has to sharpen (compare Larsen et al. 2016, who train the two together).
2. A discriminator built like a forensic detector (`blocks.TextureClassifier`) instead of the generator's
   mirror image: it finds fine faults in a tenth of the steps.
3. `jpeg_quality`: the discriminator sees generated images as the JPEGs that they will be saved as.
   Real images *are* decoded JPEGs, and a good discriminator would see that before anything else.
4. An anchor to the VAE's coarse image, so that the generator changes detail and not which hands
   there are.
"""

from __future__ import annotations

import copy
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from utils.models.blocks import TextureClassifier, Upsampler
from utils.models.latent_flow import LatentFlow
from utils.models.vae import VAE, cosine_matrix
from utils.training import checkpoints


def augment(images: Tensor, colour: float = 0.0, shift: float = 0.125) -> Tensor:
    """Differentiable augmentation (Zhao et al. 2020) of images (N, C, H, W): each its own translation,
    brightness and contrast. No mirroring: all hands are left hands, and a mirrored one is not real.

    Args:
        colour: width of the intervals, around 0 for brightness and 1 for contrast, that are drawn from.
        shift: largest translation, as a share of the image's side; zeros move in.
    """
    count, device = len(images), images.device

    def draw(width: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, device=device) - 0.5) * width

    images = images + draw(colour)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + draw(colour)) + mean
    height, width = images.shape[2:]
    reach = (int(height * shift), int(width * shift))
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    rows = torch.arange(height, device=device) + torch.randint(2 * reach[0] + 1, (count, 1), device=device)
    columns = torch.arange(width, device=device) + torch.randint(2 * reach[1] + 1, (count, 1), device=device)
    each = torch.arange(count, device=device)
    return padded.permute(0, 2, 3, 1)[each[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def jpeg_table(quality: int) -> Tensor:
    """Quantisation steps (8, 8) that Pillow uses for grey JPEGs of a quality, by frequency."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
    return torch.tensor(Image.open(buffer).quantization[0], dtype=torch.float32).view(8, 8)


def as_jpeg(images: Tensor, table: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) in [-1, 1] as saving them as JPEG changes them.

    Rounds the cosine coefficients of each 8 x 8 block, as JPEG does (ITU T.81, 1992). Rounding has
    no useful gradient, so the gradient passes as if nothing had been done (Bengio et al. 2013).
    """
    height, width = images.shape[2:]
    transform = cosine_matrix(8).to(images.device)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse
        grey = images.float().clamp(-1, 1) * 127.5 - 0.5  # JPEG's zero is grey level 128
        grey = F.pad(grey, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = grey.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 1, rows, columns, 8, 8)
        coefficients = ((transform @ blocks @ transform.T) / table).round() * table
        blocks = (transform.T @ coefficients @ transform).round()
        saved = blocks.permute(0, 1, 2, 4, 3, 5).reshape(grey.shape)[:, :, :height, :width]
        saved = ((saved + 0.5) / 127.5).clamp(-1, 1)
    return images + (saved - images).detach()


def coarse(images: Tensor) -> Tensor:
    """Means over blocks of 4 x 4 pixels: (N, C, H, W) to (N, C, H / 4, W / 4)."""
    return F.avg_pool2d(images, 4)


class DCGAN(nn.Module):
    """Generator, discriminator and the distribution of the latents.

    Latents are standard normal, or after `start_from` those of a VAE's prior.

    Args:
        size: (height, width) in pixels, each divisible by 4.
        channels: of an image.
        latent_dim: length of a latent.
        base: channels of the generator's largest hidden map.
        discriminator_base: the same for the discriminator.
        lr_generator, lr_discriminator: Adam's learning rates.
        colour: strength of the augmentation of brightness and contrast.
        anchor: after `start_from`, weight of the squared difference between the generator's image and
            the VAE's of the same latent, both averaged over 4 x 4 pixels: the adversary is to change
            detail, not which hands there are.
        jpeg_quality: of the files the images will be saved as; None for data that is not JPEG.
    """

    ema_modules = ("generator",)
    BANK = 10_000  # latents of the prior that training draws from, made once because a draw is slow

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: int = 1,
        latent_dim: int = 64,
        base: int = 32,
        discriminator_base: int = 16,
        lr_generator: float = 2e-5,
        lr_discriminator: float = 2e-4,
        colour: float = 0.0,
        anchor: float = 0.0,
        jpeg_quality: int | None = None,
    ):
        super().__init__()
        if jpeg_quality and channels != 1:
            raise ValueError("jpeg_quality is for grey images; colour JPEGs are quantised differently")
        self.config = {
            "size": list(size), "channels": channels, "latent_dim": latent_dim, "base": base,
            "discriminator_base": discriminator_base, "lr_generator": lr_generator,
            "lr_discriminator": lr_discriminator, "colour": colour, "anchor": anchor, "jpeg_quality": jpeg_quality,
        }  # fmt: skip
        self.rates = {"generator": float(lr_generator), "discriminator": float(lr_discriminator)}
        self.generator = Upsampler(size, channels, latent_dim, base, noise=True)
        self.discriminator = TextureClassifier(channels, outputs=1, base=discriminator_base)
        self.start = "random weights"
        self.prior: LatentFlow | None = None
        self.bank: Tensor | None = None  # latents of the prior, and what the VAE makes of them
        self.bank_coarse: Tensor | None = None
        self.table = jpeg_table(jpeg_quality) if jpeg_quality else None

    def start_from(self, vae: VAE) -> None:
        """Begin with a trained VAE's decoder as the generator, and take its prior for the latents;
        `self.start` then identifies both, for the configuration of a run.

        Raises:
            ValueError: the two differ in size, channels, latent_dim or base.
        """
        names = ("size", "channels", "latent_dim", "base")
        found = checkpoints.differences({n: vae.config[n] for n in names}, {n: self.config[n] for n in names})
        if found:
            raise ValueError(f"the VAE does not fit this GAN: {'; '.join(found)}")
        self.generator.copy_from(vae.decoder)
        self.prior = copy.deepcopy(vae.prior).requires_grad_(False)
        self.bank = self.prior.sample(self.BANK, seed=1)
        self.bank_coarse = coarse(vae.decode(self.bank))
        self.start = checkpoints.fingerprint(vae.decoder, vae.prior)

    def draw_latents(self, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Latents (count, latent_dim) for a training step, from the global random state, and the coarse
        images (count, C, H / 4, W / 4) that the VAE makes of them, if there is one."""
        if self.bank is None:
            return torch.randn(count, self.config["latent_dim"], device=device), None
        chosen = torch.randint(len(self.bank), (count,))
        return self.bank[chosen].to(device), self.bank_coarse[chosen].to(device)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(getattr(self, name).parameters(), rate, betas=(0.0, 0.99))
            for name, rate in self.rates.items()
        }

    def as_seen(self, images: Tensor) -> Tensor:
        """Generated images (N, C, H, W) as the discriminator gets to see them, with gradients."""
        return as_jpeg(images, self.table.to(images.device)) if self.table is not None else images

    def judge(self, images: Tensor) -> Tensor:
        """The discriminator's logits (N,) for images (N, C, H, W), augmented; above 0 means real."""
        return self.discriminator(augment(images, self.config["colour"])).squeeze(1)

    def step(self, images: Tensor, update) -> dict[str, Tensor]:
        """One update of each network on images (N, C, H, W) in [-1, 1].

        The non-saturating logistic losses of Goodfellow et al. (2014): `discriminator` is 1.39 when
        it cannot tell the two kinds apart, `generator` then 0.69. Returned beside them: `drift`, the mean
        squared difference that `anchor` weighs, and the mean probability of being real that the
        discriminator gives to `real` and to `generated` images.

        Both updates use the same generated images. Batch normalisation compares an image with its
        batch, so the discriminator learns from batches that hold as many real images as generated
        ones; the generator is judged in eval mode, by the statistics that such batches left behind,
        and the real half need not be computed again.
        """
        latents, target = self.draw_latents(len(images), images.device)
        made = self.generator(latents).float()
        seen = self.as_seen(made)
        real, fake = self.judge(torch.cat([images, seen.detach()])).chunk(2)
        loss_d = F.softplus(-real).mean() + F.softplus(fake).mean()
        update("discriminator", loss_d)

        self.discriminator.eval().requires_grad_(False)  # spares its weights' gradients
        loss_g = F.softplus(-self.judge(seen)).mean()
        drift = F.mse_loss(coarse(made), target) if target is not None else made.new_zeros(())
        update("generator", loss_g + self.config["anchor"] * drift)
        self.discriminator.train().requires_grad_(True)
        return {
            "discriminator": loss_d,
            "generator": loss_g,
            "drift": drift,
            "real": real.sigmoid().mean(),
            "generated": fake.sigmoid().mean(),
        }

    def sample_latents(self, count: int, seed: int = 0) -> Tensor:
        """Latents (count, latent_dim), the same for the same seed."""
        if self.prior is not None:
            return self.prior.sample(count, seed)
        return torch.randn(count, self.config["latent_dim"], generator=torch.Generator().manual_seed(seed))

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """New images (count, C, H, W) in [-1, 1], the same for the same seed."""
        return self.decode(self.sample_latents(count, seed), seed)

    @torch.no_grad()
    def decode(self, latents: Tensor, seed: int = 0) -> Tensor:
        """Latents (N, latent_dim) to images (N, C, H, W) in [-1, 1], on the CPU; `seed` is that of the
        generator's noise inputs."""
        self.eval()
        device = next(self.generator.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.cat([self.generator(z.to(device)).float().clamp(-1, 1).cpu() for z in latents.split(500)])

    def export(self, path: str | Path) -> Path:
        """Save what sampling needs, generator and prior, as safetensors in float16."""
        parts = nn.ModuleDict({"generator": self.generator})
        config = {"model": self.config}
        if self.prior is not None:
            parts["prior"] = self.prior
            config["prior"] = self.prior.config
        return checkpoints.export_weights(path, parts, config)

    @classmethod
    def from_weights(cls, path: str | Path) -> DCGAN:
        """A model for sampling from what `export` wrote.

        Raises:
            FileNotFoundError: no such file.
            CheckpointDamaged: not weights of this class.
        """
        config, tensors = checkpoints.read_weights(path)
        try:
            model = cls(**config["model"])
            parts = nn.ModuleDict({"generator": model.generator})
            if "prior" in config:
                model.prior = parts["prior"] = LatentFlow(**config["prior"])
            parts.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise checkpoints.CheckpointDamaged(f"'{path}' holds no DCGAN of this project: {error}") from error
        return model.eval()
