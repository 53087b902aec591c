"""The network that fills the stripes: its training pairs, its loss, and its filled images."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import head_images, masks
from utils.evaluation.restoration import stripe_energy
from utils.models.diffusion import Diffusion
from utils.models.heads import augmentation, imputer
from utils.training import checkpoints, devices, loop

ROWS, COLUMNS = np.indices((64, 64))
STRIPES = (COLUMNS - ROWS // 5) % 4 < 2
SMALL = {"widths": (8, 16, 16), "depths": (1, 1, 1), "attention": False}
UNCHANGED = {"own_mask": 1.0, "warp": 0.0, "shift": 0, "match": 0.0, "tone": 0.0, "mirror": False}


@pytest.fixture
def pictures64():
    return torch.from_numpy(draw_pictures(12, 64)).float() / 255 * 0.9 + 0.05


def small(**settings):
    devices.seed_everything(0)
    return imputer.Imputer(torch.from_numpy(STRIPES), **SMALL | settings)


@pytest.fixture(scope="module")
def shipped():
    return imputer.Imputer.from_weights(head_images.IMPUTERS[0])


def test_a_mirrored_image_gives_a_mirrored_filling(pictures64):
    model = small(mirror=True)
    torch.nn.init.normal_(model.network.head.weight, std=0.05)  # otherwise its output is the interpolation
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    filled, deviation = imputer.fill_masked([model], pictures64, known)
    turned, turned_deviation = imputer.fill_masked([model], pictures64.flip(3), known.flip(3))
    assert torch.allclose(turned.flip(3), filled, atol=1e-5) and (filled != pictures64)[~known].any()
    assert torch.allclose(turned_deviation.flip(3), deviation, atol=1e-5)
    assert not torch.allclose(imputer.fill_masked([model], pictures64, known, plain=True)[0], filled, atol=1e-3)


def test_images_and_their_masks_are_mirrored_together(pictures64):
    model = small(**UNCHANGED | {"mirror": True})
    images, visible, hidden = model.pairs(pictures64, torch.ones(12, 1, 64, 64, dtype=torch.bool))
    stripes = torch.from_numpy(STRIPES)
    for image, original, mask in zip(images, pictures64, hidden):
        turned = not torch.equal(image, original)
        assert torch.equal(image, original.flip(2) if turned else original)
        assert torch.equal(mask[0], stripes.flip(1) if turned else stripes)
    assert 0 < sum(not torch.equal(a, b) for a, b in zip(images, pictures64)) < 12


def test_augment_intensity_keeps_the_range_and_does_nothing_at_strength_0(pictures64):
    complete = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    assert torch.equal(augmentation.augment_intensity(pictures64, complete, 0.0), pictures64)
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
    powers = [1e-6 + (np.abs(np.fft.rfft(x.numpy(), axis=3)) ** 2).mean((0, 1, 2))[1:] for x in (filled, pictures64)]
    assert losses["spectrum"].item() == pytest.approx((np.log(powers[0] / powers[1]) ** 2).mean(), rel=1e-2)
    assert asked["loss"] == pytest.approx(
        (losses["error"] + 0.3 * losses["spectrum"] + 0.01 * losses["nll"]).item(), rel=1e-4
    )
    losses = small(**UNCHANGED, loss="charbonnier").step((pictures64, complete), lambda *_, **__: None)
    assert losses["error"].item() == pytest.approx((error**2 + 1e-4).sqrt().mean().item(), rel=1e-4)


def test_completed_images_are_hidden_like_heads_and_only_known_pixels_are_learned(pictures64):
    model = small(**UNCHANGED, completed=0.5)
    known = (~torch.from_numpy(STRIPES)).expand(12, 1, 64, 64).roll(1, 3).clone()
    known[6:] = True  # complete images
    images, visible, hidden = model.pairs(pictures64 * known, known)
    stripes = torch.from_numpy(STRIPES).expand(6, 1, 64, 64)
    filled = masks.fill_rows(pictures64[:6] * known[:6], known[:6])  # by the untrained network
    assert torch.allclose(images[:6], filled, atol=1e-6) and torch.equal(images[6:], pictures64[6:])
    assert torch.equal(visible[:6], ~stripes) and torch.equal(hidden[:6], stripes & known[:6])
    assert torch.equal(hidden[6:], stripes)


def test_deformed_completed_images_are_learned_where_known_pixels_have_moved(pictures64):
    model = small(**UNCHANGED | {"warp": 1.0}, completed=1.0)
    known = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    known[..., 20:] = False
    _, _, hidden = model.pairs(pictures64 * known, known)
    assert hidden[..., :14].any() and not hidden[..., 26:].any()  # a deformation moves pixels by a few pixels


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


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_every_network_learns_and_has_about_as_many_weights(kind, pictures64):
    devices.seed_everything(0)
    model = imputer.Imputer(torch.from_numpy(STRIPES), kind=kind, residual=kind == "ours")
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(950_000, rel=0.1)
    model.step((pictures64[:2], torch.ones(2, 1, 64, 64, dtype=torch.bool)), lambda name, loss, clip: loss.backward())
    grads = [p.grad for p in model.network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in grads)


def test_imputer_overfits_a_few_images_and_is_better_than_the_interpolation(pictures64, tmp_path):
    model = small(**UNCHANGED, lr=5e-3, spectrum=0.1)
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
