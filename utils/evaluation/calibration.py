"""Calibrated class probabilities from logits: temperature scaling and matrix scaling (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from utils.evaluation import require
from utils.models.classifier import CLASSES


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature of a classifier (temperature scaling, Guo et al. 2017).

    The logits are divided by the temperature. This function finds the one with the lowest cross-entropy.

    Args:
        logits: (N, classes), of images that the classifier was not trained on.
        labels: int64 (N,).

    Raises:
        ValueError: there are no logits.
    """
    require(1, "a temperature", held_out_images=len(logits))
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], lr=0.1, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(log_t.detach().exp())


def calibrate_out_of_fold(logits: Tensor, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Calibrated probabilities (N, classes). The temperature of each fold is fitted to the other folds.

    Args:
        logits: (N, classes). The logits of each image come from a classifier that has not seen the image.
        labels: int64 (N,).
        fold_of: int (N,), the number of each image's fold. There are at least two folds.

    Raises:
        ValueError: all images are in one fold.
    """
    folds = np.unique(fold_of)
    require(2, "calibration out of fold", folds=len(folds))
    probabilities = np.zeros(logits.shape)
    for fold in folds:
        inside = fold_of == fold
        temperature = fit_temperature(logits[~inside], torch.from_numpy(labels[~inside]))
        probabilities[inside] = (logits[inside] / temperature).softmax(1).numpy()
    return probabilities


def centred(logits: Tensor) -> np.ndarray:
    """Logits (N, classes) minus the mean of each row, for `fit_scaling`: a softmax depends only on differences."""
    return (logits - logits.mean(1, keepdim=True)).numpy()


def fit_scaling(logits: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Matrix scaling (Guo et al. 2017): a logistic regression that predicts labels (N,) from held-out logits.

    Unlike a temperature, it can also correct a bias towards a class. `logits` (N, classes) are from `centred`.

    Raises:
        ValueError: a class has no image.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    require(1, "matrix scaling", **{f"images_of_class_{name}": count for name, count in zip(CLASSES, counts)})
    return LogisticRegression(C=10.0, max_iter=2000).fit(logits, labels)


def scale_out_of_fold(logits: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) by `fit_scaling`. The regression of each fold is fitted to the other folds."""
    probabilities = np.zeros((len(logits), len(CLASSES)))
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        regression = fit_scaling(logits[~inside], labels[~inside])
        probabilities[inside] = regression.predict_proba(logits[inside])
    return probabilities
