"""Features of images for the measures in `fidelity`.

Two feature spaces are fixed functions of the pixels. The third one is a classifier that is trained here. Nothing is
downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.data.image_files import to_float
from utils.evaluation import require
from utils.models.blocks import Residual
from utils.models.classifier import augment
from utils.training import devices, loop

COMPONENTS = 64  # principal components of the pixels: 97 % of the variance of the hands
SMOOTHING = 0.05  # label smoothing of the classifier; some labels of Fashion-MNIST are wrong
BATCH = 100  # number of images in a batch; larger batches do not fit into a processor's caches


class PixelComponents(nn.Module):
    """The first principal components of the pixels. They describe pose, shape and exposure, but not texture.

    They are computed on the CPU: one small product of matrices in float64, which is slow on most GPUs.

    Args:
        reference: uint8 (N, 1, H, W), the real images that the components are fitted to.
        components: number of components. N images have at most N - 1 components.

    Raises:
        ValueError: fewer than 2 images.
    """

    def __init__(self, reference: np.ndarray, components: int = COMPONENTS):
        super().__init__()
        require(2, "a principal component", reference_images=len(reference))
        flat = to_float(reference).flatten(1).double()
        self.register_buffer("mean", flat.mean(0))
        _, _, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.register_buffer("axes", axes[: min(components, len(reference) - 1)].T.contiguous())
        self.num_features = self.axes.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (N, components) of images uint8 (N, 1, H, W). The pixels are scaled to [-1, 1] first."""
        flat = images.flatten(1).double() / 127.5 - 1
        return ((flat - self.mean) @ self.axes).float()


class Texture(nn.Module):
    """The energy of fine detail in each part of the image.

    These features are first-order scattering coefficients (Bruna & Mallat 2013). Gabor filters with 3 wavelengths and
    4 orientations are applied to the image. The modulus of each response is averaged in the cells of a 4 x 4 grid.
    Blur, checkerboards and noise change the features much. A shift by one pixel changes them little.
    """

    WAVELENGTHS = (2.5, 4.0, 6.5)  # pixels
    ORIENTATIONS = 4
    GRID = 4

    def __init__(self):
        super().__init__()
        radius = torch.arange(-5.0, 6.0)
        y, x = torch.meshgrid(radius, radius, indexing="ij")
        filters = []
        for wavelength in self.WAVELENGTHS:
            for k in range(self.ORIENTATIONS):
                angle = torch.tensor(k * torch.pi / self.ORIENTATIONS)
                phase = 2 * torch.pi * (x * torch.cos(angle) + y * torch.sin(angle)) / wavelength
                window = torch.exp(-(x**2 + y**2) / (0.5 * wavelength**2))
                for wave in (torch.cos(phase), torch.sin(phase)):
                    wave = wave * window
                    wave = wave - window * wave.sum() / window.sum()  # brightness gives no response
                    filters.append(wave / wave.norm())
        self.register_buffer("filters", torch.stack(filters)[:, None].to(devices.accelerator().device))
        self.num_features = len(filters) // 2 * self.GRID**2

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (N, 192) on the CPU of images uint8 (N, C, H, W): log energies of the channels' mean."""
        grey = images.to(self.filters.device).float().mean(1, keepdim=True)
        padded = F.pad(grey / 127.5 - 1, (5, 5, 5, 5), mode="reflect")
        responses = F.conv2d(padded, self.filters)
        modulus = (responses[:, 0::2] ** 2 + responses[:, 1::2] ** 2 + 1e-8).sqrt()
        return torch.log(F.adaptive_avg_pool2d(modulus, self.GRID) + 1e-2).flatten(1).cpu()


def features(space: nn.Module, images: np.ndarray) -> np.ndarray:
    """Features float32 (N, D) of images uint8 (N, C, H, W) in a feature space.

    Raises:
        ValueError: there are no images.
    """
    require(1, "a feature space", images=len(images))
    with torch.no_grad():
        return torch.cat([space(batch) for batch in torch.from_numpy(images).split(BATCH)]).numpy()


