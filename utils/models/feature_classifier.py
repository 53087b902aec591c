"""A classifier of the data's own classes. Its features measure how near generated images are to real ones.

The Frechet distance is usually measured in the features of a network that was trained on ImageNet (Heusel et al. 2017).
This network was not trained on small grey images, and this project uses nothing that is pre-trained. The features of a
classifier of the data itself do the same, and its answers say what each generated image shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.data.image_files import to_float
from utils.models.blocks import TextureClassifier
from utils.models.classifier import augment
from utils.training import devices, loop


class FeatureClassifier(nn.Module):
    """The classifier with its loss and its optimiser, for `loop.fit`. It is also a feature space for `fidelity`.

    Args:
        channels: number of channels of an image.
        classes: number of classes.
        base: channels of the first stage; twice as many in the second, four times as many in the third.
        lr: AdamW's learning rate.
        shift: largest shift of a training image in pixels; half of the images are also mirrored.
    """

    ema_modules = ("body", "head")

    def __init__(self, channels: int = 1, classes: int = 10, base: int = 24, lr: float = 2e-3, shift: int = 1):
        super().__init__()
        self.config = {"channels": channels, "classes": classes, "base": base, "lr": lr, "shift": shift}
        self.num_features = 8 * base
        self.body = TextureClassifier(channels, outputs=classes, base=base, high_pass=False)
        self.body.head = nn.Identity()  # its pooled maps are the features
        self.head = nn.Linear(self.num_features, classes)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"classifier": torch.optim.AdamW(self.parameters(), self.config["lr"], weight_decay=1e-2)}

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, C, H, W) in [-1, 1] and classes (N,)."""
        images, classes = batch
        logits = self.head(self.body(augment(images, self.config["shift"], mirror=True)))
        loss = F.cross_entropy(logits.float(), classes)
        update("classifier", loss, clip=1.0)
        return {"cross_entropy": loss, "accuracy": (logits.argmax(1) == classes).float().mean()}

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W) to features float32 (N, num_features)."""
        with devices.accelerator().autocast():
            return self.body(images.to(self.head.weight.device).float() / 127.5 - 1).float().cpu()

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> Tensor:
        """Class probabilities (N, classes) of uint8 images (N, C, H, W)."""
        features = torch.cat([self(batch) for batch in torch.from_numpy(images).split(500)])
        return self.head(features.to(self.head.weight.device)).softmax(1).cpu()


def train(
    images: np.ndarray, labels: np.ndarray, images_seen: int, folder: str | Path, batch_size: int = 64, seed: int = 0
) -> tuple[FeatureClassifier, list[dict]]:
    """Train a feature classifier; goes on from its checkpoints.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), classes numbered from 0.
        images_seen: number of images to train on, counting repetitions.
        folder: folder for the checkpoints.
        batch_size: images in a step.
        seed: seed of the weights and of the order of the images.

    Returns:
        The classifier in eval mode, and the history.
    """
    devices.seed_everything(seed)
    model = FeatureClassifier(images.shape[1], int(labels.max()) + 1)
    pairs = (to_float(images), torch.from_numpy(labels))
    steps = images_seen // batch_size
    history = loop.fit(model, pairs, steps, batch_size, folder, model.config, seed=seed, plot=False)
    return model, history
