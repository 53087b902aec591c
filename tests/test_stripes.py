"""The mask, its variants, and what is measured of filled images."""

import numpy as np
import pytest
import torch

from utils.data import masks
from utils.evaluation import restoration


@pytest.fixture
def mask():
    """Two missing, two known, leaning by one pixel in four rows."""
    rows, columns = np.indices((64, 64))
    return (columns - rows // 4) % 4 < 2


def test_mask_is_what_is_missing_in_all_images_and_not_one_images_background(mask):
    images = np.random.default_rng(0).uniform(0.01, 1, (20, 1, 64, 64)).astype(np.float32)
    images[3, 0, :10] = 0  # one image's black background
    assert (masks.find_mask(images * ~mask) == mask).all()


def test_nothing_missing_and_nothing_known_are_refused():
    with pytest.raises(ValueError, match="no pixel is missing"):
        masks.find_mask(np.ones((2, 1, 8, 8)))
    with pytest.raises(ValueError, match="no pixel is known"):
        masks.find_mask(np.zeros((2, 1, 8, 8)))


def test_variants_hide_as_much_and_differ(mask):
    torch.manual_seed(0)
    variants = masks.vary(torch.from_numpy(mask), 50)
    assert variants.shape == (50, 64, 64) and variants.dtype == torch.bool
    assert (variants.float().mean((1, 2)) == mask.mean()).all()  # rows are rolled: not a pixel more or less
    assert len({v.numpy().tobytes() for v in variants}) == 50


def test_hidden_lines_are_sparse_and_everywhere():
    torch.manual_seed(0)
    lines = masks.hide_lines((64, 64), 200).float()
    assert 0.05 < lines.mean() < 0.4
    assert lines.mean(0).min() > 0.05  # every pixel is asked for now and then


def test_row_interpolation_by_hand():
    row = torch.tensor([[[[0.0, 1.0, 0.0, 0.0, 4.0, 0.0]]]])
    known = torch.tensor([[[[False, True, False, False, True, False]]]])
    assert masks.fill_rows(row, known).flatten().tolist() == pytest.approx([1, 1, 2, 3, 4, 4])
    assert masks.fill_rows(row, torch.zeros_like(known)).flatten().tolist() == [0] * 6  # nothing to go by


def test_row_interpolation_agrees_with_numpy(mask):
    images = torch.rand(3, 1, 64, 64)
    known = ~torch.from_numpy(mask)
    filled = masks.fill_rows(images * known, known.expand(images.shape))
    place = np.arange(64)
    for image, found in zip(images[:, 0].numpy(), filled[:, 0].numpy()):
        for row in range(64):
            k = ~mask[row]
            np.testing.assert_allclose(found[row], np.interp(place, place[k], image[row, k]), atol=1e-6)


@pytest.mark.parametrize("fill", [restoration.fill_cubic, restoration.fill_biharmonic])
def test_classical_methods_keep_known_pixels_and_follow_a_plane(mask, fill):
    rows, columns = np.indices((64, 64))
    plane = ((rows + 2 * columns) / 192).astype(np.float32)[None, None]
    known = ~mask[None, None]
    filled = fill(plane * known, known)
    assert (filled[known] == plane[known]).all()
    assert np.abs(filled - plane)[..., 2:-2].max() < 0.005  # at the edge there is but one neighbour


def test_psnr_by_hand_looks_at_missing_pixels_alone():
    truth, filled = np.zeros((1, 1, 2, 2)), np.array([[[[0.1, 0.1], [1, 1]]]])
    missing = np.array([[True, True], [False, False]])
    assert restoration.psnr(filled, truth, missing) == pytest.approx([20.0])  # error 0.1: 20 dB


def test_interval_covers_the_mean_and_widens_with_groups():
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = restoration.interval(values)
    assert low < values.mean() < high and high - low == pytest.approx(4 / 200**0.5, rel=0.2)
    same = np.repeat(values[:50], 4)  # four copies each: no more than 50 independent values
    wide = restoration.interval(same, np.repeat(np.arange(50), 4))
    narrow = restoration.interval(same)
    assert wide[1] - wide[0] > 1.6 * (narrow[1] - narrow[0])


def test_a_periodic_trace_shows_in_spectrum_and_contrast(mask):
    rng = np.random.default_rng(0)
    clean = rng.uniform(0, 1, (20, 1, 64, 64))
    striped = clean.copy()
    striped[..., mask] = 0.5  # filled with a constant: no texture
    assert restoration.stripe_contrast(striped, mask).max() < 0.1
    assert restoration.stripe_contrast(clean, mask).mean() == pytest.approx(1, abs=0.05)
    periodic = clean + 0.5 * mask
    assert restoration.spectrum(periodic)[16] > 5 * restoration.spectrum(clean)[16]
