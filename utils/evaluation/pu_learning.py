"""Learning from positive and unlabelled images (PU learning): real images, and a folder of real and generated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from utils.data import labelled_hands
from utils.evaluation import require
from utils.evaluation.cross_validation import CrossValidation, Folds


def against_mixture(
    reals: np.ndarray, mixture: np.ndarray, images_seen: int, folder: Path, settings: dict, count: int
) -> CrossValidation:
    """Networks that learn to separate reals from a mixture of reals and fakes, in `count` folds.

    A network cannot separate the mixture's reals from other reals. So what it can separate is fake (Elkan & Noto 2008).
    No label of a fake is needed. Class 0 is the reals, class 1 the mixture.

    Args:
        reals, mixture: uint8 (M, 1, H, W) and (N, 1, H, W), in this order in the cross-validation.
        images_seen, folder, settings: as in `CrossValidation`.

    Raises:
        ValueError: a set has too few different images for this number of folds.
    """
    purpose = f"cross-validation with {count} folds"
    require(count, purpose, images_in_the_first_set=len(reals), images_in_the_second_set=len(mixture))
    images, labels = np.concatenate([reals, mixture]), np.repeat([0, 1], [len(reals), len(mixture)])
    folds = Folds(labels, labelled_hands.groups(images), count, seed=0)
    settings = settings | {"classes": 2, "smoothing": 0.0}  # label smoothing would bias the ratio
    return CrossValidation(images, folds, images_seen, folder, settings)


def log_ratio(logits: Tensor) -> Tensor:
    """Log density ratio (N,) of the mixture to the reals, from logits (..., N, 2): the mean over the first dimensions.

    The networks were trained on equal numbers of reals and of images of the mixture, so this needs no correction.
    """
    return (logits[..., 1] - logits[..., 0]).reshape(-1, logits.shape[-2]).mean(0)


def f1_at_share(share: float, found: float, passed: float) -> float:
    """The F1 of *real* to be expected in a folder, of whose images the part `share` is real.

    Args:
        share: the share of reals, in [0, 1]. It may differ from the one among the labelled images.
        found: the share of reals that are called real (the recall). It does not depend on `share`.
        passed: the share of fakes that are called real. It does not depend on `share` either.
    """
    called_real = share * found + (1 - share) * passed
    return 2 * share * found / (share + called_real)
