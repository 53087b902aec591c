"""The network that fills the stripes: its training pairs, its loss, and its filled images."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import head_images, masks
from utils.evaluation.restoration import stripe_energy
from utils.models.diffusion import Diffusion
from utils.models.heads import augmentation, gated, imputer
from utils.training import checkpoints, devices, loop

ROWS, COLUMNS = np.indices((64, 64))
STRIPES = (COLUMNS - ROWS // 5) % 4 < 2
SMALL = {"widths": (8, 8, 16, 16)}
UNCHANGED = {"augment": False, "shift": 0}


@pytest.fixture
def pictures64():
    return torch.from_numpy(draw_pictures(12, 64)).float() / 255 * 0.9 + 0.05


def small(**settings):
    devices.seed_everything(0)
    return imputer.Imputer(torch.from_numpy(STRIPES), **SMALL | settings)


@pytest.fixture(scope="module")
def shipped():
    return imputer.Imputer.from_weights(head_images.IMPUTERS[0])


def test_augment_intensity_changes_grey_levels_and_keeps_their_range(pictures64):
    complete = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    toned = augmentation.augment_intensity(pictures64, complete, 1.0)
    assert toned.min() >= 0 and toned.max() <= 1 and (toned - pictures64).abs().mean() > 0.01


def test_softening_does_not_mix_gaps_into_known_pixels():
    """A bright image has black gaps. Its known pixels keep the brightness that they have without gaps."""
    known = ~torch.from_numpy(STRIPES).expand(8, 1, 64, 64)
    devices.seed_everything(0)
    with_gaps = augmentation.augment_intensity(0.5 * known, known, 1.0)
    devices.seed_everything(0)
    without = augmentation.augment_intensity(torch.full((8, 1, 64, 64), 0.5), torch.ones_like(known), 1.0)
    assert (with_gaps[~known] == 0).all() and (with_gaps - without)[known].abs().max() < 0.05


def test_pairs_hide_stripes_in_complete_images_and_known_lines_in_other_images(pictures64):
    model = small(**UNCHANGED)
    complete = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    images, visible, hidden = model.pairs(pictures64, complete)
    assert torch.equal(hidden, torch.from_numpy(STRIPES).expand(12, 1, 64, 64)) and torch.equal(visible, ~hidden)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    images, visible, hidden = model.pairs(pictures64, known)
    assert not (hidden & ~known).any() and not (visible & hidden).any()
    assert torch.equal(visible | hidden, known) and hidden.flatten(1).any(1).all()


def test_the_output_of_an_untrained_network_is_the_interpolation(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    mean, _ = small()(pictures64 * known, known)
    assert torch.allclose(mean, masks.fill_rows(pictures64 * known, known))


def test_the_losses_by_hand(pictures64):
    """The first losses are those of the interpolation with a standard deviation of exp(-2.5)."""
    complete, known = torch.ones(12, 1, 64, 64, dtype=torch.bool), ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    filled = masks.fill_rows(pictures64 * known, known)
    error = (filled - pictures64)[~known].view(12, -1)
    asked = {}
    losses = small(**UNCHANGED).step((pictures64, complete), lambda name, loss, clip: asked.update(loss=loss.item()))
    decibel = -10 * (error.square().mean(1)).log10().mean().item()
    assert losses["psnr"].item() == pytest.approx(decibel, rel=1e-4)
    assert losses["error"].item() == pytest.approx(-decibel * np.log(10) / 20, rel=1e-4)
    nll = 0.5 * (error.square().mean().item() * np.exp(5) - 5 + np.log(2 * np.pi))
    assert losses["nll"].item() == pytest.approx(nll, rel=1e-3)
    assert asked["loss"] == pytest.approx((losses["error"] + 0.01 * losses["nll"]).item(), rel=1e-4)


def test_the_variance_has_a_lower_limit(pictures64):
    torch.nn.init.constant_((model := small()).network.head.bias, -1e4)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    assert (model(pictures64 * known, known)[1].exp().sqrt() * 255 * 12**0.5).allclose(torch.ones(()))


def test_augmented_heads_get_many_masks_and_images_with_gaps_keep_theirs(pictures64):
    devices.seed_everything(0)
    known = (~torch.from_numpy(STRIPES)).expand(12, 1, 64, 64).clone()
    known[:6] = True  # complete images
    given = pictures64 * known
    images, visible, hidden = small(shift=0).pairs(given, known)
    assert (images != given).flatten(1).any(1).all() and images.min() >= 0 and images.max() <= 1
    assert torch.equal(visible[6:] | hidden[6:], known[6:]) and (images[~known] == 0).all()
    assert len(hidden[:6].flatten(1).unique(dim=0)) > 2 and torch.equal(visible[:6], ~hidden[:6])


def test_images_with_gaps_are_moved_with_their_masks(pictures64):
    model = small(**UNCHANGED | {"shift": 6})
    known = (~torch.from_numpy(STRIPES)).expand(12, 1, 64, 64)
    images, visible, hidden = model.pairs(pictures64 * known, known)
    moved = visible | hidden
    assert (images[~moved] == 0).all() and (images[moved] > 0).all()
    assert not torch.equal(moved, known) and not torch.equal(moved[0], moved[1])


def test_matched_images_have_the_grey_levels_of_another_image(pictures64):
    darker = augmentation.grey_levels(0.5 * pictures64[:1], torch.ones(64, 64, dtype=torch.bool))
    matched = augmentation.match_levels(pictures64[1:], darker)
    own = augmentation.grey_levels(matched, torch.ones(64, 64, dtype=torch.bool))
    assert (own - darker).abs().mean() < 0.02 and (own - darker).abs().max() < 0.2
    order = pictures64[1:].flatten(1).argsort(1)
    assert (matched.flatten(1).gather(1, order).diff(dim=1) > -1e-6).all()  # the order of the pixels stays


def test_the_network_has_a_million_weights_and_all_of_them_learn(pictures64):
    devices.seed_everything(0)
    model = imputer.Imputer(torch.from_numpy(STRIPES))
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(1e6, rel=0.05)
    batch = (pictures64[:2], torch.ones(2, 1, 64, 64, dtype=torch.bool))
    torch.nn.init.normal_(model.network.head.weight, std=0.1)  # at first it is 0, and only the last layer learns
    model.step(batch, lambda name, loss, clip: loss.backward())
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.network.parameters())


def test_the_opponent_has_as_many_weights_and_a_gate_in_each_convolution():
    ours, theirs = imputer.Imputer().network, gated.GatedImputer().network
    assert sum(x.numel() for x in theirs.parameters()) == pytest.approx(sum(x.numel() for x in ours.parameters()), 0.03)
    assert sum(isinstance(part, gated.GatedConvolution) for part in theirs.modules()) == 14
    layer = gated.GatedConvolution(2, 1)
    with torch.no_grad():  # the gate looks at the second channel alone, which is the mask
        layer.conv.weight[1] = 0
        layer.conv.weight[1, 1, 1, 1] = 100
    mask = torch.where(torch.rand(1, 1, 8, 8) < 0.5, 1.0, -1.0)
    found = layer(torch.cat([torch.rand(1, 1, 8, 8), mask], 1))
    assert (found[mask < 0].abs() < 1e-6).all() and (found[mask > 0].abs() > 1e-6).all()


def test_imputer_overfits_a_few_images_and_is_better_than_the_interpolation(pictures64, tmp_path):
    model = small(**UNCHANGED, lr=5e-3)
    data = (pictures64[:4], torch.ones(4, 1, 64, 64, dtype=torch.bool))
    history = loop.fit(model, data, 300, 4, tmp_path, model.config, plot=False, evaluations=6)
    assert history[-1]["psnr"] > history[0]["psnr"] + 2  # at first, the averaged weights give the interpolation


def test_filling_keeps_known_pixels_with_a_deviation_of_0(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    filled, deviation = imputer.fill_masked([small(), small()], pictures64 * known, known, batch_size=5)
    assert torch.equal(filled[known], pictures64[known]) and (deviation[known] == 0).all()
    assert (deviation[~known] > 0).all() and filled.min() >= 0 and filled.max() <= 1


def test_sharpening_raises_the_energy_of_the_unknown_pixels_only(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(pictures64, (1, 3), 1, padding=(0, 1))
    filled = torch.where(known, pictures64, blurred)
    energies = [stripe_energy(imputer.sharpen(filled, known, x).numpy(), pictures64.numpy()) for x in (0.0, 0.25, 0.5)]
    assert energies == sorted(energies) and energies[0] < energies[-1]
    sharp = imputer.sharpen(filled, known)
    assert torch.equal(sharp[known], filled[known]) and sharp.min() >= 0 and sharp.max() <= 1
    flat = torch.full((1, 1, 64, 64), 0.4)
    assert torch.allclose(imputer.sharpen(flat, known[:1]), flat)


def test_filling_does_not_depend_on_the_values_of_missing_pixels(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    torch.nn.init.normal_((model := small()).network.head.weight, std=0.1)
    assert torch.equal(
        imputer.fill_masked([model], pictures64, known)[0], imputer.fill_masked([model], pictures64 * known, known)[0]
    )


def test_imputer_weights_can_be_loaded_and_other_weights_are_refused(tmp_path, pictures64):
    torch.nn.init.normal_((model := small()).network.head.weight, std=0.1)
    back = imputer.Imputer.from_weights(model.export(tmp_path / "w.safetensors"))
    assert torch.equal(back.mask, model.mask)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    one, other = (imputer.fill_masked([m], pictures64, known)[0] for m in (model, back))
    assert torch.allclose(one, other, atol=5e-3)
    Diffusion((16, 16), widths=(12, 24), layers=1).export(tmp_path / "other.safetensors")
    with pytest.raises(checkpoints.CheckpointDamaged, match="weights of Imputer"):
        imputer.Imputer.from_weights(tmp_path / "other.safetensors")


def test_another_mask_is_filled_with_a_warning(pictures64, shipped, capsys):
    other = (COLUMNS + ROWS // 3) % 5 < 2
    images = np.where(other, 0, pictures64.numpy()).astype(np.float32)
    filled, _ = imputer.fill_zeros(images, [shipped])
    assert "another mask" in capsys.readouterr().out
    assert (filled[:, :, ~other] == images[:, :, ~other]).all() and (filled[:, :, other] > 0).mean() > 0.9
    with pytest.raises(ValueError, match="in at least 5 images"):
        imputer.fill_zeros(images[:1], [shipped])


@pytest.fixture
def striped(pictures64, shipped):
    """Images with the gaps of the shipped network, and its mask."""
    mask = shipped.mask.numpy()
    return np.where(mask, 0, pictures64.numpy()).astype(np.float32), mask


def test_additional_gaps_are_filled(striped, shipped):
    images, mask = striped
    more = mask | (ROWS % 8 == 0)
    filled, _ = imputer.fill_zeros(np.where(more, 0, images).astype(np.float32), [shipped])
    assert (filled[:, :, more] > 0).mean() > 0.9


def test_networks_with_different_masks_are_refused(striped, shipped):
    with pytest.raises(ValueError, match="different masks"):
        imputer.fill_zeros(striped[0], [shipped, small()])


def test_a_single_image_with_the_courses_mask_is_filled(striped, shipped):
    images, mask = striped
    filled, _ = imputer.fill_zeros(images[:1], [shipped])
    assert (filled[:, :, ~mask] == images[:1][:, :, ~mask]).all()


def test_the_committed_answer_is_complete_and_keeps_the_known_pixels():
    answer = head_images.read(head_images.ANSWER)
    assert answer.shape == (100, 1, 64, 64) and np.load(head_images.ANSWER).dtype == np.float32
    test_images, origin = head_images.load_test()
    mask = imputer.Imputer.from_weights(head_images.IMPUTERS[0]).mask.numpy()
    assert (answer[:, :, ~mask] == test_images[:, :, ~mask]).all(), origin
    again, _ = imputer.fill_zeros(test_images, [imputer.Imputer.from_weights(path) for path in head_images.IMPUTERS])
    assert np.abs(again - answer).max() < 0.02  # other processors round differently
