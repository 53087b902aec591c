"""Coursework 2's trainings: on the test folder without labels, for each row of the table, for each trial, and the last.

Both notebooks share the networks that learn from the test folder. All other networks have a folder of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import budgets
from utils.data import labelled_hands
from utils.evaluation import calibration, pu_learning
from utils.evaluation.cross_validation import VIEWS, CrossValidation, Folds, scores
from utils.models import classifier
from utils.models.classifier import Classifier

LABELLED, LONGER, RESNET = "labelled images only", "as many images seen", "ResNet-18, as many images seen"
BEGUN, PRESUMED, HIGH_PASS = "begun with the test folder", "begun with presumed fakes", "begun with high-pass inputs"
ROWS = (LABELLED, LONGER, RESNET, BEGUN, PRESUMED, HIGH_PASS)
RANGES = {  # of the search
    "lr": (0.0005, 0.001, 0.002, 0.004),
    "weight_decay": (0.003, 0.03, 0.3),
    "dropout": (0.0, 0.2, 0.5),
    "smoothing": (0.0, 0.05, 0.1),
    "shift": (0, 1, 2, 4),
}


def balanced_design(ranges: dict[str, tuple], trials: int, seed: int = 0) -> list[dict]:
    """Settings of `trials` trials. Each value of each range is in equally many trials, or in one more or less.

    The values of different ranges are combined at random. So the mean over all trials with a value shows its effect.
    This is a random search (Bergstra & Bengio 2012) in which no end of a range is left out by chance.
    """
    rng = np.random.default_rng(seed)
    columns = {name: rng.permutation(np.resize(np.arange(len(x)), trials)) for name, x in ranges.items()}
    return [{name: ranges[name][column[i]] for name, column in columns.items()} for i in range(trials)]


@dataclass(frozen=True, eq=False)
class HandStudy:
    """All trainings of coursework 2. Each is repeated only if something that it depends on has changed.

    Args:
        labelled, test: from `labelled_hands.load`.
        budget: how much is trained.
        folder: the folder for checkpoints and logits.
    """

    labelled: labelled_hands.Labelled
    test: labelled_hands.Unlabelled
    budget: budgets.Classifier
    folder: Path

    @cached_property
    def pretraining(self) -> CrossValidation:
        """Networks that separate the further reals from the test folder; see `against_reals`."""
        return self.against_reals("test folder", self._mixture, self.budget.pretraining_images, high_pass=False)

    @cached_property
    def pretraining_of_high_pass(self) -> CrossValidation:
        """The same for networks that get the high-pass residuals too."""
        return self.against_reals(
            "test folder high-pass", self._mixture, self.budget.pretraining_images, high_pass=True
        )

    @property
    def _mixture(self) -> np.ndarray:
        """The test images that are no near-copies of labelled images."""
        return self.test.images[self.test.apart]

    def against_reals(self, name: str, images: np.ndarray, images_seen: int, high_pass: bool) -> CrossValidation:
        """Networks that separate the further reals from images uint8 (N, 1, H, W); see `pu_learning`."""
        settings, folder = {"high_pass": high_pass}, self.folder / name.replace(" ", "_")
        reals, folds = self.labelled.further_reals, self.budget.folds
        return pu_learning.against_mixture(reals, images, images_seen, folder, settings, folds)

    @cached_property
    def presumed(self) -> CrossValidation:
        """As `pretraining`, but in two halves: the second half is without test images that the first calls real."""
        half, count = self.budget.pretraining_images // 2, len(self.labelled.further_reals)
        first = self.against_reals("first half", self._mixture, half, high_pass=False)
        ratio = pu_learning.log_ratio(first.logits())
        real, _ = pu_learning.real_probability(ratio[:count], ratio[count:])
        fakes = self._mixture[real <= max(0.5, np.median(real))]  # at least half, however little is learned
        return self.against_reals("second half", fakes, half, high_pass=False)

    @cached_property
    def test_folds(self) -> np.ndarray:
        """The fold of each test image, int (N,). The network of this fold has not seen it, in any training."""
        found = np.arange(len(self.test.images)) % self.budget.folds  # no network has seen those that are not `apart`
        found[self.test.apart] = self.pretraining.folds.fold_of[len(self.labelled.further_reals) :]
        return found

    def cross_validation(
        self, name: str, settings: dict, seed: int, images_seen: int, start: CrossValidation | None = None
    ) -> CrossValidation:
        """Networks on the labelled images of all folds but one, and on the further reals."""
        folds = Folds(self.labelled.labels, self.labelled.groups, self.budget.folds, seed)
        folder = self.folder / name.replace(" ", "_").replace(",", "")
        extra = labelled_hands.further_reals(self.labelled)
        return CrossValidation(self.labelled.images, folds, images_seen, folder, settings, extra, start)

    def row(self, name: str, settings: dict, seed: int) -> CrossValidation:
        """The networks of one of the table's ROWS."""
        seen, both = self.budget.images, self.budget.images + self.budget.pretraining_images
        changes, seen, start = {
            LABELLED: ({}, seen, None),
            LONGER: ({}, both, None),
            RESNET: ({"resnet": True}, both, None),
            BEGUN: ({}, seen, "pretraining"),
            PRESUMED: ({}, seen, "presumed"),
            HIGH_PASS: ({"high_pass": True}, seen, "pretraining_of_high_pass"),
        }[name]
        return self.cross_validation(name, settings | changes, seed, seen, start and getattr(self, start))

    def trial(self, settings: dict, seed: int, images_seen: int) -> CrossValidation:
        """The networks of one trial of the search."""
        name = " ".join(f"{key} {value}" for key, value in settings.items())
        return self.cross_validation(f"search/{name} {images_seen}", settings, seed, images_seen, self.pretraining)

    def losses(self, settings: dict, seeds: Iterable[int], images_seen: int) -> list[float]:
        """For each seed, the cross-entropy of a trial's calibrated probabilities, out of fold, in nats."""
        found = []
        for seed in seeds:
            run = self.trial(settings, seed, images_seen)
            labels = run.folds.labels
            probabilities = calibration.calibrate_out_of_fold(run.logits().mean(0), labels, run.folds.fold_of)
            found.append(scores(probabilities, labels)["cross-entropy"])
        return found

    def final(self, settings: dict, seed: int, fold: int) -> tuple[Classifier, list[dict]]:
        """The network for the test images of one fold, trained on all labelled images, and its history."""
        reals, labels = labelled_hands.further_reals(self.labelled)
        return classifier.train(
            np.concatenate([self.labelled.images, reals]),
            np.concatenate([self.labelled.labels, labels]),
            images_seen=self.budget.images,
            folder=self.folder / "final" / f"seed_{seed}_fold_{fold}",
            settings=settings,
            seed=100 * seed + fold,
            start=self.pretraining.models[fold],
            evaluations=5,
            plot=False,
        )


def mean_logits(models: list[list[Classifier]], images: np.ndarray, fold_of: np.ndarray) -> Tensor:
    """Logits (N, classes) of images uint8 (N, 1, H, W): the mean over the seeds and over both mirror images.

    Args:
        models: for each seed, one network for each fold.
        fold_of: int (N,), the fold whose networks judge the image.
    """
    logits = torch.zeros(len(images), models[0][0].config["classes"])
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        each = [networks[fold].logits(images[inside], mirrored) for networks in models for mirrored in VIEWS]
        logits[inside] = torch.stack(each).mean(0)
    return logits
