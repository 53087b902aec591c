"""Coursework 2's trainings: the search's design, the rows, the trials, and which network judges a test image."""

from collections import Counter

import numpy as np
import pytest
import torch

from tests.conftest import three_kinds
from utils.budgets import Classifier as Budget
from utils.data import labelled_hands
from utils.evaluation import hand_study
from utils.evaluation.hand_study import HandStudy


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    images, labels = three_kinds(8)
    names, groups = [str(i) for i in range(24)], np.arange(24)
    reals, test_images = three_kinds(10, seed=1)[0][:10], three_kinds(6, seed=2)[0]
    labelled = labelled_hands.Labelled(images, labels, names, groups, reals, [], 0, "drawn")
    apart = np.arange(18) != 4
    test = labelled_hands.Unlabelled(test_images, names[:18], apart, [], None, "drawn")
    return HandStudy(labelled, test, Budget(512, 256, folds=2, seeds=1), tmp_path_factory.mktemp("study"))


def test_each_value_of_each_range_is_in_equally_many_trials():
    design = hand_study.balanced_design(hand_study.RANGES, 30)
    assert len(design) == 30 and design == hand_study.balanced_design(hand_study.RANGES, 30)
    for name, values in hand_study.RANGES.items():
        counts = Counter(settings[name] for settings in design)
        assert set(counts) == set(values) and max(counts.values()) - min(counts.values()) <= 1
    assert len({tuple(settings.values()) for settings in design}) > 25


def test_near_copies_of_labelled_images_are_left_out_of_the_test_folder(study):
    folds = study.pretraining.folds
    assert len(folds.labels) == 10 + 17 and (folds.labels[:10] == 0).all()  # one test image is a near-copy


def test_rows_of_equal_length_see_equally_many_images(study):
    seen = {name: study.row(name, {"lr": 0.001}, 1) for name in (hand_study.LONGER, hand_study.BEGUN)}
    assert seen[hand_study.LONGER].images_seen == 512 + 256 and seen[hand_study.LONGER].start is None
    assert seen[hand_study.BEGUN].images_seen == 256 and seen[hand_study.BEGUN].start is study.pretraining
    labelled = study.row(hand_study.LABELLED, {"lr": 0.001}, 1)
    assert labelled.images_seen == 256 and labelled.start is None


def test_the_opponent_is_a_resnet_with_the_same_settings_and_folds(study):
    ours, opponent = study.row(hand_study.LONGER, {"lr": 0.001}, 1), study.opponent({"lr": 0.001}, 1, 128)
    assert opponent.settings == {"lr": 0.001, "resnet": True} and opponent.images_seen == 128
    assert (opponent.folds.fold_of == ours.folds.fold_of).all() and opponent.folder != ours.folder


def test_one_view_each_is_what_mean_logits_gives_for_the_test_folder():
    logits = torch.arange(3 * 2 * 4 * 3.0).view(3, 2, 4, 3)
    assert torch.equal(hand_study.one_view_each(logits), (logits[0, 0] + logits[1, 1] + logits[2, 0]) / 3)
    assert torch.equal(hand_study.one_view_each(logits[:1]), logits[0, 0])


def test_losses_of_a_trial_and_mean_logits(study):
    settings = {"lr": 0.002, "dropout": 0.2}
    losses = study.losses(settings, [0, 1], 256)
    assert len(losses) == 2 and losses[0] != losses[1] and losses == study.losses(settings, [0, 1], 256)
    first, second = study.trial(settings, 0, 256).models
    images = study.test.images
    expected = (first.logits(images) + second.logits(images, mirrored=True)) / 2
    assert torch.allclose(hand_study.mean_logits([first, second], images), expected, atol=1e-5)


def test_measures_and_their_resamples():
    labels, groups = np.array([0, 1, 2] * 20), np.arange(60)
    probabilities = np.eye(3)[labels] * 0.8 + 0.1
    probabilities[[1, 2, 0]] = probabilities[[0, 0, 1]]  # of 20 reals 1 is lost; of 40 fakes 2 are called real
    found, draws = hand_study.measures(probabilities, labels, groups, 1 / 3)
    assert found[hand_study.EXPECTED] == pytest.approx(found["F1 real"]) == pytest.approx(2 * 19 / (20 + 21))
    assert set(found) == set(draws) and draws["accuracy"].shape == (1000,)
    assert draws["accuracy"].mean() == pytest.approx(found["accuracy"], abs=0.01)
    rarer, _ = hand_study.measures(probabilities, labels, groups, 0.1)
    assert rarer[hand_study.EXPECTED] < found[hand_study.EXPECTED]
