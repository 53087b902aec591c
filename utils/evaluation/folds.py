"""Stratified folds for cross-validation that keep near-copies of an image together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


@dataclass(frozen=True, eq=False)
class Folds:
    """How labelled images are divided for cross-validation.

    Args:
        labels: int64 (N,), the class of each image, numbered from 0.
        groups: int (N,), as of `labelled_hands.groups`. A group is never divided between training and validation.
        count: number of folds, at least 2.
        seed: of the division.

    Raises:
        ValueError: fewer than 2 folds, or a class has fewer groups than there are folds.
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
        """For each fold, the indices of its training images and of its validation images.

        Raises:
            ValueError: the groups are so uneven that a fold has no validation image or lacks a class to train on.
        """
        splitter = StratifiedGroupKFold(self.count, shuffle=True, random_state=self.seed)
        found = list(splitter.split(np.zeros(len(self.labels)), self.labels, self.groups))
        classes = len(np.unique(self.labels))
        for number, (training, validation) in enumerate(found):
            if not len(validation) or len(np.unique(self.labels[training])) < classes:
                raise ValueError(
                    f"fold {number} of {self.count} has {len(validation)} validation images and "
                    f"{len(np.unique(self.labels[training]))} of {classes} classes to train on: the groups of "
                    "near-copies are too uneven. Use fewer folds, or more images that differ."
                )
        return found
