"""Learning from positive and unlabelled images."""

import numpy as np
import pytest
import torch

from tests.conftest import three_kinds
from utils.evaluation import pu_learning


def test_reals_are_found_in_a_mixture_without_labelled_fakes(tmp_path):
    images, truth = three_kinds(150, seed=1)
    mixture = np.concatenate([images[truth == 0][100:], images[truth != 0][::2]])  # a quarter of them are real
    reals = three_kinds(200, seed=2)[0][:200]
    found = pu_learning.against_mixture(reals, mixture, 12_000, tmp_path, {"base": 8}, count=2)
    ratio = pu_learning.log_ratio(found.logits())
    share = float(ratio[:200].median().exp())
    assert share == pytest.approx(0.25, abs=0.15)
    assert ((ratio[200:].exp().numpy() < 2 * share) == (np.arange(200) < 50)).mean() > 0.9
    assert found.models[0].config["classes"] == 2 and found.models[0].config["smoothing"] == 0


def test_log_ratio_is_the_mean_over_the_views():
    logits = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[1.0, 5.0], [2.0, 0.0]]])
    assert pu_learning.log_ratio(logits).tolist() == [3.0, -1.0]
    assert pu_learning.log_ratio(logits[0]).tolist() == [2.0, 0.0]


def test_too_few_images_are_refused_before_the_training(tmp_path):
    images, _ = three_kinds(4)
    with pytest.raises(ValueError, match="3 images in the second set are too few: cross-validation with 5 folds"):
        pu_learning.against_mixture(images, images[:3], 256, tmp_path, {}, 5)
    copies = np.repeat(images[:1], 12, axis=0)
    with pytest.raises(ValueError, match="class 1 has 12 images in 1 groups of near-copies: 5 folds need at least 5"):
        pu_learning.against_mixture(images[1:], copies, 256, tmp_path, {}, 5)
    assert not list(tmp_path.iterdir())


def test_f1_at_another_share_of_reals_by_counting():
    assert pu_learning.f1_at_share(0.5, 1.0, 0.0) == 1
    true, missed, passed = 90, 10, 30  # of 100 reals and 300 fakes
    assert pu_learning.f1_at_share(0.25, 0.9, 0.1) == pytest.approx(2 * true / (2 * true + missed + passed))
    assert pu_learning.f1_at_share(0.1, 0.9, 0.1) < pu_learning.f1_at_share(0.25, 0.9, 0.1)
