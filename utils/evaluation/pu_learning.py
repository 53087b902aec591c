"""What images without labels can teach: which of them are fake, and labels for self-training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.data import labelled_hands
from utils.evaluation import calibration
from utils.evaluation.cross_validation import cross_validate, join
from utils.models.classifier import Classifier

ONE_VIEW = ((0, 0),)  # enough for thousands of images, and five times cheaper


class Ratios(NamedTuple):
    """What `estimate_density_ratio` returns: for each of two sets of images, how much denser the second set is than the
    first one, as a logarithm, by networks that have seen neither the image nor a near-copy of it."""

    first: Tensor  # (M,)
    second: Tensor  # (N,)
    folds: np.ndarray  # (N,): the number of the network that has not seen an image of the second set
    models: list[Classifier]
    histories: list[list[dict]]


def estimate_density_ratio(
    first: np.ndarray, second: np.ndarray, seen: int, folder: str | Path, settings: dict, count: int, seed: int
) -> Ratios:
    """Train networks to tell two sets of images apart, cross-validated; resumes.

    With real images first and a mixture of real and generated ones second, this is learning from positive
    and unlabelled images (Elkan & Noto 2008): no label of a fake is needed, and fakes unlike any
    labelled one are found too. `real_probability` says what follows for an image.

    Args:
        first, second: uint8 (N, 1, H, W).
        seen, folder, settings, count, seed: as in `cross_validate`.
    """
    images, labels = join((first, np.zeros(len(first), np.int64)), (second, np.ones(len(second), np.int64)))
    settings = settings | {"classes": 2, "smoothing": 0.0}  # smoothed labels would bend the ratio
    groups = labelled_hands.groups(images)
    found = cross_validate(images, labels, groups, seen, folder, settings, count, seed, views=ONE_VIEW)
    ratio = log_ratio(found.logits)
    return Ratios(ratio[: len(first)], ratio[len(first) :], found.folds[len(first) :], found.models, found.histories)


def log_ratio(logits: Tensor) -> Tensor:
    """Logarithm (N,) of the densities' ratio from logits (N, 2) of networks trained on the two sets in
    equal numbers."""
    return logits[:, 1] - logits[:, 0]


def real_probability(reals: Tensor, mixture: Tensor) -> tuple[np.ndarray, float]:
    """Probability (N,) that each mixed image is real, and the share of real ones among them, from the
    logarithms that `estimate_density_ratio` gives for real images (M,) and mixed ones (N,).

    The mixture is share x real + (1 - share) x generated, so where there are hardly any generated
    images it is as dense as the share. That is so for the typical real image, at the median; an image where the
    mixture is twice as dense is as likely generated as real.
    """
    share = float(reals.median().exp().clamp(max=1.0))
    return (share / mixture.exp()).clamp(max=1.0).numpy(), share


def passed(models: list[Classifier], images: np.ndarray, border: float) -> np.ndarray:
    """Share (N,) of the networks of `estimate_density_ratio` in whose eyes images uint8 (N, 1, H, W) belong to the first set:
    their logarithm lies below `border`, by one view as in `estimate_density_ratio`."""
    return np.mean([(log_ratio(model.logits(images, ONE_VIEW)) < border).numpy() for model in models], axis=0)


def pseudo_labels(logits: Tensor, divisor: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of unlabelled images for self-training (Lee 2013), and whether each is sure enough.

    Args:
        logits: (N, classes) of a classifier trained on labelled images, the classes in equal numbers.
        divisor: its temperature.
        threshold: least probability of the likeliest class, under the images' own class shares.
    """
    classes = logits.shape[1]
    plain = (logits / divisor).softmax(1).numpy()
    probabilities, _ = calibration.adjust_to_estimated_priors(plain, np.full(classes, 1 / classes))
    return probabilities.argmax(1).astype(np.int64), probabilities.max(1) >= threshold
