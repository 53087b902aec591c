"""Measures of filled images, classical methods of filling, and too few pixels for them."""

import numpy as np
import pytest
import torch

from utils.evaluation import restoration


@pytest.fixture
def mask():
    """Two missing pixels, then two known pixels. The stripes move by one pixel every four rows."""
    rows, columns = np.indices((64, 64))
    return (columns - rows // 4) % 4 < 2


@pytest.mark.parametrize("name", restoration.CLASSICAL)
def test_classical_methods_keep_known_pixels_and_fill_a_plane(mask, name):
    rows, columns = np.indices((64, 64))
    plane = torch.from_numpy((rows + 2 * columns) / 192).float()[None, None]
    known = torch.from_numpy(~mask)[None, None]
    filled = restoration.CLASSICAL[name](plane * known, known)
    assert filled.dtype == torch.float32 and torch.equal(filled[known], plane[known])
    assert (filled - plane).abs()[..., 2:-2].max() < 0.005  # at the edge there is only one neighbour


def test_psnr_by_hand_uses_only_missing_pixels():
    truth, filled = np.zeros((1, 1, 2, 2)), np.array([[[[0.1, 0.1], [1, 1]]]])
    missing = np.array([[True, True], [False, False]])
    assert restoration.psnr(filled, truth, missing) == pytest.approx([20.0])  # an error of 0.1 is 20 dB


def test_the_confidence_interval_contains_the_mean_and_is_wider_with_groups():
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = restoration.bootstrap_interval(values)
    assert low < values.mean() < high and high - low == pytest.approx(4 / 200**0.5, rel=0.2)
    same = np.repeat(values[:50], 4)  # four copies each, so only 50 values are independent
    wide = restoration.bootstrap_interval(same, np.repeat(np.arange(50), 4))
    narrow = restoration.bootstrap_interval(same)
    assert wide[1] - wide[0] > 1.6 * (narrow[1] - narrow[0])


def test_spectrum_and_contrast_show_a_periodic_trace(mask):
    rng = np.random.default_rng(0)
    clean = rng.uniform(0, 1, (20, 1, 64, 64))
    striped = clean.copy()
    striped[..., mask] = 0.5  # filled with a constant, so there is no texture
    assert restoration.stripe_contrast(striped, mask).max() < 0.1
    assert restoration.stripe_contrast(clean, mask).mean() == pytest.approx(1, abs=0.05)
    periodic = clean + 0.5 * mask
    assert restoration.row_spectrum(periodic)[16] > 5 * restoration.row_spectrum(clean)[16]


IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 1, 16, 16))
COLUMN = np.arange(16) == 3  # a mask: one column


def spoilt(value):
    images = IMAGES.copy()
    images[1] = value
    return images


FEW = {
    "psnr, nothing missing": (
        lambda: restoration.psnr(IMAGES, IMAGES, np.zeros((16, 16), bool)),
        "image 0 has no",
    ),
    "psnr, not filled": (lambda: restoration.psnr(spoilt(np.nan), IMAGES, COLUMN), "image 1 has missing pixels"),
    "psnr": (lambda: restoration.psnr(IMAGES[:0], IMAGES[:0], COLUMN), "0 images"),
    "ssim": (lambda: restoration.ssim(IMAGES[..., :8], IMAGES[..., :8]), "8 pixels on the shorter side .* at least 11"),
    "interval": (lambda: restoration.bootstrap_interval(np.ones(3), np.zeros(3)), "1 values or groups .* at least 2"),
    "spectrum": (lambda: restoration.row_spectrum(IMAGES[:0]), "0 images"),
    "contrast, no stripes": (
        lambda: restoration.stripe_contrast(IMAGES, np.zeros((16, 16), bool)),
        "0 missing vertical neighbours",
    ),
    "contrast, constant": (
        lambda: restoration.stripe_contrast(spoilt(0.5), np.broadcast_to(COLUMN, (16, 16))),
        "image 1 is constant",
    ),
    "cubic": (lambda: restoration.fill_cubic(IMAGES, np.zeros(IMAGES.shape, bool)), "0 known pixels .* at least 4"),
    "cubic, one column": (
        lambda: restoration.fill_cubic(IMAGES, np.broadcast_to(COLUMN, IMAGES.shape)),
        "image 0: all known pixels lie on one line",
    ),
    "biharmonic": (lambda: restoration.fill_biharmonic(IMAGES, np.zeros(IMAGES.shape, bool)), "0 known pixels"),
}


@pytest.mark.parametrize("measure", FEW)
def test_measures_that_would_be_nan_are_refused(measure):
    compute, message = FEW[measure]
    with pytest.raises(ValueError, match=message):
        compute()
