"""Stratified folds for cross-validation. Near-copies of an image stay in the same fold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


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
