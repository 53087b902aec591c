"""Cross-validation of the classifier: folds that keep near-copies together, held-out logits and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from utils.models.classifier import CLASSES, VIEWS, Classifier, train

CURVE_IMAGES = 300  # at most so many validation images are judged for a point of the training curve


def folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds as pairs of indices (training, validation); a group is never on both sides."""
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return splitter.split(np.zeros(len(labels)), labels, groups)


Pair = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 1, H, W) and labels int64 (N,)


def join(*pairs: Pair) -> Pair:
    """Several sets of images and labels as one."""
    images, labels = zip(*pairs)
    return np.concatenate(images), np.concatenate(labels)


class CrossValidated(NamedTuple):
    """What `cross_validate` returns."""

    logits: Tensor  # (N, classes): each image's by a classifier that has seen neither it nor a copy of it
    folds: np.ndarray  # (N,): the number of that classifier
    models: list[Classifier]  # one a fold
    histories: list[list[dict]]  # of `training.fit`, one a fold


def cross_validate(
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seen: int,
    folder: str | Path,
    settings: dict,
    count: int,
    seed: int,
    extra: list[Pair] | None = None,
    start: list[Classifier] | None = None,
    report: Callable[[Tensor, np.ndarray], None] | None = None,
    views: tuple[tuple[int, int], ...] = VIEWS,
) -> CrossValidated:
    """Train one classifier a fold and judge every image by the one that has not seen it; resumes.

    Args:
        images, labels, groups: uint8 (N, 1, H, W), int64 (N,), int (N,) as of `hand_classes.groups`.
        seen, settings: as in `train`.
        folder: for checkpoints.
        count: of folds.
        seed: of the split, and with the fold's number of the training.
        extra: for each fold, images and labels that its training gets as well; never validated on.
        start: for each fold, the classifier that training begins with, as in `train`.
        report: called after each fold with the logits and the indices of all images judged so far.
        views: as of `Classifier.logits`.
    """
    logits = torch.zeros(len(labels), settings.get("classes", len(CLASSES)))
    models, histories, judge = [], [], np.full(len(labels), -1)
    for fold, (inside, outside) in enumerate(folds(labels, groups, count, seed)):
        x, y = images[inside], labels[inside]
        if extra:
            x, y = join((x, y), extra[fold])
        some = outside[:: -(-len(outside) // CURVE_IMAGES)]
        truth = torch.from_numpy(labels[some])

        def validate(model: Classifier, some=some, truth=truth) -> dict[str, float]:
            judged = model.logits(images[some], views[:1])  # enough for a curve
            right = (judged.argmax(1) == truth).float().mean()
            return {"cross_entropy (validation)": F.cross_entropy(judged, truth), "accuracy (validation)": right}

        where = Path(folder) / f"seed_{seed}_fold_{fold}"
        options = {"seed": 100 * seed + fold, "evaluate": validate, "evaluations": 5, "plot": False}
        model, history = train(x, y, seen, where, settings, start=start[fold] if start else None, **options)
        logits[outside] = model.logits(images[outside], views)
        judge[outside] = fold
        models.append(model)
        histories.append(history)
        if report:
            report(logits[judge >= 0], np.flatnonzero(judge >= 0))
    return CrossValidated(logits, judge, models, histories)


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Measures of class probabilities (N, 3) against labels (N,).

    `accuracy` and `macro F1` over the three classes, `cross-entropy` in nats, and of real against fake:
    `F1 real`, and `fakes passed`, the share of generated images that are taken for real.
    """
    given = probabilities.argmax(1)
    return {
        "accuracy": float((given == labels).mean()),
        "macro F1": f1_score(labels, given, average="macro"),
        "cross-entropy": float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean()),
        "F1 real": f1_score(labels == 0, given == 0),
        "fakes passed": float((given[labels != 0] == 0).mean()),
    }


def logits_by(
    models: list[Classifier], images: np.ndarray, judge: np.ndarray, views: tuple[tuple[int, int], ...] = VIEWS
) -> Tensor:
    """Logits (N, classes) of images, each by the network whose number `judge` (N,) gives."""
    logits = torch.zeros(len(images), models[0].config["classes"])
    for number, model in enumerate(models):
        if (judge == number).any():
            logits[judge == number] = model.logits(images[judge == number], views)
    return logits
