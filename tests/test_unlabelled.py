"""Learning from images without labels."""

import numpy as np
import pytest
import torch

from tests.conftest import three_kinds
from utils.evaluation import pu_learning


def test_pseudo_labels_are_those_the_classifier_is_sure_of():
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 9.0], [8.0, 2.0, 0.0]])
    given, sure = pu_learning.pseudo_labels(logits, 1.0, 0.9)
    assert given.dtype == np.int64 and given[sure].tolist() == [0, 2, 0] and not sure[1]


def test_reals_are_found_in_a_mixture_without_any_labelled_fake(tmp_path):
    images, truth = three_kinds(150, seed=1)
    mixture = np.concatenate([images[truth == 0][100:], images[truth != 0][::2]])  # a quarter is real
    reals = three_kinds(200, seed=2)[0][:200]
    found = pu_learning.estimate_density_ratio(reals, mixture, 6000, tmp_path, {"base": 8}, 2, seed=0)
    assert len(found.first) == len(found.second) == len(found.folds) == 200 and len(found.models) == 2
    for number, model in enumerate(found.models):  # an image was judged by a network that has not seen it
        ratio = pu_learning.log_ratio(model.logits(mixture[found.folds == number], ((0, 0),)))
        assert torch.allclose(ratio, found.second[found.folds == number])
    real, share = pu_learning.real_probability(found.first, found.second)
    assert share == pytest.approx(0.25, abs=0.15)
    assert ((real > 0.5) == (np.arange(200) < 50)).mean() > 0.9
    unseen, kinds = three_kinds(30, seed=3)
    assert (pu_learning.passed(found.models, unseen, np.log(2 * share))[kinds == 0]).mean() > 0.8
    assert (pu_learning.passed(found.models, unseen, np.log(2 * share))[kinds != 0]).mean() < 0.2


def test_real_probability_by_hand():
    # half of the mixture is real: typical real images have a ratio of 1/2, fakes one far above it
    reals = torch.tensor([0.5, 0.5, 0.5, 2.0]).log()
    real, share = pu_learning.real_probability(reals, torch.tensor([0.5, 1.0, 50.0, 0.1]).log())
    assert share == pytest.approx(0.5) and real == pytest.approx([1, 0.5, 0.01, 1])
