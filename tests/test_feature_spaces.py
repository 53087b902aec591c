"""The features of the classifier, and real images that are altered on purpose."""

import numpy as np
import torch

from tests.conftest import draw_pictures
from utils.data import image_files
from utils.evaluation import feature_spaces, fidelity
from utils.training import devices, loop


def test_foreign_rectangles_come_from_the_next_image_or_from_another_place():
    torch.manual_seed(0)
    images = torch.arange(200.0)[:, None, None, None] + torch.rand(200, 1, 24, 20) * 0.5
    made = feature_spaces.with_foreign_rectangles(images)
    changed = made != images
    share = changed.float().mean((1, 2, 3))
    assert share.min() > 0.05 and share.max() < 0.5  # a ninth to four ninths, in whole pixels
    own = made.floor() == images.floor()  # the whole part is the number of the image
    from_next = (made.floor() == images.roll(1, 0).floor()) & changed
    assert (own | from_next).all()
    assert 0.3 < from_next.flatten(1).any(1).float().mean() < 0.7
    for mask in changed[:, 0]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].float().mean() > 0.9


def test_altered_images_by_hand():
    images = draw_pictures(4, 28)
    found = feature_spaces.altered(images)
    assert (found["sleeve removed"][..., :7] == 0).all()
    assert np.array_equal(found["sleeve removed"][..., 7:], images[..., 7:])
    assert np.array_equal(found["halves swapped"][:, :, :14], images[:, :, 14:])
    assert np.array_equal(found["halves of two"][1, ..., 14:], images[0, ..., 14:])
    difference = found["noise"].astype(int) - images
    inside = (images > 40) & (images < 215)
    assert 9 < difference[inside].std() < 11 and all(x.dtype == np.uint8 for x in found.values())


def test_the_features_see_altered_images(tmp_path):
    """After a short training, altered real images are further away from real ones than other real ones."""
    images = draw_pictures(600, 16)
    devices.seed_everything(0)
    space = feature_spaces.FeatureClassifier(classes=1, base=12)
    pairs = (image_files.to_float(images[:400]), torch.zeros(400, dtype=torch.long))
    history = loop.fit(space, pairs, 60, 50, tmp_path, space.config, plot=False)
    assert history[-1]["altered"] < 0.6  # log 2 = 0.69 would be guessing
    floor = fidelity.frechet_distance(space, images[400:500], images[500:])
    for name, worse in feature_spaces.altered(images[500:]).items():
        assert fidelity.frechet_distance(space, images[400:500], worse) > 1.5 * floor, name


def test_the_texture_of_a_colour_image_is_that_of_its_mean():
    grey, texture = torch.from_numpy(draw_pictures(3, 20)), feature_spaces.Texture()
    assert torch.equal(texture(grey.repeat(1, 3, 1, 1)), texture(grey))


def test_a_remembered_space_gives_the_same_features_and_computes_each_image_once():
    images, space = draw_pictures(6, 16), feature_spaces.Texture()
    calls = []
    space.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    remembered = feature_spaces.Remembered(space)
    first = feature_spaces.features(remembered, images[:4])
    again = feature_spaces.features(remembered, images[[5, 0, 3]])
    assert calls == [4, 1]
    assert np.allclose(first, feature_spaces.features(space, images[:4]), atol=1e-5)
    assert np.allclose(again[1:], first[[0, 3]])
