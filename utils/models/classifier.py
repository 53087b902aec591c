"""A classifier of real hands, hands of VAEs and hands of GANs: a residual network without pre-trained weights.

Generated images differ from real ones mostly in fine detail: a decoder makes too little noise, and upsampling leaves a
grid. So the first layers keep the full resolution, and the last maps are pooled to their mean and standard deviation
(`blocks.TextureClassifier`). The augmentation moves and mirrors images, but never resamples them.

At the end of the file is a smaller network, `Detector`, which separates real images from those of one model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.config import CLASSES
from utils.data.image_files import to_float
from utils.models.blocks import TextureClassifier
from utils.training import checkpoints, devices, identity, loop

BATCH_SIZE = 128  # images in a training step


def augment(images: Tensor, shift: int, mirror: bool) -> Tensor:
    """Move each image of (N, C, H, W) by up to `shift` pixels, and mirror half of them if `mirror`.

    Nothing is resampled, so the traces of upsampling do not change. New pixels at the border repeat the old border.
    Mirroring is allowed here, because the traces of a generator look the same in a mirrored image. (A GAN must not
    learn from mirrored images, because all hands are left hands.)
    """
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    rows = torch.arange(height, device=device) + torch.randint(2 * shift + 1, (count, 1), device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    if mirror:
        columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    columns = columns + torch.randint(2 * shift + 1, (count, 1), device=device)
    each = torch.arange(count, device=device)
    return padded.permute(0, 2, 3, 1)[each[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resnet18(classes: int) -> nn.Module:
    """A plain ResNet-18 (He et al. 2016) for grey images of 32 x 32 pixels: the opponent of our network.

    As usual for such small images, its first layer has 3 x 3 weights and stride 1, and no pooling follows it.
    """
    from torchvision.models import resnet18 as build  # slow to import, and only used for a comparison

    network = build(num_classes=classes)
    network.conv1, network.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    return network


class Classifier(nn.Module):
    """The network with its loss and its optimiser, for `loop.fit`.

    Args:
        base: channels of the first stage; twice as many in the second, four times as many in the third.
        classes: number of classes.
        resnet: use `resnet18` instead. It has no `base` and no `dropout`.
        dropout: dropout rate before the last layer.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        smoothing: label smoothing, because some images are in the wrong folder.
        shift: the largest shift of a training image in pixels; see `augment`.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        base: int = 24,
        classes: int = len(CLASSES),
        resnet: bool = False,
        dropout: float = 0.0,
        lr: float = 2e-3,
        weight_decay: float = 0.03,
        smoothing: float = 0.0,
        shift: int = 1,
    ):
        super().__init__()
        self.config = {
            "base": base, "classes": classes, "resnet": resnet, "dropout": dropout, "lr": lr,
            "weight_decay": weight_decay, "smoothing": smoothing, "shift": shift,
        }  # fmt: skip
        self.network = resnet18(classes) if resnet else TextureClassifier(1, classes, base, False, dropout)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        decay = self.config["weight_decay"]
        return {"classifier": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=decay)}

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [-1, 1] and labels (N,) int64."""
        images, labels = batch
        logits = self.network(augment(images, self.config["shift"], mirror=True)).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config["smoothing"])
        update("classifier", loss)
        return {"cross_entropy": loss, "accuracy": (logits.argmax(1) == labels).float().mean()}

    @torch.no_grad()
    def logits(self, images: np.ndarray, mirrored: bool = False, batch_size: int = 256) -> Tensor:
        """Logits (N, classes) of images uint8 (N, 1, H, W), or of their mirror images. Computed in batches."""
        self.eval()
        device = next(self.network.parameters()).device
        parts = []
        with devices.accelerator().autocast():
            for start in range(0, len(images), batch_size):
                x = to_float(images[start : start + batch_size]).to(device)
                parts.append(self.network(x.flip(3) if mirrored else x).float())
        return torch.cat(parts).cpu()


def balanced(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices of labels (N,), equally many for each class. The indices of smaller classes are repeated."""
    rng = np.random.default_rng(seed)
    each = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    size = max(len(members) for members in each)
    return np.concatenate([np.resize(rng.permutation(members), size) for members in each])


def data_hash(images: np.ndarray, labels: np.ndarray) -> str:
    """A hash of images and labels that is the same on every machine."""
    return identity.of_data((torch.from_numpy(images), torch.from_numpy(labels)))


def train(
    images: np.ndarray,
    labels: np.ndarray,
    images_seen: int,
    folder: str | Path,
    settings: dict,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    start: Classifier | None = None,
    **options,
) -> tuple[Classifier, list[dict]]:
    """Train a classifier on equal numbers of images of each class. The training goes on from its checkpoints.

    Args:
        images: uint8 (N, 1, H, W).
        labels: int64 (N,).
        images_seen: number of images to train on, counting repetitions.
        folder: folder for the checkpoints.
        settings: arguments of `Classifier`.
        batch_size: images in a step.
        seed: seed of the weights and of the order of the images.
        start: another classifier. The training begins with its weights, except those of the last layer. Without
            `start`, the training begins with random weights.
        options: further arguments of `loop.fit`.

    Returns:
        The classifier in eval mode, and the history.
    """
    devices.seed_everything(seed)
    model = Classifier(**settings)
    config = {}
    if start is not None:
        body = {name: t for name, t in start.network.state_dict().items() if not name.startswith("head")}
        model.network.load_state_dict(model.network.state_dict() | body)
        config = {"start": checkpoints.fingerprint(start.network)}
    chosen = balanced(labels, seed)
    pairs = (to_float(images[chosen]), torch.from_numpy(labels[chosen]))
    steps = images_seen // batch_size
    config |= model.config
    options |= {"data_hash": data_hash(images, labels)}  # `pairs` are several times as large
    history = loop.fit(model, pairs, steps, batch_size, folder, config, seed=seed, **options)
    return model, history


class Detector(nn.Module):
    """A small convolutional network that classifies images as real or generated, from pixels and their Laplacian."""

    def __init__(self, channels: int = 32):
        super().__init__()

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        c = channels
        self.net = nn.Sequential(
            *block(2, c), *block(c, c), nn.MaxPool2d(2),
            *block(c, 2 * c), *block(2 * c, 2 * c), nn.MaxPool2d(2),
            *block(2 * c, 4 * c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * c, 1),
        )  # fmt: skip
        laplacian = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        self.register_buffer("laplacian", laplacian[None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,) of float images (N, 1, H, W) in [-1, 1]. A logit above 0 means real."""
        detail = F.conv2d(images, self.laplacian.to(images.dtype), padding=1)
        return self.net(torch.cat([images, detail], 1)).squeeze(1)
