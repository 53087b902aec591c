"""Generating heads, filling their stripes, and what is said where that cannot be done."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from tests.test_models import plain_update
from utils import config
from utils.data import head_images, masks
from utils.models import head_generator, imputer
from utils.models.diffusion import Diffusion
from utils.training import checkpoints, devices, loop

ROWS, COLUMNS = np.indices((64, 64))
STRIPES = (COLUMNS - ROWS // 5) % 4 < 2


@pytest.fixture
def pictures64():
    return torch.from_numpy(draw_pictures(12, 64)).float() / 255 * 0.9 + 0.05


def small(**settings):
    devices.seed_everything(0)
    return imputer.Imputer(torch.from_numpy(STRIPES), **{"base": 8, "depth": 1} | settings)


def tiny_diffusion(**settings):
    devices.seed_everything(0)
    return Diffusion(**{"size": (16, 16), "widths": (12, 24), "layers": 1} | settings)


# Diffusion


@pytest.mark.parametrize("size, channels", [((16, 16), 1), ((28, 28), 1), ((40, 32), 3)])
def test_diffusion_takes_other_sizes_and_colours(size, channels):
    model = tiny_diffusion(size=size, channels=channels)
    loss = model.step(torch.rand(2, channels, *size) * 2 - 1, plain_update(model))["velocity"]
    images = model.sample(3, steps=2, batch_size=2)
    assert torch.isfinite(loss) and images.shape == (3, channels, *size) and images.abs().max() <= 1


def test_attention_stays_in_float32_on_a_cpu_and_is_the_same():
    model, seen = tiny_diffusion().eval(), []
    noisy, levels = torch.rand(2, 1, 16, 16), torch.tensor([10, 900])
    attentions = [x for x in model.network.modules() if hasattr(x, "to_q")]
    for attention in attentions:
        attention.to_q.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            model.velocity(noisy, levels)
        assert attentions and seen == [torch.float32] * len(attentions)
        found = model.velocity(noisy, levels)
        for attention in attentions:
            attention.set_processor(attention.processor.processor)
        assert torch.equal(found, model.velocity(noisy, levels))


def test_diffusion_refuses_a_size_it_cannot_halve():
    with pytest.raises(ValueError, match="divisible by 4, not 30x32"):
        tiny_diffusion(size=(30, 32))


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_samples_depend_on_the_seed_alone_not_on_the_batch_size(scheduler):
    model = tiny_diffusion()
    options = {"steps": 4, "scheduler": scheduler}
    one, other = model.sample(5, batch_size=2, **options), model.sample(5, batch_size=5, **options)
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, model.sample(5, batch_size=5, seed=1, **options), atol=1e-2)


def test_temperature_scales_variety_and_ddpm_adds_noise_on_the_way():
    model = tiny_diffusion()
    cold = model.sample(3, steps=4, temperature=0.0)
    assert torch.allclose(cold[0], cold[2], atol=1e-4)  # no noise, nothing but rounding to differ by
    ddim, ddpm = (model.sample(3, steps=4, scheduler=name) for name in ("ddim", "ddpm"))
    assert not torch.allclose(ddim, ddpm, atol=1e-2)


@pytest.mark.parametrize(
    "wrong", [{"scheduler": "euler"}, {"steps": 0}, {"steps": 30}, {"temperature": 1.5}, {"batch_size": 0}]
)
def test_sampling_says_what_it_wants(wrong):
    with pytest.raises(ValueError, match="must be|must divide"):
        tiny_diffusion().sample(1, **wrong)


def test_diffusion_learns_one_image(tmp_path):
    model = tiny_diffusion(dropout=0.0, lr=3e-3)
    image = torch.from_numpy(draw_pictures(1, 16)).float() / 127.5 - 1
    loop.fit(model, image, 150, 8, tmp_path, model.config, plot=False)
    made = model.sample(4, steps=10)
    assert (made - image).abs().mean() < 0.5 * (image - image.mean()).abs().mean()


def test_diffusion_weights_come_back_and_others_are_refused(tmp_path):
    model = tiny_diffusion().eval()
    path = model.export(tmp_path / "w.safetensors")
    back = Diffusion.from_weights(path)
    options = {"count": 2, "steps": 2}
    assert torch.allclose(model.sample(**options), back.sample(**options), atol=0.05)
    small().export(tmp_path / "other.safetensors")
    with pytest.raises(checkpoints.CheckpointDamaged, match="weights of Diffusion"):
        Diffusion.from_weights(tmp_path / "other.safetensors")


# generate


def test_generate_makes_heads_from_the_shipped_weights():
    batches = head_generator.generate(3, 4, 2)
    assert [tuple(b.shape) for b in batches] == [(2, 1, 64, 64), (1, 1, 64, 64)]
    images = torch.cat(batches)
    assert images.min() >= 0 and images.max() <= 1
    assert images[:, :, 20:44, 20:44].mean() > 3 * images[:, :, :3, :3].mean()  # a head, and dark around it


def test_generate_uses_the_courses_generator_where_it_is_there(monkeypatch):
    asked = {}

    def generate(*arguments, **options):
        asked.update(options, arguments=arguments)
        return [torch.full((2, 1, 64, 64), 0.5)]

    monkeypatch.setitem(sys.modules, "ese_invldm", types.SimpleNamespace(generate=generate))
    assert head_generator.generate(2, 5, 2, scheduler="ddpm", temperature=0.5, seed=7)[0].mean() == 0.5
    assert asked == {"arguments": (2, 5, 2), "scheduler": "ddpm", "temperature": 0.5, "seed": 7}


def test_generate_goes_on_with_ours_where_the_courses_fails(monkeypatch, capsys):
    def generate(*_, **__):
        raise RuntimeError("weights not found")

    monkeypatch.setitem(sys.modules, "ese_invldm", types.SimpleNamespace(generate=generate))
    assert head_generator.generate(1, 2, 1)[0].shape == (1, 1, 64, 64)
    assert "weights not found" in (said := capsys.readouterr().out) and "our own" in said


def test_generate_goes_on_where_the_courses_cannot_even_be_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / "ese_invldm.py").write_text("raise OSError('no CUDA')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert head_generator.generate(1, 2, 1)[0].shape == (1, 1, 64, 64)
    assert "no CUDA" in capsys.readouterr().out


# Splits and augmentation


def test_similar_slices_stay_on_one_side():
    pictures = torch.rand(40, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = torch.cat([pictures, pictures * 0.9])  # every slice twice, once darker
    parts = head_images.split(images)
    assert sum(len(part) for part in parts) == 80 and all(len(part) for part in parts)
    group = head_images.groups(torch.cat(parts))
    edges = np.cumsum([0, *map(len, parts)])
    sides = [set(group[a:b]) for a, b in zip(edges, edges[1:])]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_augmented_images_are_the_images_and_moved_copies(pictures64):
    more = head_images.augment(pictures64, 2)
    assert more.shape == (36, 1, 64, 64) and torch.equal(more[:12], pictures64)
    assert 0 < (more[12:24] - pictures64).abs().mean() < 0.2 and more.min() >= 0 and more.max() <= 1
    assert torch.equal(more, head_images.augment(pictures64, 2)) and torch.equal(
        head_images.augment(pictures64, 0), pictures64
    )


# The imputer


def test_an_answer_is_mirrored_with_its_image(pictures64):
    model = small()
    torch.nn.init.normal_(model.network.head.weight, std=0.05)  # else it answers with the interpolation
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    filled, deviation = imputer.fill_masked([model], pictures64, known)
    turned, turned_deviation = imputer.fill_masked([model], pictures64.flip(3), known.flip(3))
    assert torch.allclose(turned.flip(3), filled, atol=1e-5) and (filled != pictures64)[~known].any()
    assert torch.allclose(turned_deviation.flip(3), deviation, atol=1e-5)
    assert not torch.allclose(imputer.fill_masked([model], pictures64, known, plain=True)[0], filled, atol=1e-3)


def test_images_are_mirrored_with_their_masks(pictures64):
    model = small(own_mask=1.0, tone=0.0)
    images, visible, hidden = model.pairs(pictures64, torch.ones(12, 1, 64, 64, dtype=torch.bool))
    stripes = torch.from_numpy(STRIPES)
    for image, original, mask in zip(images, pictures64, hidden):
        turned = not torch.equal(image, original)
        assert torch.equal(image, original.flip(2) if turned else original)
        assert torch.equal(mask[0], stripes.flip(1) if turned else stripes)
    assert 0 < sum(not torch.equal(a, b) for a, b in zip(images, pictures64)) < 12


def test_augment_intensity_keeps_the_range_and_strength_0_the_image(pictures64):
    complete = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    assert torch.equal(imputer.augment_intensity(pictures64, complete, 0.0), pictures64)
    toned = imputer.augment_intensity(pictures64, complete, 1.0)
    assert toned.min() >= 0 and toned.max() <= 1 and (toned - pictures64).abs().mean() > 0.01


def test_softening_takes_nothing_from_gaps():
    """A bright image with black gaps: known pixels that have bright known neighbours stay as bright as they are."""
    known = ~torch.from_numpy(STRIPES).expand(8, 1, 64, 64)
    devices.seed_everything(0)
    with_gaps = imputer.augment_intensity(0.5 * known, known, 1.0)
    devices.seed_everything(0)
    without = imputer.augment_intensity(torch.full((8, 1, 64, 64), 0.5), torch.ones_like(known), 1.0)
    assert (with_gaps[~known] == 0).all() and (with_gaps - without)[known].abs().max() < 0.05


def test_pairs_hide_stripes_of_complete_images_and_known_lines_of_others(pictures64):
    model = small(own_mask=1.0, mirror=False, tone=0.0)
    complete = torch.ones(12, 1, 64, 64, dtype=torch.bool)
    images, visible, hidden = model.pairs(pictures64, complete)
    assert torch.equal(hidden, torch.from_numpy(STRIPES).expand(12, 1, 64, 64)) and torch.equal(visible, ~hidden)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    images, visible, hidden = model.pairs(pictures64, known)
    assert not (hidden & ~known).any() and not (visible & hidden).any()
    assert torch.equal(visible | hidden, known) and hidden.flatten(1).any(1).all()


def test_an_untrained_network_is_the_interpolation(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    mean, _ = small()(pictures64 * known, known)
    assert torch.allclose(mean, masks.fill_rows(pictures64 * known, known))


def test_the_loss_by_hand(pictures64):
    """The first loss is that of the interpolation, with a standard deviation of exp(-2.5)."""
    model = small(own_mask=1.0, mirror=False, tone=0.0)
    losses = model.step((pictures64, torch.ones(12, 1, 64, 64, dtype=torch.bool)), lambda *_, **__: None)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    error = (masks.fill_rows(pictures64 * known, known) - pictures64)[~known]
    assert losses["charbonnier"].item() == pytest.approx((error**2 + 1e-4).sqrt().mean().item(), rel=1e-4)
    assert losses["psnr"].item() == pytest.approx(-10 * np.log10((error**2).mean().item()), rel=1e-4)
    nll = 0.5 * ((error**2).mean().item() * np.exp(5) - 5 + np.log(2 * np.pi))
    assert losses["nll"].item() == pytest.approx(nll, rel=1e-3)


def test_imputer_overfits_a_few_images_and_beats_the_interpolation(pictures64, tmp_path):
    model = small(base=16, own_mask=1.0, mirror=False, tone=0.0, lr=5e-3)
    data = (pictures64[:4], torch.ones(4, 1, 64, 64, dtype=torch.bool))
    history = loop.fit(model, data, 300, 4, tmp_path, model.config, plot=False, evaluations=6)
    assert history[-1]["psnr"] > history[0]["psnr"] + 2  # averaged weights begin as the interpolation


def test_filling_keeps_known_pixels_and_knows_no_doubt_of_them(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    filled, deviation = imputer.fill_masked([small(), small()], pictures64 * known, known, batch_size=5)
    assert torch.equal(filled[known], pictures64[known]) and (deviation[known] == 0).all()
    assert (deviation[~known] > 0).all() and filled.min() >= 0 and filled.max() <= 1


def test_filling_does_not_depend_on_what_lies_under_the_gaps(pictures64):
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    torch.nn.init.normal_((model := small()).network.head.weight, std=0.1)
    assert torch.equal(
        imputer.fill_masked([model], pictures64, known)[0], imputer.fill_masked([model], pictures64 * known, known)[0]
    )


def test_imputer_weights_come_back_and_others_are_refused(tmp_path, pictures64):
    torch.nn.init.normal_((model := small()).network.head.weight, std=0.1)
    back = imputer.Imputer.from_weights(model.export(tmp_path / "w.safetensors"))
    assert torch.equal(back.mask, model.mask)
    known = ~torch.from_numpy(STRIPES).expand(12, 1, 64, 64)
    one, other = (imputer.fill_masked([m], pictures64, known)[0] for m in (model, back))
    assert torch.allclose(one, other, atol=5e-3)
    tiny_diffusion().export(tmp_path / "other.safetensors")
    with pytest.raises(checkpoints.CheckpointDamaged, match="weights of Imputer"):
        imputer.Imputer.from_weights(tmp_path / "other.safetensors")


# The command


def fill_command(*arguments):
    command = [sys.executable, "-m", "utils", "fill", *map(str, arguments)]
    return subprocess.run(command, cwd=config.PROJECT, text=True, capture_output=True)


@pytest.fixture
def striped(tmp_path, pictures64):
    """A file as the course's: our shipped network's own mask, 12 images."""
    mask = imputer.Imputer.from_weights(head_images.IMPUTERS[0]).mask.numpy()
    images = np.where(mask, 0, pictures64.numpy()).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    return tmp_path / "in.npy", images, mask


def test_the_command_fills_a_file_with_the_shipped_weights(striped, tmp_path):
    path, images, mask = striped
    done = fill_command(path, tmp_path / "out.npy", "--deviation", tmp_path / "sd.npy")
    assert done.returncode == 0, done.stderr
    filled, deviation = np.load(tmp_path / "out.npy"), np.load(tmp_path / "sd.npy")
    assert filled.shape == images.shape and filled.dtype == np.float32
    assert (filled[:, :, ~mask] == images[:, :, ~mask]).all() and (filled[:, :, mask] > 0).mean() > 0.9
    assert filled.min() >= 0 and filled.max() <= 1 and (deviation[:, :, ~mask] == 0).all()


def spoil(images, mask, how):
    images = images.copy()
    if how == "shape":
        return images[:, 0]
    if how == "integers":
        return (images * 255).astype(np.uint8)
    if how == "range":
        return images * 255
    if how == "nan":
        images[2, 0, 5, 5] = np.nan
    if how == "one complete":
        images[3] = 0.5
    if how == "one dark":
        images[4] = 0
    if how == "all complete":
        images[:] = np.maximum(images, 0.1)
    if how == "black background":
        images[:] = 0.5
        images[:, :, :10] = 0
    if how == "empty":
        return images[:0]
    return images


BAD = {
    "shape": "has shape (12, 64, 64); wanted is (N, 1, 64, 64)",
    "integers": "uint8; wanted are floats",
    "range": "; wanted are [0, 1]",
    "nan": "1 pixels are not finite, the first in image 2",
    "one complete": "image 3 (1 such) has values where the others have gaps",
    "one dark": "nothing is known in image 4",
    "all complete": "no gaps were found: 0% of",
    "black background": "no gaps were found: 1",
    "empty": "has shape (0, 1, 64, 64)",
}


@pytest.mark.parametrize("how", BAD)
def test_unusable_files_are_refused_with_the_reason(striped, tmp_path, how):
    path, images, mask = striped
    np.save(path, spoil(images, mask, how))
    with pytest.raises(ValueError) as error:
        imputer.fill_zeros(head_images.read(path), [imputer.Imputer.from_weights(head_images.IMPUTERS[0])])
    assert BAD[how] in str(error.value)


def test_another_mask_is_filled_with_a_warning(pictures64, capsys):
    other = (COLUMNS + ROWS // 3) % 5 < 2
    images = np.where(other, 0, pictures64.numpy()).astype(np.float32)
    model = imputer.Imputer.from_weights(head_images.IMPUTERS[0])
    filled, _ = imputer.fill_zeros(images, [model])
    assert "Another mask" in capsys.readouterr().out
    assert (filled[:, :, ~other] == images[:, :, ~other]).all() and (filled[:, :, other] > 0).mean() > 0.9
    with pytest.raises(ValueError, match="told from 5 images on"):
        imputer.fill_zeros(images[:1], [model])


def test_further_gaps_are_filled_too(striped):
    _, images, mask = striped
    more = mask | (ROWS % 8 == 0)
    filled, _ = imputer.fill_zeros(
        np.where(more, 0, images).astype(np.float32), [imputer.Imputer.from_weights(head_images.IMPUTERS[0])]
    )
    assert (filled[:, :, more] > 0).mean() > 0.9


def test_networks_of_different_masks_are_not_mixed(striped):
    _, images, _ = striped
    with pytest.raises(ValueError, match="different masks"):
        imputer.fill_zeros(images, [imputer.Imputer.from_weights(head_images.IMPUTERS[0]), small()])


def test_a_single_image_with_the_courses_mask_is_filled(striped):
    _, images, mask = striped
    filled, _ = imputer.fill_zeros(images[:1], [imputer.Imputer.from_weights(head_images.IMPUTERS[0])])
    assert (filled[:, :, ~mask] == images[:1][:, :, ~mask]).all()


def test_a_truncated_archive_under_the_wrong_name_is_no_file_of_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((50, 50)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match="no .npy file of numbers"):
        head_images.read(tmp_path / "a.npy")


@pytest.mark.parametrize("content, message", [("array", "no archive"), ("floats", "wanted are uint8")])
def test_other_files_named_heads_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(head_images, "find", lambda name: tmp_path / name)
    if content == "array":
        np.save(tmp_path / "x.npy", np.zeros((3, 64, 64), np.uint8))
        (tmp_path / "x.npy").rename(tmp_path / "heads.npz")
    else:
        np.savez(tmp_path / "heads.npz", images=np.zeros((3, 64, 64)))
    with pytest.raises(ValueError, match=message):
        head_images.load()


def test_the_command_explains_missing_and_foreign_files(striped, tmp_path):
    path, _, _ = striped
    out = tmp_path / "out.npy"
    (tmp_path / "text.npy").write_text("no array", encoding="utf-8")
    for arguments, message in (
        ((tmp_path / "none.npy", out), "There is no file"),
        ((tmp_path / "text.npy", out), "is no .npy file"),
        ((path, out, "--weights", tmp_path / "none.safetensors"), "There are no weights"),
        ((path, out, "--weights", path), "does not hold weights of this project"),
    ):
        done = fill_command(*arguments)
        assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
        assert not out.exists()


def test_pickles_are_not_loaded(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no .npy file of numbers"):
        head_images.read(tmp_path / "p.npy")


# What is committed


def test_the_committed_answer_is_complete_and_keeps_the_test_sets_pixels():
    answer = head_images.read(head_images.ANSWER)
    assert answer.shape == (100, 1, 64, 64) and np.load(head_images.ANSWER).dtype == np.float32
    test_images, origin = head_images.load_test()
    mask = imputer.Imputer.from_weights(head_images.IMPUTERS[0]).mask.numpy()
    assert (answer[:, :, ~mask] == test_images[:, :, ~mask]).all(), origin
    again, _ = imputer.fill_zeros(test_images, [imputer.Imputer.from_weights(path) for path in head_images.IMPUTERS])
    assert np.abs(again - answer).max() < 0.02  # other processors round differently


def test_heads_stand_in_where_the_courses_are_not(monkeypatch):
    def nowhere(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(head_images, "find", nowhere)
    images, origin = head_images.load(lambda: torch.rand(4, 1, 64, 64))
    assert images.shape == (4, 1, 64, 64) and origin.startswith("STAND-IN")
    test_images, origin = head_images.load_test()
    assert test_images.shape == (100, 1, 64, 64) and "test_set_nogaps" in origin
    monkeypatch.setenv("PROFILE", "full")
    with pytest.raises(FileNotFoundError):
        head_images.load()
