"""Learning from positive and unlabelled images."""

import numpy as np
import pytest
import torch

from tests.conftest import three_kinds
from utils.evaluation import pu_learning
from utils.models.classifier import Classifier


def test_only_pseudo_labels_with_a_high_probability_are_confident():
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 9.0], [8.0, 2.0, 0.0]])
    labels, confident = pu_learning.pseudo_labels(logits, 1.0, 0.9)
    assert labels.dtype == np.int64 and labels[confident].tolist() == [0, 2, 0] and not confident[1]


def test_reals_are_found_in_a_mixture_without_labelled_fakes(tmp_path):
    images, truth = three_kinds(150, seed=1)
    mixture = np.concatenate([images[truth == 0][100:], images[truth != 0][::2]])  # a quarter of them are real
    reals = three_kinds(200, seed=2)[0][:200]
    found = pu_learning.estimate_density_ratio(reals, mixture, 6000, tmp_path, {"base": 8}, num_folds=2, seed=0)
    assert len(found.first) == len(found.second) == len(found.fold_of) == 200 and len(found.models) == 2
    for number, model in enumerate(found.models):  # an image gets the network that has not seen it
        ratio = pu_learning.log_ratio(model.logits(mixture[found.fold_of == number], ((0, 0),)))
        assert torch.allclose(ratio, found.second[found.fold_of == number])
    real, share = pu_learning.real_probability(found.first, found.second)
    assert share == pytest.approx(0.25, abs=0.15)
    assert ((real > 0.5) == (np.arange(200) < 50)).mean() > 0.9
    unseen, kinds = three_kinds(30, seed=3)
    votes = pu_learning.real_votes(found.models, unseen, np.log(2 * share))
    assert votes[kinds == 0].mean() > 0.8 and votes[kinds != 0].mean() < 0.2


def test_real_probability_by_hand():
    # Half of the mixture is real. Typical real images have a ratio of 1/2, and fakes have a much higher ratio.
    reals = torch.tensor([0.5, 0.5, 0.5, 2.0]).log()
    real, share = pu_learning.real_probability(reals, torch.tensor([0.5, 1.0, 50.0, 0.1]).log())
    assert share == pytest.approx(0.5) and real == pytest.approx([1, 0.5, 0.01, 1])


def test_too_few_images_are_refused_before_the_training(tmp_path):
    images, _ = three_kinds(4)
    options = {"num_folds": 5, "seed": 0}
    with pytest.raises(ValueError, match="3 images in the second set are too few: cross-validation with 5 folds"):
        pu_learning.estimate_density_ratio(images, images[:3], 64, tmp_path, {}, **options)
    copies = np.repeat(images[:1], 12, axis=0)
    with pytest.raises(ValueError, match="class 1 has 12 images in 1 groups of near-copies: 5 folds need at least 5"):
        pu_learning.estimate_density_ratio(images[1:], copies, 64, tmp_path, {}, **options)
    with pytest.raises(ValueError, match="0 real images are too few"):
        pu_learning.real_probability(torch.zeros(0), torch.zeros(3))  # this gave NaN before
    with pytest.raises(ValueError, match="0 unlabelled images are too few"):
        pu_learning.pseudo_labels(torch.zeros(0, 3), 1.0, 0.9)
    assert not list(tmp_path.iterdir())


def test_the_first_choice_of_networks_is_kept(tmp_path):
    models, others = ([Classifier(base=4) for _ in range(2)] for _ in range(2))
    chosen = np.array([1, 4, 7])
    assert pu_learning.first_choice(tmp_path / "run", models, chosen).tolist() == [1, 4, 7]
    again = pu_learning.first_choice(tmp_path / "run", models, np.array([1, 4]))  # another machine
    assert again.tolist() == [1, 4, 7] and again.dtype == np.int64
    assert pu_learning.first_choice(tmp_path / "run", others, np.array([2])).tolist() == [2]
    (tmp_path / "run" / "chosen.json").write_text("{", encoding="utf-8")
    assert pu_learning.first_choice(tmp_path / "run", others, np.array([3])).tolist() == [3]
