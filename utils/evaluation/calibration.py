"""From logits to probabilities that can be trusted: temperature, class shares, stacking."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from utils.evaluation.cross_validation import folds
from utils.models.classifier import CLASSES


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of held-out logits (N, classes) that makes their probabilities likeliest (Guo et al. 2017)."""
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], lr=0.1, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(log_t.detach().exp())


def calibrated(logits: Tensor, labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of held-out logits; those of each part at the temperature of the other parts.

    Args:
        parts: (N,), at least two different numbers, say those of the folds.
    """
    probabilities = np.zeros(logits.shape)
    for part in np.unique(parts):
        divisor = temperature(logits[parts != part], torch.from_numpy(labels[parts != part]))
        probabilities[parts == part] = (logits[parts == part] / divisor).softmax(1).numpy()
    return probabilities


def estimate_priors(probabilities: np.ndarray, training_priors: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """Class shares of unlabelled images by expectation maximisation (Saerens, Latinne & Decaestecker 2002).

    Args:
        probabilities: (N, classes), calibrated, under the class shares `training_priors` (classes,).

    Returns:
        The shares (classes,), which sum to 1.
    """
    priors = training_priors.copy()
    for _ in range(iterations):
        moved = with_priors(probabilities, training_priors, priors).mean(0)
        if np.abs(moved - priors).max() < 1e-7:
            break
        priors = moved
    return priors


def with_priors(probabilities: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) under class shares `old` to those under `new`, by Bayes' rule."""
    weighted = probabilities * (new / old)
    return weighted / weighted.sum(1, keepdims=True)


def adjust_to_estimated_priors(probabilities: np.ndarray, training_shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of unlabelled images under the class shares that these images have themselves.

    Args:
        probabilities: (N, classes), calibrated, under the class shares `training_shares` (classes,).

    Returns:
        The probabilities (N, classes), and the images' own shares (classes,).
    """
    shares = estimate_priors(probabilities, training_shares)
    return with_priors(probabilities, training_shares, shares), shares


def evidence(logits: Tensor, *ratios: Tensor) -> np.ndarray:
    """What `stack` and `stacked` go by, float (N, 3 + ratios): the three logits, centred, and logarithms (N,) of
    how much denser presumed fakes are than reals."""
    columns = [logits - logits.mean(1, keepdim=True), *(ratio[:, None] for ratio in ratios)]
    return torch.cat(columns, 1).numpy()


def stack(evidence: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Stacking (Wolpert 1992): a logistic regression from held-out evidence (N, ...) to labels (N,). It sets
    temperature, class offsets and the weight of the two kinds of network in one go."""
    return LogisticRegression(C=10.0, max_iter=2000).fit(evidence, labels)


def stacked(evidence: np.ndarray, labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Probabilities (N, classes) by `stack`, cross-validated as the networks were."""
    probabilities = np.zeros((len(labels), len(CLASSES)))
    for inside, outside in folds(labels, groups, count, seed):
        probabilities[outside] = stack(evidence[inside], labels[inside]).predict_proba(evidence[outside])
    return probabilities
