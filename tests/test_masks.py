"""The mask, its variants, and interpolation along rows."""

import numpy as np
import pytest
import torch

from utils.data import masks


@pytest.fixture
def mask():
    """Two missing pixels, then two known pixels. The stripes move by one pixel every four rows."""
    rows, columns = np.indices((64, 64))
    return (columns - rows // 4) % 4 < 2


def test_a_missing_pixel_is_0_in_all_images_and_not_only_in_one(mask):
    images = np.random.default_rng(0).uniform(0.01, 1, (20, 1, 64, 64)).astype(np.float32)
    images[3, 0, :10] = 0  # the black background of one image
    assert (masks.find_mask(images * ~mask) == mask).all()


def test_images_without_missing_or_without_known_pixels_are_refused():
    with pytest.raises(ValueError, match="no pixel is missing"):
        masks.find_mask(np.ones((5, 1, 8, 8)))
    with pytest.raises(ValueError, match="no pixel is known"):
        masks.find_mask(np.zeros((5, 1, 8, 8)))


def test_too_few_images_for_finding_the_mask_are_refused(mask):
    with pytest.raises(ValueError, match="4 images are too few to find the mask.* At least 5"):
        masks.find_mask(np.ones((4, 1, 64, 64)) * ~mask)


def test_variants_hide_the_same_number_of_pixels_and_differ(mask):
    torch.manual_seed(0)
    variants = masks.vary(torch.from_numpy(mask), 50)
    assert variants.shape == (50, 64, 64) and variants.dtype == torch.bool
    assert (variants.float().mean((1, 2)) == mask.mean()).all()  # rows are rolled, so the number of pixels is the same
    assert len({v.numpy().tobytes() for v in variants}) == 50


def test_hidden_lines_are_sparse_and_everywhere():
    torch.manual_seed(0)
    lines = masks.hide_lines((64, 64), 200).float()
    assert 0.05 < lines.mean() < 0.4
    assert lines.mean(0).min() > 0.05  # every pixel is hidden sometimes


def test_other_masks_hide_a_part_of_every_image_and_every_pixel_sometimes():
    torch.manual_seed(0)
    other = masks.other_masks((64, 64), 400)
    shares = other.float().mean((1, 2))
    assert other.dtype == torch.bool and shares.min() > 0.05 and shares.max() < 0.85 and 0.3 < shares.mean() < 0.6
    assert other.float().mean(0).min() > 0.2


def test_the_distance_to_the_nearest_known_pixel():
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:25, 10:40] = True
    assert masks.farthest(mask) == 3


def test_gaps_that_are_too_large_are_refused(mask):
    images = np.random.default_rng(0).uniform(0.01, 1, (20, 1, 64, 64)).astype(np.float32)
    images[:, :, 20:50, 20:50] = 0
    with pytest.raises(ValueError, match="15 pixels away from the nearest known pixel, but at most 8"):
        masks.mask_of(images, mask)


def test_row_interpolation_by_hand():
    row = torch.tensor([[[[0.0, 1.0, 0.0, 0.0, 4.0, 0.0]]]])
    known = torch.tensor([[[[False, True, False, False, True, False]]]])
    assert masks.fill_rows(row, known).flatten().tolist() == pytest.approx([1, 1, 2, 3, 4, 4])
    assert masks.fill_rows(row, torch.zeros_like(known)).flatten().tolist() == [0] * 6  # no known pixel


def test_row_interpolation_agrees_with_numpy(mask):
    images = torch.rand(3, 1, 64, 64)
    known = ~torch.from_numpy(mask)
    filled = masks.fill_rows(images * known, known.expand(images.shape))
    place = np.arange(64)
    for image, found in zip(images[:, 0].numpy(), filled[:, 0].numpy()):
        for row in range(64):
            k = ~mask[row]
            np.testing.assert_allclose(found[row], np.interp(place, place[k], image[row, k]), atol=1e-6)
