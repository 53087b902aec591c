"""Calibrated probabilities: temperature, matrix scaling, and too few images."""

import numpy as np
import pytest
import torch

from utils.evaluation import calibration


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


def test_matrix_scaling_corrects_a_bias_and_is_fitted_to_the_other_folds():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    logits = torch.tensor(np.eye(3)[truth] + rng.normal(0, 0.5, (900, 3)) + [2.0, 0, 0])  # too many logits for real
    fold_of, found = np.arange(900) % 3, calibration.centred(logits)
    assert found.sum(1) == pytest.approx(np.zeros(900), abs=1e-6)
    scaled = calibration.scale_out_of_fold(found, truth, fold_of)
    assert scaled.sum(1) == pytest.approx(np.ones(900))
    assert (scaled.argmax(1) == truth).mean() > (logits.argmax(1).numpy() == truth).mean() + 0.2
    regression = calibration.fit_scaling(found[fold_of != 0], truth[fold_of != 0])
    assert scaled[fold_of == 0] == pytest.approx(regression.predict_proba(found[fold_of == 0]))


def test_too_few_images_are_refused_with_their_number():
    logits, truth = torch.zeros(4, 3), np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match="1 folds are too few: calibration out of fold needs at least 2"):
        calibration.calibrate_out_of_fold(logits, truth, np.zeros(4, int))  # this gave NaN before
    with pytest.raises(ValueError, match="0 held out images are too few"):
        calibration.fit_temperature(logits[:0], torch.from_numpy(truth[:0]))
    with pytest.raises(ValueError, match="0 images of class GAN are too few: matrix scaling"):
        calibration.fit_scaling(np.zeros((4, 4)), np.array([0, 1, 1, 0]))
