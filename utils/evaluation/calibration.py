"""Calibrated class probabilities from logits: temperature scaling, class priors, and stacking."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from utils.evaluation.cross_validation import Folds
from utils.evaluation.sample_sizes import require
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


def estimate_priors(probabilities: np.ndarray, training_priors: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """Estimate the class priors of unlabelled images (Saerens, Latinne & Decaestecker 2002).

    The method is expectation maximisation.

    Args:
        probabilities: (N, classes), calibrated, for the class priors `training_priors`.
        training_priors: (classes,).
        iterations: the largest number of iterations.

    Returns:
        The priors (classes,). They sum to 1.

    Raises:
        ValueError: there are no images, or a class has a training prior of 0.
    """
    require(1, "an estimate of class priors", unlabelled_images=len(probabilities))
    priors = training_priors.copy()
    for _ in range(iterations):
        updated = adjust_priors(probabilities, training_priors, priors).mean(0)
        if np.abs(updated - priors).max() < 1e-7:
            break
        priors = updated
    return priors


def adjust_priors(probabilities: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Convert probabilities (N, classes) from the class priors `old` (classes,) to the priors `new` by Bayes' rule.

    Raises:
        ValueError: a class has an old prior of 0. The classifier knows nothing about this class.
    """
    if not (old > 0).all():
        raise ValueError(f"class {np.argmin(old)} has a prior of {old.min():.3g} in training: each must be above 0")
    weighted = probabilities * (new / old)
    return weighted / weighted.sum(1, keepdims=True)


def adjust_to_estimated_priors(probabilities: np.ndarray, training_priors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the class priors of unlabelled images, and convert their probabilities to these priors.

    Args:
        probabilities: (N, classes), calibrated, for the class priors `training_priors`.
        training_priors: (classes,).

    Returns:
        The probabilities (N, classes), and the estimated priors (classes,).

    Raises:
        ValueError: as in `estimate_priors`.
    """
    priors = estimate_priors(probabilities, training_priors)
    return adjust_priors(probabilities, training_priors, priors), priors


def stacking_features(logits: Tensor, *log_ratios: Tensor) -> np.ndarray:
    """The inputs of `fit_stacking`: float (N, classes + number of log ratios).

    Args:
        logits: (N, classes). Their mean is subtracted, because a softmax depends only on their differences.
        log_ratios: the log density ratios of presumed fakes to reals, (N,) each.
    """
    columns = [logits - logits.mean(1, keepdim=True), *(ratio[:, None] for ratio in log_ratios)]
    return torch.cat(columns, 1).numpy()


def fit_stacking(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Stacking (Wolpert 1992): fit a logistic regression that predicts labels (N,) from held-out features (N, ...).

    It fits the temperature, the bias of each class, and the weight of each kind of network at the same time.

    Raises:
        ValueError: a class has no image.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    require(1, "stacking", **{f"images_of_class_{name}": count for name, count in zip(CLASSES, counts)})
    return LogisticRegression(C=10.0, max_iter=2000).fit(features, labels)


def stack_out_of_fold(features: np.ndarray, folds: Folds) -> np.ndarray:
    """Probabilities (N, classes) from stacking. The regression for each fold is fitted to the other folds."""
    probabilities = np.zeros((len(features), len(CLASSES)))
    for training, validation in folds.indices:
        regression = fit_stacking(features[training], folds.labels[training])
        probabilities[validation] = regression.predict_proba(features[validation])
    return probabilities
