"""Cross-validation of the classifier: folds, one training for each fold, logits of the held-out images, and scores."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from utils.evaluation import require
from utils.files import write_atomically
from utils.models import classifier
from utils.models.classifier import CLASSES, Classifier
from utils.training import identity

CURVE_IMAGES = 300  # each point of the training curve is computed on at most this many validation images
VIEWS = (False, True)  # an image as it is, and mirrored

LabelledImages = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 1, H, W) and labels int64 (N,)


@dataclass(frozen=True, eq=False)
class Folds:
    """A division of labelled images into folds for cross-validation.

    Args:
        labels: int64 (N,), the class of each image. Classes are numbered from 0.
        groups: int (N,), as in `labelled_hands.groups`. All images of a group are in the same fold.
        count: number of folds, at least 2.
        seed: the seed of the division.

    Raises:
        ValueError: there are fewer than 2 folds, or a class has fewer groups than there are folds.
    """

    labels: np.ndarray
    groups: np.ndarray
    count: int
    seed: int

    def __post_init__(self):
        if self.count < 2:
            raise ValueError(f"{self.count} folds: cross-validation needs at least 2")
        if len(self.labels) != len(self.groups) or not len(self.labels):
            raise ValueError(f"{len(self.labels)} labels, {len(self.groups)} group numbers: each image needs both")
        for label in np.unique(self.labels):
            members = self.labels == label
            found = len(np.unique(self.groups[members]))
            if found < self.count:
                raise ValueError(
                    f"class {label} has {members.sum()} images in {found} groups of near-copies: {self.count} folds "
                    f"need at least {self.count} groups of each class"
                )

    @cached_property
    def indices(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The indices of the training images and of the validation images, for each fold.

        Raises:
            ValueError: the groups are too uneven: a fold has no validation images, or no training images of a class.
        """
        splitter = StratifiedGroupKFold(self.count, shuffle=True, random_state=self.seed)
        found = list(splitter.split(np.zeros(len(self.labels)), self.labels, self.groups))
        classes = len(np.unique(self.labels))
        for number, (training, validation) in enumerate(found):
            if not len(validation) or len(np.unique(self.labels[training])) < classes:
                raise ValueError(
                    f"fold {number} of {self.count} has {len(validation)} validation images and "
                    f"{len(np.unique(self.labels[training]))} of {classes} classes to train on: the groups of "
                    "near-copies are too uneven. Use fewer folds, or add images that are not near-copies."
                )
        return found

    @cached_property
    def fold_of(self) -> np.ndarray:
        """The fold of each image, int64 (N,): the one in which it is a validation image."""
        found = np.zeros(len(self.labels), np.int64)
        for number, (_, validation) in enumerate(self.indices):
            found[validation] = number
        return found


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """One training of the classifier for each fold. An interrupted cross-validation goes on from its checkpoints.

    Args:
        images: uint8 (N, 1, H, W).
        folds: the labels of the images, and the fold of each image.
        images_seen, settings: as in `classifier.train`.
        folder: the folder for checkpoints and logits.
        extra: more images and labels to train on. They are never used for validation.
        start: another cross-validation with as many folds. The training of each fold starts from its classifier.

    Raises:
        ValueError: the folds belong to other images, or cannot be made (see `Folds`).
    """

    images: np.ndarray
    folds: Folds
    images_seen: int
    folder: Path
    settings: dict
    extra: LabelledImages | None = None
    start: CrossValidation | None = None

    def __post_init__(self):
        if len(self.images) != len(self.folds.labels):
            raise ValueError(f"{len(self.images)} images, but folds of {len(self.folds.labels)}")

    def train(self, fold: int) -> tuple[Classifier, list[dict]]:
        """The classifier that has not seen the images of this fold, and the history of its training."""
        training, validation = self.folds.indices[fold]
        data = [self.images[training], self.folds.labels[training]]
        if self.extra:
            data = [np.concatenate(pair) for pair in zip(data, self.extra)]
        some = validation[:: -(-len(validation) // CURVE_IMAGES)]
        images, truth = self.images[some], torch.from_numpy(self.folds.labels[some])

        def evaluate(model: Classifier) -> dict[str, float]:
            logits = model.logits(images)
            accuracy = (logits.argmax(1) == truth).float().mean()
            return {"cross_entropy (validation)": F.cross_entropy(logits, truth), "accuracy (validation)": accuracy}

        return classifier.train(
            *data,
            images_seen=self.images_seen,
            folder=self.folder / f"seed_{self.folds.seed}_fold_{fold}",
            settings=self.settings,
            seed=100 * self.folds.seed + fold,
            start=self.start.models[fold] if self.start else None,
            evaluate=evaluate,
            evaluations=5,
            plot=False,
        )

    @cached_property
    def models(self) -> list[Classifier]:
        """The classifiers of all folds."""
        return [self.train(fold)[0] for fold in range(self.folds.count)]

    def logits(self) -> Tensor:
        """Logits (2, N, classes) of the images and of their mirror images, by classifiers that have not seen them.

        They are kept in a file. As long as nothing that they depend on has changed, no training is repeated.
        """
        path = self.folder / f"seed_{self.folds.seed}.npz"
        wanted = json.dumps(self._identity(), sort_keys=True)
        if path.is_file():
            with np.load(path) as stored:
                if str(stored["identity"]) == wanted:
                    return torch.from_numpy(stored["logits"])
        logits = self.changed_logits(lambda images: images)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=logits.numpy(), identity=wanted)
        write_atomically(path, buffer.getvalue())
        return logits

    def changed_logits(self, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """As `logits`, but of changed images: `change` maps images uint8 (n, 1, H, W) to such images."""
        logits = torch.zeros(len(VIEWS), len(self.images), self.settings.get("classes", len(CLASSES)))
        for fold, model in enumerate(self.models):
            validation = self.folds.indices[fold][1]
            held_out = change(self.images[validation])
            logits[:, validation] = torch.stack([model.logits(held_out, mirrored) for mirrored in VIEWS])
        return logits

    def _identity(self) -> dict:
        model = Classifier(**self.settings)
        data = [(self.images, self.folds.labels), (self.folds.groups, self.folds.labels), self.extra or ()]
        return {
            "settings": model.config | {"images_seen": self.images_seen},
            "folds": [self.folds.count, self.folds.seed],
            "data": [classifier.data_hash(*pair) if pair else None for pair in data],
            "start": self.start._identity() if self.start else None,
            "source": identity.of_source(model, classifier.train),
        }


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare class probabilities (N, 3) with labels (N,): 0 is real, 1 is VAE, 2 is GAN.

    `accuracy` and `macro F1` are for the three classes, and `cross-entropy` is in nats. Three measures are for real
    against fake: `F1 real`, `recall real`, the share of reals that are classified as real, and `fakes called real`, the
    share of fakes that are classified as real.

    Raises:
        ValueError: there are no real images or no fakes.
    """
    require(1, "a table of scores", real_images=int((labels == 0).sum()), fakes=int((labels != 0).sum()))
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    counts = np.bincount(classes * labels + predicted, minlength=classes**2).reshape(classes, classes)
    f1 = 2 * counts.diagonal() / np.maximum(counts.sum(0) + counts.sum(1), 1)
    of_truth = probabilities[np.arange(len(labels)), labels]
    return {
        "accuracy": float(counts.diagonal().sum() / len(labels)),
        "macro F1": float(f1.mean()),
        "cross-entropy": float(-np.log(np.clip(of_truth, 1e-12, 1)).mean()),
        "F1 real": float(f1[0]),
        "recall real": float(counts[0, 0] / counts[0].sum()),
        "fakes called real": float(counts[1:, 0].sum() / counts[1:].sum()),
    }


def bootstrap(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, resamples: int = 1000) -> np.ndarray:
    """Bootstrap resamples of `scores` (Efron 1979): float (resamples, 6), in the order of `scores`.

    Whole groups of near-copies are drawn with replacement. Two calls with the same labels and groups draw the same
    images, so the difference of two results belongs to the same images.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rows = []
    for _ in range(resamples):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        rows.append(list(scores(probabilities[drawn], labels[drawn]).values()))
    return np.array(rows)
