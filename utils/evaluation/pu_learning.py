"""Learning from positive and unlabelled images: find the fakes among unlabelled images, and give pseudo-labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.data import labelled_hands
from utils.evaluation import calibration
from utils.evaluation.cross_validation import concatenate, cross_validate
from utils.evaluation.folds import Folds
from utils.evaluation.sample_sizes import require
from utils.files import write_atomically
from utils.models.classifier import Classifier
from utils.training import checkpoints

ONE_VIEW = ((0, 0),)  # good enough for thousands of images, and five times cheaper than all views


class Ratios(NamedTuple):
    """The result of `estimate_density_ratio`: log density ratios of the second set to the first set.

    The ratio for each image comes from a network that has not seen the image or a near-copy of it.
    """

    first: Tensor  # (M,), for the images of the first set
    second: Tensor  # (N,), for the images of the second set
    fold_of: np.ndarray  # (N,), for each image of the second set, the number of the network that has not seen it
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
    """Train networks to classify which of two sets an image belongs to, with cross-validation.

    The first set holds real images. The second set is a mixture of real and generated images. This is learning from
    positive and unlabelled images (Elkan & Noto 2008). It needs no labelled fakes, and it also finds fakes of a new
    kind. `real_probability` turns the ratios into probabilities. An interrupted training continues from its
    checkpoints.

    Args:
        first, second: uint8 (M, 1, H, W) and (N, 1, H, W).
        images_seen, folder, settings: as in `cross_validate`.
        num_folds: number of folds, as `count` in `Folds`.
        seed: as in `Folds`.

    Raises:
        ValueError: a set has too few different images for this number of folds.
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
    """Log density ratio (N,) from logits (N, 2). The networks were trained on equal numbers from the two sets."""
    return logits[:, 1] - logits[:, 0]


def real_probability(reals: Tensor, mixture: Tensor) -> tuple[np.ndarray, float]:
    """Probability (N,) that each image of a mixture is real, and the share of reals in the mixture.

    The density of the mixture is share x real + (1 - share) x generated. If the density of generated images is near 0,
    the ratio of the mixture to the reals is equal to the share. This is true for a typical real image, so the share is
    estimated as the median ratio over the reals. The probability that an image is real is share / ratio. For
    example, it is one half if the ratio is twice the share.

    Args:
        reals, mixture: log density ratios (M,) and (N,) from `estimate_density_ratio`.

    Raises:
        ValueError: there are no reals.
    """
    require(1, "the share of reals", real_images=len(reals))
    share = float(reals.median().exp().clamp(max=1.0))
    return (share / mixture.exp()).clamp(max=1.0).numpy(), share


def real_votes(models: list[Classifier], images: np.ndarray, threshold: float) -> np.ndarray:
    """The share (N,), in [0, 1], of the networks from `estimate_density_ratio` that classify each image as real.

    Args:
        images: uint8 (N, 1, H, W).
        threshold: an image is classified as real if its log density ratio, from one view, is below this value.
    """
    return np.mean([(log_ratio(model.logits(images, ONE_VIEW)) < threshold).numpy() for model in models], axis=0)


def first_choice(folder: str | Path, models: list[Classifier], chosen: np.ndarray) -> np.ndarray:
    """The images that these networks have chosen, the same on every machine: the first choice is kept.

    The last digits of a network's outputs depend on the machine. So another machine may choose a few other images, and
    a training with the chosen images would be another run there.

    Args:
        folder: the choice is kept here, in `chosen.json`. It is replaced if the networks have other weights.
        chosen: int64 (N,), indices of the images that the networks choose on this machine.
    """
    path, by = Path(folder) / "chosen.json", checkpoints.fingerprint(*[model.network for model in models])
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["by"] == by:
            return np.array(kept["chosen"], np.int64)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
        pass
    write_atomically(path, json.dumps({"by": by, "chosen": chosen.tolist()}).encode())
    return chosen


def pseudo_labels(logits: Tensor, temperature: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-labels of unlabelled images for self-training (Lee 2013).

    Args:
        logits: (N, classes). The classifier was trained on equal numbers of images of each class.
        temperature: the classifier's temperature from `calibration.fit_temperature`.
        threshold: the smallest probability of a confident label. The probabilities are adjusted to the class priors of
            these images first.

    Returns:
        The pseudo-labels, int64 (N,), and whether each is confident, bool (N,).

    Raises:
        ValueError: there are no logits.
    """
    classes = logits.shape[1]
    balanced = (logits / temperature).softmax(1).numpy()
    probabilities, _ = calibration.adjust_to_estimated_priors(balanced, np.full(classes, 1 / classes))
    return probabilities.argmax(1).astype(np.int64), probabilities.max(1) >= threshold
