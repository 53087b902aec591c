"""The MRI project's data for training, its imputers, and changes of their recipe."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import head_images
from utils.evaluation import head_study
from utils.training import checkpoints

SMALL = {"widths": (8, 16, 16), "depths": (1, 1, 1), "attention": False}


@pytest.fixture(scope="module")
def data():
    """Small HeadData with drawn pictures."""
    pictures = torch.from_numpy(draw_pictures(80, 64)).float() / 255 * 0.9 + 0.05
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, ::4] = mask[:, 1::4] = True
    real = head_images.Heads(pictures[:20], pictures[20:26], pictures[26:32])
    return head_study.HeadData(real, pictures[32:60] * ~mask, mask, pictures[60:])


def test_the_training_set_has_the_wanted_shares_and_leaves_out_a_fold(data):
    images, known = data.training_set(1, lines=0.6, generated=5)
    complete = known.flatten(1).all(1)
    assert complete.sum() == 25 and (~complete).float().mean() == pytest.approx(0.6, abs=0.15)
    assert (images[~known] == 0).all()
    left_out = data.tests[data.folds == 1]
    assert len(left_out) and not any((images == image).flatten(1).all(1).any() for image in left_out)
    assert data.training_set(0, lines=0.0)[1].all()


def test_the_loader_has_the_batches_that_the_loop_trains_on(data, tmp_path):
    seen = []
    model, loader = head_study.prepare(data, 24, 8, SMALL, fold=2)
    examples = [loader.dataset[i] for i in next(iter(loader.batch_sampler))]
    step = model.step
    model.step = lambda batch, update: (seen.append(batch), step(batch, update))[1]
    history = head_study.train_imputer(data, model, loader, tmp_path, fold=2)
    assert len(seen) == len(loader) == 3
    assert all(torch.equal(image, example[0]) for image, example in zip(seen[0][0].cpu(), examples))
    assert np.isfinite([history[-1][f"{name} (held out)"] for name in ("heads", "lines", "energy")]).all()


def test_the_loader_gives_corrupted_and_complete_images_with_their_masks(data):
    _, loader = head_study.prepare(data, 24, 8, {})
    corrupted, complete, visible, hidden = next(iter(loader))
    assert corrupted.shape == complete.shape == visible.shape == hidden.shape == (8, 1, 64, 64)
    assert torch.equal(corrupted, complete * visible) and not (visible & hidden).any()
    assert hidden.flatten(1).any(1).all()


SETTINGS = head_study.CHANGES | {
    "unmoved": head_study.UNMOVED,
    "generated": {"generated": 9},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_change_can_be_trained(data, name):
    model, loader = head_study.prepare(data, 8, 8, SETTINGS[name])
    assert np.isfinite(float(model.step(loader.dataset[:4], lambda *_, **__: None)["psnr"].detach()))


def test_the_measures_of_a_change_are_kept(data, tmp_path, monkeypatch):
    first = head_study.try_change(data, 16, 8, SMALL | {"warp": 0.5}, tmp_path)
    assert first["heads"].shape == (6,) and first["lines"].shape == (sum(data.folds == 0),)
    with monkeypatch.context() as patch:
        patch.setattr(head_study, "train_imputer", lambda *_: pytest.fail("it was trained before"))
        again = head_study.try_change(data, 16, 8, SMALL | {"warp": 0.5}, tmp_path)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    with pytest.raises(checkpoints.CheckpointMismatch, match="warp: 0.5 in the file, 0.6 wanted"):
        head_study.try_change(data, 16, 8, SMALL | {"warp": 0.6}, tmp_path)


def test_heads_are_masked_and_lines_are_hidden_before_they_are_filled(data):
    filled = data.fill_heads(lambda x, known: data.real.validation, data.real.validation)
    assert torch.equal(filled, data.real.validation)
    shown = []
    error = data.psnr_on_lines(lambda x, known: shown.append(known) or x + 0.1, data.folds == 0, data.lines)
    assert (error < 40).all() and not (shown[0] & data.lines[data.folds == 0]).any()
