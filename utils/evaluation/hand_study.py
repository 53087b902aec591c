"""Coursework 2's trainings: on the test folder without labels, for each row of the table, and for each trial.

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
from utils.evaluation.cross_validation import VIEWS, CrossValidation, Folds, bootstrap, scores
from utils.models.classifier import Classifier

LABELLED, LONGER, BEGUN = "labelled images only", "as many images seen", "begun with the test folder"
RESNET = "ResNet-18"
EXPECTED = "F1 real, test folder"  # a measure
LABELLED_AT_ONCE = 64  # images: their maps fit into the caches of a processor core
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
        """Networks that separate the further reals from the test images that are no near-copies of labelled images."""
        reals, mixture = self.labelled.further_reals, self.test.images[self.test.apart]
        seen, folder = self.budget.pretraining_images, self.folder / "test_folder"
        return pu_learning.against_mixture(reals, mixture, seen, folder, {}, self.budget.folds)

    def cross_validation(
        self, name: str, settings: dict, seed: int, images_seen: int, start: CrossValidation | None = None
    ) -> CrossValidation:
        """Networks on the labelled images of all folds but one, and on the further reals."""
        folds = Folds(self.labelled.labels, self.labelled.groups, self.budget.folds, seed)
        folder = self.folder / name.replace(" ", "_")
        extra = labelled_hands.further_reals(self.labelled)
        return CrossValidation(self.labelled.images, folds, images_seen, folder, settings, extra, start)

    def row(self, name: str, settings: dict, seed: int) -> CrossValidation:
        """The networks of a row of the table: LABELLED, LONGER or BEGUN. The last two see equally many images."""
        seen = self.budget.images + (self.budget.pretraining_images if name == LONGER else 0)
        return self.cross_validation(name, settings, seed, seen, self.pretraining if name == BEGUN else None)

    def opponent(self, settings: dict, seed: int, images_seen: int) -> CrossValidation:
        """Plain networks of another kind (`classifier.resnet18`), with the same settings and folds."""
        return self.cross_validation(RESNET, settings | {"resnet": True}, seed, images_seen)

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


def measures(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, share: float
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """`cross_validation.scores` and EXPECTED: the F1 of *real* to be expected where `share` of the images are real.

    Returns:
        Each measure of probabilities (N, 3), and its values in the resamples of `cross_validation.bootstrap`.
    """

    def with_expected(found: dict) -> dict:
        return found | {EXPECTED: pu_learning.f1_at_share(share, found["recall real"], found["fakes called real"])}

    found = scores(probabilities, labels)
    draws = dict(zip(found, bootstrap(probabilities, labels, groups).T))
    return with_expected(found), with_expected(draws)


def one_view_each(logits: Tensor) -> Tensor:
    """Mean logits (N, classes) over the seeds of logits (seeds, 2, N, classes), with one view of each seed.

    As in `mean_logits`, every second seed judges the mirror images instead.
    """
    return torch.stack([found[i % 2] for i, found in enumerate(logits)]).mean(0)


def mean_logits(models: list[Classifier], images: np.ndarray) -> Tensor:
    """Logits (N, classes) of images uint8 (N, 1, H, W): the mean over networks that have not seen the images.

    Every second network judges the mirror images instead. So there are two views, at the cost of one.
    """
    views = [model.logits(images, VIEWS[i % 2], LABELLED_AT_ONCE) for i, model in enumerate(models)]
    return torch.stack(views).mean(0)