class Remembered(nn.Module):
    """A feature space that computes the features of each image only once, for many measures of the same images."""

    def __init__(self, space: nn.Module):
        super().__init__()
        self.space, self.num_features = space, space.num_features
        self.known: dict[bytes, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (N, D) of images uint8 (N, C, H, W)."""
        keys = [image.tobytes() for image in images.numpy()]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            self.known |= zip((keys[i] for i in new), self.space(images[new]))
        return torch.stack([self.known[key] for key in keys])


class FeatureClassifier(nn.Module):
    """A classifier of the data set's classes, with its loss and its optimiser, for `loop.fit`.

    Its last hidden layer is a feature space. Its predictions give the class of each generated image. The Frechet
    distance is usually measured in the features of a network that was trained on ImageNet (Heusel et al. 2017). That
    network has never seen small grey images, and this project uses no pre-trained networks.

    The network is a small ResNet (He et al. 2016). It also learns to tell real images from altered ones, in which a
    rectangle comes from another place or another image. So its features describe whether the parts of an image belong
    together. The classes alone do not need that (`altered` shows it).

    Args:
        channels: number of channels of an image.
        classes: number of classes.
        base: channels of the first stage. Each of the next two stages has twice as many, at half the size.
        lr: learning rate of AdamW.
        shift: the largest shift of a training image in pixels. Half of the images are also mirrored.
    """

    ema_modules = ("body", "head", "whole")

    def __init__(self, channels: int = 1, classes: int = 10, base: int = 48, lr: float = 2e-3, shift: int = 1):
        super().__init__()
        self.config = {"channels": channels, "classes": classes, "base": base, "lr": lr, "shift": shift}
        self.num_features = 4 * base
        widths = (base, 2 * base, 4 * base)
        layers: list[nn.Module] = [nn.Conv2d(channels, base, 3, padding=1, bias=False), nn.BatchNorm2d(base), nn.ReLU()]
        for before, width in zip((base, *widths), widths):
            layers += [*([nn.MaxPool2d(2)] if width > base else []), Residual(before, width), Residual(width, width)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the pooled maps are the features
        self.head = nn.Linear(self.num_features, classes)
        self.whole = nn.Linear(self.num_features, 1)  # the logit of not being altered

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"classifier": torch.optim.AdamW(self.parameters(), self.config["lr"], weight_decay=1e-2)}

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1] and classes (N,)."""
        images, classes = batch
        moved = augment(images, self.config["shift"], mirror=True)
        both = self.body(torch.cat([moved, with_foreign_rectangles(moved)]))
        logits, whole = self.head(both[: len(images)]).float(), self.whole(both)[:, 0].float()
        cross_entropy = F.cross_entropy(logits, classes, label_smoothing=SMOOTHING)
        truth = (torch.arange(len(both), device=both.device) < len(images)).float()
        altered = F.binary_cross_entropy_with_logits(whole, truth)
        update("classifier", cross_entropy + altered, clip=1.0)
        right = (logits.argmax(1) == classes).float().mean()
        return {"cross_entropy": cross_entropy, "altered": altered, "accuracy": right}

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 (N, num_features) on the CPU of images uint8 (N, C, H, W)."""
        with devices.accelerator().autocast():
            return self.body(images.to(self.head.weight.device).float() / 127.5 - 1).float().cpu()

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> Tensor:
        """Class probabilities (N, classes) of images uint8 (N, C, H, W)."""
        features = torch.cat([self(batch) for batch in torch.from_numpy(images).split(500)])
        return self.head(features.to(self.head.weight.device)).softmax(1).cpu()


def with_foreign_rectangles(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in which a rectangle of a third to two thirds of each side comes from elsewhere.

    Half of the rectangles come from the next image in the batch, and half from another place in the same image.
    """
    count, _, height, width = images.shape
    device = images.device

    def interval(side: int) -> tuple[Tensor, Tensor]:
        """A mask (N, side), and for each of these places the place (N, side) that it takes if it is shifted."""
        length = side * (1 + torch.rand(count, 1, device=device)) / 3
        start = torch.rand(count, 1, device=device) * (side - length)
        places = torch.arange(side, device=device)
        moved = (places + side * (1 + torch.rand(count, 1, device=device)) / 3).long() % side
        return (places >= start) & (places < start + length), moved

    (rows, row_places), (columns, column_places) = interval(height), interval(width)
    each = torch.arange(count, device=device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[each, row_places[:, :, None], column_places[:, None]].permute(0, 3, 1, 2)
    foreign = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, images.roll(1, 0), shifted)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], foreign, images)


def altered(images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Real images uint8 (N, C, H, W) that are made worse in four ways. A feature space must see each of them.

    - sleeve removed: the left quarter is black.
    - halves swapped: the upper half is below the lower half.
    - halves of two: the right half comes from another image.
    - noise: normal noise with a standard deviation of 10 grey levels.
    """
    rng = np.random.default_rng(seed)
    width, height = images.shape[3], images.shape[2]
    cut, mixed = images.copy(), images.copy()
    cut[..., : width // 4] = 0
    mixed[..., width // 2 :] = np.roll(images, 1, axis=0)[..., width // 2 :]
    noisy = (images + rng.normal(0, 10, images.shape)).round().clip(0, 255).astype(np.uint8)
    swapped = np.roll(images, height // 2, axis=2)
    return {"sleeve removed": cut, "halves swapped": swapped, "halves of two": mixed, "noise": noisy}


def surest_of_each_class(probabilities: Tensor, count: int) -> np.ndarray:
    """Choose images for a picture: of each predicted class, those that a classifier is surest of.

    Args:
        probabilities: class probabilities (N, classes) of the images; see `FeatureClassifier.probabilities`.
        count: number of images to choose.

    Returns:
        Their indices, class by class, the surest first. Each class has an equal share of `count`, rounded up; the last
        classes have less. If a class is predicted too rarely, there are fewer than `count`.
    """
    sure, kind = probabilities.max(1)
    order = sure.argsort(descending=True, stable=True)
    share = -(-count // probabilities.shape[1])
    chosen = [order[kind[order] == number][:share] for number in range(probabilities.shape[1])]
    return torch.cat(chosen)[:count].numpy()


def train_feature_classifier(
    images: np.ndarray, labels: np.ndarray, images_seen: int, folder: str | Path, batch_size: int = 256, seed: int = 0
) -> tuple[FeatureClassifier, list[dict]]:
    """Train a feature classifier. An interrupted training continues from its checkpoints.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), classes numbered from 0.
        images_seen: number of images to train on. Repeated images count each time.
        folder: the folder for the checkpoints.
        batch_size: number of images in a step.
        seed: the seed of the weights and of the order of the images.

    Returns:
        The classifier in eval mode, and the training history.
    """
    devices.seed_everything(seed)
    model = FeatureClassifier(images.shape[1], int(labels.max()) + 1)
    pairs = (to_float(images), torch.from_numpy(labels))
    steps = images_seen // batch_size
    history = loop.fit(model, pairs, steps, batch_size, folder, model.config, seed=seed, plot=False)
    return model, history
