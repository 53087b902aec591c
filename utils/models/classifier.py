"""Tells real hands from those of VAEs and of GANs: a residual network, trained from random weights.

What gives a generated image away is mostly fine: the grain that a decoder lacks, the grid that an
up-sampling leaves. So the network sees, beside the pixels, two fixed high-pass residuals of them,
as forensic methods do (Fridrich & Kodovsky 2012), augmentation moves and mirrors images but never
resamples them, and the last maps are pooled to their mean and their spread (`blocks.TextureClassifier`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.data.image_files import to_float
from utils.models.blocks import TextureClassifier
from utils.training import checkpoints, devices, loop

CLASSES = ("real", "VAE", "GAN")  # a label is the index
VIEWS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # shifts in pixels that an image is judged at, plain first


def augment(images: Tensor, shift: int, mirror: bool) -> Tensor:
    """Images (N, C, H, W), each moved by up to `shift` pixels and, half of them, mirrored.

    Nothing is resampled, so the traces of up-sampling stay as they are; the border is repeated where
    an image was moved away from it. Mirroring is allowed here (it was not for generating): a mirrored
    hand is odd, but a class is told by traces, and those look alike from both sides.
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


class Classifier(nn.Module):
    """The network with its loss and its optimiser, for `loop.fit`.

    Args:
        base: channels of the first stage; doubled in the second and again in the third.
        classes: how many labels there are.
        high_pass: show the network two fixed high-pass residuals beside the pixels.
        dropout: before the last layer.
        lr: AdamW's learning rate.
        weight_decay: of AdamW.
        smoothing: of the labels: a little of each label's weight goes to the other classes, since some
            folders hold what they should not.
        shift, mirror: of `augment`, in pixels and yes or no.
    """

    ema_modules = ("network",)

    def __init__(
        self,
        base: int = 24,
        classes: int = len(CLASSES),
        high_pass: bool = True,
        dropout: float = 0.2,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        smoothing: float = 0.05,
        shift: int = 2,
        mirror: bool = True,
    ):
        super().__init__()
        self.config = {
            "base": base, "classes": classes, "high_pass": high_pass, "dropout": dropout, "lr": lr,
            "weight_decay": weight_decay, "smoothing": smoothing, "shift": shift, "mirror": mirror,
        }  # fmt: skip
        self.network = TextureClassifier(channels=1, outputs=classes, base=base, high_pass=high_pass, dropout=dropout)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        decay = self.config["weight_decay"]
        return {"classifier": torch.optim.AdamW(self.network.parameters(), self.config["lr"], weight_decay=decay)}

    def step(self, batch: tuple[Tensor, Tensor], update) -> dict[str, Tensor]:
        """One update on images (N, 1, H, W) in [-1, 1] and labels (N,) int64 or probabilities (N, classes)."""
        images, labels = batch
        logits = self.network(augment(images, self.config["shift"], self.config["mirror"])).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config["smoothing"])
        update("classifier", loss)
        truth = labels if labels.dim() == 1 else labels.argmax(1)
        return {"cross_entropy": loss, "accuracy": (logits.argmax(1) == truth).float().mean()}

    @torch.no_grad()
    def logits(self, images: np.ndarray, views: tuple[tuple[int, int], ...] = VIEWS, batch_size: int = 100) -> Tensor:
        """Logits (N, classes) of uint8 (N, 1, H, W): the mean over shifted views and their mirror images."""
        self.eval()
        device = next(self.network.parameters()).device
        height, width = images.shape[2:]
        reach = max(abs(offset) for view in views for offset in view)
        parts = []
        with devices.accelerator().autocast():
            for start in range(0, len(images), batch_size):
                x = F.pad(to_float(images[start : start + batch_size]).to(device), (reach,) * 4, mode="replicate")
                seen = [x[:, :, reach + y : reach + y + height, reach + z : reach + z + width] for y, z in views]
                if self.config["mirror"]:
                    seen += [view.flip(3) for view in seen]
                parts.append(torch.stack([self.network(view).float() for view in seen]).mean(0).cpu())
        return torch.cat(parts)


def balanced(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices in which every class comes as often as the largest one does: the smaller are repeated."""
    rng = np.random.default_rng(seed)
    each = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    size = max(len(members) for members in each)
    return np.concatenate([np.resize(rng.permutation(members), size) for members in each])


def train(
    images: np.ndarray,
    labels: np.ndarray,
    seen: int,
    folder: str | Path,
    settings: dict,
    batch_size: int = 64,
    seed: int = 0,
    start: Classifier | None = None,
    **options,
) -> tuple[Classifier, list[dict]]:
    """Train a classifier on batches that hold the classes in equal numbers; resumes.

    Args:
        images: uint8 (N, 1, H, W).
        labels: int64 (N,).
        seen: how many images training sees, repetitions counted.
        folder: for checkpoints.
        settings: arguments of `Classifier`.
        start: another classifier, whose layers but for the last are what training begins with; without
            one it begins with random weights.
        options: for `loop.fit`.

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
    data = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16]
    chosen = balanced(labels, seed)
    pairs = (to_float(images[chosen]), torch.from_numpy(labels[chosen]))
    config |= model.config | {"data": data}
    history = loop.fit(model, pairs, seen // batch_size, batch_size, folder, config, seed=seed, **options)
    return model, history
