"""Learning from positive and unlabelled images: which unlabelled images are fake, and pseudo-labels for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.data import labelled_hands
from utils.evaluation import calibration
from utils.evaluation.cross_validation import concatenate, cross_validate
from utils.evaluation.folds import Folds
from utils.evaluation.sample_sizes import require
from utils.models.classifier import Classifier

ONE_VIEW = ((0, 0),)  # enough for thousands of images, and five times cheaper than all views


class Ratios(NamedTuple):
    """What `estimate_density_ratio` returns: log density ratios of the second set to the first one, for the images of
    each set, by networks that have seen neither the image nor a near-copy of it."""

    first: Tensor  # (M,)
    second: Tensor  # (N,)
    fold_of: np.ndarray  # (N,), the number of the network that has not seen an image of the second set
    models: list[Classifier]
    histories: list[list[dict]]


def estimate_density_ratio(
    first: np.ndarray,
    second: np.ndarray,
    images_seen: int,
    folder: str | Path,
    settings: dict,
    *,
    num_folds: int,
    seed: int,
) -> Ratios:
    """Train networks to classify which of two sets an image belongs to, cross-validated; resumes.

    The first set is of real images, the second one is a mixture of real and generated images. This is learning from
    positive and unlabelled images (Elkan & Noto 2008). It needs no label of a fake, and it also finds fakes that
    resemble no labelled one. `real_probability` computes what the ratios say about each image.

    Args:
        first, second: uint8 (M, 1, H, W) and (N, 1, H, W).
        images_seen, folder, settings: as in `cross_validate`.
        num_folds, seed: as in `Folds`.

    Raises:
        ValueError: a set has too few images that differ, for this number of folds.
    """
    purpose = f"cross-validation with {num_folds} folds"
    require(num_folds, purpose, images_in_the_first_set=len(first), images_in_the_second_set=len(second))
    images, labels = concatenate((first, np.zeros(len(first), np.int64)), (second, np.ones(len(second), np.int64)))
    folds = Folds(labels, labelled_hands.groups(images), num_folds, seed)
    settings = settings | {"classes": 2, "smoothing": 0.0}  # label smoothing would bias the ratio
    found = cross_validate(images, folds, images_seen, folder, settings, views=ONE_VIEW)
    ratio, count = log_ratio(found.logits), len(first)
    return Ratios(ratio[:count], ratio[count:], found.fold_of[count:], found.models, found.histories)


def log_ratio(logits: Tensor) -> Tensor:
    """Log density ratio (N,) from the logits (N, 2) of networks that saw the two sets in equal numbers."""
    return logits[:, 1] - logits[:, 0]


def real_probability(reals: Tensor, mixture: Tensor) -> tuple[np.ndarray, float]:
    """Probability (N,) that each image of a mixture is real, and the share of reals in the mixture.

    The mixture's density is share x real + (1 - share) x generated. Where there are hardly any generated images, its
    ratio to the density of reals is therefore the share. That is so for a typical real image, so the share is
    estimated as the median ratio over reals. Where the ratio is twice the share, an image is as likely real as
    generated.

    Args:
        reals, mixture: log density ratios (M,) and (N,), as of `estimate_density_ratio`.

    Raises:
        ValueError: there are no reals.
    """
    require(1, "the share of reals", real_images=len(reals))
    share = float(reals.median().exp().clamp(max=1.0))
    return (share / mixture.exp()).clamp(max=1.0).numpy(), share


def real_votes(models: list[Classifier], images: np.ndarray, threshold: float) -> np.ndarray:
    """Share (N,) of the networks of `estimate_density_ratio` that call each image real.

    Args:
        images: uint8 (N, 1, H, W).
        threshold: a network calls an image real if its log density ratio, by one view, is below this.
    """
    return np.mean([(log_ratio(model.logits(images, ONE_VIEW)) < threshold).numpy() for model in models], axis=0)


def pseudo_labels(logits: Tensor, temperature: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-labels (N,) of unlabelled images for self-training (Lee 2013), and which of them are confident.

    Args:
        logits: (N, classes) of a classifier that was trained on the classes in equal numbers.
        temperature: of that classifier, as of `calibration.fit_temperature`.
        threshold: the smallest probability of a confident label, under the images' own class priors.

    Raises:
        ValueError: there are no logits.
    """
    classes = logits.shape[1]
    balanced = (logits / temperature).softmax(1).numpy()
    probabilities, _ = calibration.adjust_to_estimated_priors(balanced, np.full(classes, 1 / classes))
    return probabilities.argmax(1).astype(np.int64), probabilities.max(1) >= threshold
