"""Calibrated probabilities: temperature, class priors, stacking, and too few images."""

import numpy as np
import pytest
import torch

from utils.evaluation import calibration
from utils.evaluation.cross_validation import Folds


def test_the_true_temperature_is_found():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3) * 2
    truth = torch.distributions.Categorical(logits=logits).sample()
    assert calibration.fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.08)
    fold_of = np.arange(4000) % 4
    found = calibration.calibrate_out_of_fold(3 * logits, truth.numpy(), fold_of)
    assert np.abs(found - logits.softmax(1).numpy()).max() < 0.06
    first, others = fold_of == 0, torch.from_numpy(fold_of != 0)  # the temperature is fitted to the others
    temperature = calibration.fit_temperature(3 * logits[others], truth[others])
    assert found[first] == pytest.approx((3 * logits[~others] / temperature).softmax(1).numpy(), abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_are_finite_if_all_logits_are_right_or_all_are_wrong(sign):
    truth = np.arange(30) % 3
    logits = sign * 5 * torch.eye(3)[truth]
    assert np.isfinite(calibration.calibrate_out_of_fold(logits, truth, np.arange(30) % 2)).all()


def test_class_priors_of_unlabelled_images_are_found():
    torch.manual_seed(0)
    priors = np.array([0.2, 0.5, 0.3])
    truth = np.random.default_rng(0).choice(3, 6000, p=priors)
    centre = 2.0 * np.eye(3)[truth]
    x = torch.tensor(centre + np.random.default_rng(1).normal(size=centre.shape))
    logits = 2.0 * x  # the log likelihood ratios of three unit Gaussians with means 2 e_k
    equal = logits.softmax(1).numpy()
    probabilities, found = calibration.adjust_to_estimated_priors(equal, np.full(3, 1 / 3))
    assert found == pytest.approx(priors, abs=0.02)
    assert (probabilities.argmax(1) == truth).mean() > (logits.argmax(1).numpy() == truth).mean()


def test_stacking_weights_its_features_and_corrects_a_bias():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    logits = torch.tensor(np.eye(3)[truth] + rng.normal(0, 1.0, (900, 3)) + [2.0, 0, 0])  # too many logits for real
    ratio = torch.tensor(np.where(truth == 0, -2.0, 2.0) + rng.normal(0, 1.0, 900))
    features = calibration.stacking_features(logits, ratio)
    assert features.shape == (900, 4)
    stacked = calibration.stack_out_of_fold(features, Folds(truth, np.arange(900), 3, seed=0))
    assert stacked.sum(1) == pytest.approx(np.ones(900))
    assert (stacked.argmax(1) == truth).mean() > (logits.argmax(1).numpy() == truth).mean() + 0.2
    adjusted, priors = calibration.adjust_to_estimated_priors(stacked[truth != 0], np.bincount(truth) / len(truth))
    assert priors[0] < 0.1 and adjusted.shape == (int((truth != 0).sum()), 3)


def test_too_few_images_are_refused_with_their_number():
    logits, truth = torch.zeros(4, 3), np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match="1 folds are too few: calibration out of fold needs at least 2"):
        calibration.calibrate_out_of_fold(logits, truth, np.zeros(4, int))  # this gave NaN before
    with pytest.raises(ValueError, match="0 held out images are too few"):
        calibration.fit_temperature(logits[:0], torch.from_numpy(truth[:0]))
    with pytest.raises(ValueError, match="0 unlabelled images are too few"):
        calibration.estimate_priors(np.zeros((0, 3)), np.full(3, 1 / 3))
    with pytest.raises(ValueError, match="class 2 has a prior of 0 in training"):
        calibration.estimate_priors(np.full((5, 3), 1 / 3), np.array([0.5, 0.5, 0.0]))
    with pytest.raises(ValueError, match="0 images of class GAN are too few: stacking"):
        calibration.fit_stacking(np.zeros((4, 4)), np.array([0, 1, 1, 0]))
