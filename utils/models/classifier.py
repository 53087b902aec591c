"""A classifier of real hands, hands of VAEs and hands of GANs: a residual network without pre-training.

Generated images differ from real ones mostly in fine detail: a decoder makes too little noise, and upsampling leaves a
grid. So the network also gets two fixed high-pass residuals of the pixels, as in image forensics (Fridrich & Kodovsky
2012). Its last maps are pooled to their mean and standard deviation (`blocks.TextureClassifier`). The augmentation
moves and mirrors images, but never resamples them.
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
from utils.training import checkpoints, devices, loop

VIEWS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # offsets (rows, columns) in pixels; the logits are means over them


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


class Classifier(nn.Module):
    """The network with its loss and its optimiser, for `loop.fit`.

    Args:
        base: channels of the first stage; twice as many in the second, four times as many in the third.
        classes: number of classes.
        high_pass: whether the network gets the high-pass residuals too.
        dropout: dropout rate before the last layer.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        smoothing: label smoothing, because some images are in the wrong folder.
        shift, mirror: arguments of `augment`; `shift` is in pixels.
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
        """Logits (N, classes) of images uint8 (N, 1, H, W): the mean over the shifted views and their mirror images.

        Args:
            views: offsets (rows, columns) in pixels.
            batch_size: number of images that are computed at a time.
        """
        self.eval()
        device = next(self.network.parameters()).device
        height, width = images.shape[2:]
        reach = max(abs(offset) for view in views for offset in view)
        parts = []
        with devices.accelerator().autocast():
            for start in range(0, len(images), batch_size):
                x = F.pad(to_float(images[start : start + batch_size]).to(device), (reach,) * 4, mode="replicate")
                shifted = [x[:, :, reach + y : reach + y + height, reach + z : reach + z + width] for y, z in views]
                if self.config["mirror"]:
                    shifted += [view.flip(3) for view in shifted]
                parts.append(torch.stack([self.network(view).float() for view in shifted]).mean(0).cpu())
        return torch.cat(parts)


def balanced(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices of labels (N,), equally many for each class. The indices of smaller classes are repeated."""
    rng = np.random.default_rng(seed)
    each = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    size = max(len(members) for members in each)
    return np.concatenate([np.resize(rng.permutation(members), size) for members in each])


def train(
    images: np.ndarray,
    labels: np.ndarray,
    images_seen: int,
    folder: str | Path,
    settings: dict,
    batch_size: int = 64,
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
    history = loop.fit(model, pairs, steps, batch_size, folder, config | model.config, seed=seed, **options)
    return model, history
