"""Cross-validation of the classifier: one training for each fold, logits of the held-out images, and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor

from utils.evaluation.folds import Folds
from utils.evaluation.sample_sizes import require
from utils.models.classifier import CLASSES, VIEWS, Classifier, train

CURVE_IMAGES = 300  # each point of the training curve is computed on at most this many validation images

LabelledImages = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 1, H, W) and labels int64 (N,)


def concatenate(*parts: LabelledImages) -> LabelledImages:
    """Join several sets of images and labels into one set."""
    images, labels = zip(*parts)
    return np.concatenate(images), np.concatenate(labels)


class CrossValidated(NamedTuple):
    """The result of `cross_validate`."""

    logits: Tensor  # (N, classes), from a classifier that has not seen the image or a near-copy of it
    fold_of: np.ndarray  # (N,), the number of this classifier
    models: list[Classifier]  # one for each fold
    histories: list[list[dict]]  # from `loop.fit`, one for each fold


def validation_hook(images: np.ndarray, labels: np.ndarray) -> Callable[[Classifier], dict[str, float]]:
    """A hook for `loop.fit`: cross-entropy and accuracy on at most `CURVE_IMAGES` of the images, with one view."""
    step = -(-len(images) // CURVE_IMAGES)
    images, truth = images[::step], torch.from_numpy(labels[::step])

    def evaluate(model: Classifier) -> dict[str, float]:
        logits = model.logits(images, VIEWS[:1])
        accuracy = (logits.argmax(1) == truth).float().mean()
        return {"cross_entropy (validation)": F.cross_entropy(logits, truth), "accuracy (validation)": accuracy}

    return evaluate


def cross_validate(
    images: np.ndarray,
    folds: Folds,
    images_seen: int,
    folder: str | Path,
    settings: dict,
    *,
    extra: list[LabelledImages] | None = None,
    start: list[Classifier] | None = None,
    views: tuple[tuple[int, int], ...] = VIEWS,
    report: Callable[[Tensor, np.ndarray], None] | None = None,
) -> CrossValidated:
    """Train one classifier for each fold. Each image gets its logits from the classifier that has not seen it.

    An interrupted cross-validation continues from its checkpoints.

    Args:
        images: uint8 (N, 1, H, W).
        folds: the labels of the images, and the fold of each image.
        images_seen, settings: as in `classifier.train`.
        folder: the folder for checkpoints.
        extra: for each fold, more images and labels to train on. They are never used for validation.
        start: for each fold, the classifier that its training starts from, as in `classifier.train`.
        views: as in `Classifier.logits`.
        report: is called after each fold with the logits so far and the indices of their images.

    Raises:
        ValueError: the folds belong to other images, or cannot be made (see `Folds`).
    """
    if len(images) != len(folds.labels):
        raise ValueError(f"{len(images)} images, but folds of {len(folds.labels)}")
    logits = torch.zeros(len(images), settings.get("classes", len(CLASSES)))
    fold_of = np.full(len(images), -1)
    models, histories = [], []
    for fold, (training, validation) in enumerate(folds.indices):
        data = images[training], folds.labels[training]
        model, history = train(
            *(concatenate(data, extra[fold]) if extra else data),
            images_seen=images_seen,
            folder=Path(folder) / f"seed_{folds.seed}_fold_{fold}",
            settings=settings,
            seed=100 * folds.seed + fold,
            start=start[fold] if start else None,
            evaluate=validation_hook(images[validation], folds.labels[validation]),
            evaluations=5,
            plot=False,
        )
        logits[validation] = model.logits(images[validation], views)
        fold_of[validation] = fold
        models.append(model)
        histories.append(history)
        if report:
            report(logits[fold_of >= 0], np.flatnonzero(fold_of >= 0))
    return CrossValidated(logits, fold_of, models, histories)


def logits_by_fold(
    models: list[Classifier], images: np.ndarray, fold_of: np.ndarray, views: tuple[tuple[int, int], ...] = VIEWS
) -> Tensor:
    """Logits (N, classes) of images uint8 (N, 1, H, W). `fold_of` (N,) holds the number of each image's model."""
    logits = torch.zeros(len(images), models[0].config["classes"])
    for fold, model in enumerate(models):
        inside = fold_of == fold
        if inside.any():
            logits[inside] = model.logits(images[inside], views)
    return logits


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare class probabilities (N, 3) with labels (N,): 0 is real, 1 is VAE, 2 is GAN.

    `accuracy` and `macro F1` are for the three classes, and `cross-entropy` is in nats. Two measures are for real
    against fake: `F1 real`, and `fakes called real`, the share of fakes that are classified as real.

    Raises:
        ValueError: there are no real images or no fakes.
    """
    require(1, "a table of scores", real_images=int((labels == 0).sum()), fakes=int((labels != 0).sum()))
    predicted = probabilities.argmax(1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro F1": f1_score(labels, predicted, average="macro"),
        "cross-entropy": float(-np.log(np.clip(of_truth, 1e-12, 1)).mean()),
        "F1 real": f1_score(labels == 0, predicted == 0),
        "fakes called real": float((predicted[labels != 0] == 0).mean()),
    }
