"""Probabilities: temperature, class shares, stacking."""

import numpy as np
import pytest
import torch

from utils.evaluation import calibration


def test_temperature_is_found_again():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3) * 2
    truth = torch.distributions.Categorical(logits=logits).sample()
    assert calibration.temperature(3 * logits, truth) == pytest.approx(3, rel=0.08)
    parts = np.arange(4000) % 4
    sharp = calibration.calibrated(3 * logits, truth.numpy(), parts)
    assert np.abs(sharp - logits.softmax(1).numpy()).max() < 0.06
    first, others = parts == 0, torch.from_numpy(parts != 0)  # the first part's temperature is that of the others
    divisor = calibration.temperature(3 * logits[others], truth[others])
    assert sharp[first] == pytest.approx((3 * logits[~others] / divisor).softmax(1).numpy(), abs=1e-6)


def test_class_shares_of_unlabelled_images_are_found():
    torch.manual_seed(0)
    shares = np.array([0.2, 0.5, 0.3])
    truth = np.random.default_rng(0).choice(3, 6000, p=shares)
    centre = 2.0 * np.eye(3)[truth]
    x = torch.tensor(centre + np.random.default_rng(1).normal(size=centre.shape))
    logits = 2.0 * x  # the log likelihood ratios of three unit Gaussians at 2 e_k
    equal = logits.softmax(1).numpy()
    probabilities, found = calibration.adjust_to_estimated_priors(equal, np.full(3, 1 / 3))
    assert found == pytest.approx(shares, abs=0.02)
    assert (probabilities.argmax(1) == truth).mean() > (logits.argmax(1).numpy() == truth).mean()


def test_stacking_weighs_the_evidence_and_knows_the_offset():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    logits = torch.tensor(np.eye(3)[truth] + rng.normal(0, 1.0, (900, 3)) + [2.0, 0, 0])  # partial to reals
    ratio = torch.tensor(np.where(truth == 0, -2.0, 2.0) + rng.normal(0, 1.0, 900))
    evidence = calibration.evidence(logits, ratio)
    assert evidence.shape == (900, 4)
    joint = calibration.stacked(evidence, truth, np.arange(900), 3, seed=0)
    assert joint.sum(1) == pytest.approx(np.ones(900))
    accuracy = (joint.argmax(1) == truth).mean()
    assert accuracy > (logits.argmax(1).numpy() == truth).mean() + 0.2
    moved, shares = calibration.adjust_to_estimated_priors(joint[truth != 0], np.bincount(truth) / len(truth))
    assert shares[0] < 0.1 and moved.shape == (int((truth != 0).sum()), 3)
