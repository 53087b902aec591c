"""The MRI project's data for training, its imputers, and its generator of heads."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import head_images
from utils.evaluation import head_study
from utils.models.diffusion import Diffusion

SMALL = {"widths": (8, 8, 16, 16)}


@pytest.fixture(scope="module")
def data():
    """Small HeadData with drawn pictures."""
    pictures = torch.from_numpy(draw_pictures(60, 64)).float() / 255 * 0.9 + 0.05
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, ::4] = mask[:, 1::4] = True
    real = head_images.Heads(pictures[:20], pictures[20:26], pictures[26:32])
    return head_study.HeadData(real, pictures[32:60] * ~mask, mask)


def test_the_training_set_has_all_training_heads_and_leaves_out_a_fold(data):
    generated = data.real.test
    more = data.training_set(1, generated)[0]
    assert all((more == head).flatten(1).all(1).any() for head in generated)
    images, known = data.training_set(1)
    complete = known.flatten(1).all(1)
    assert torch.equal(images[complete], data.real.train) and (images[~known] == 0).all()
    assert (~complete).float().mean() == pytest.approx(head_study.LINES, abs=0.2)
    left_out = data.tests[data.folds == 1]
    assert len(left_out) and not any((images == image).flatten(1).all(1).any() for image in left_out)


def test_the_loader_has_the_batches_that_the_loop_trains_on(data, tmp_path):
    seen = []
    model, loader = head_study.prepare(data, 24, 8, fold=2, **SMALL)
    examples = [loader.dataset[i] for i in next(iter(loader.batch_sampler))]
    step = model.step
    model.step = lambda batch, update: (seen.append(batch), step(batch, update))[1]
    history = head_study.train_imputer(data, model, loader, tmp_path, fold=2)
    assert len(seen) == len(loader) == 3
    assert all(torch.equal(image, example[0]) for image, example in zip(seen[0][0].cpu(), examples))
    assert np.isfinite([history[-1][f"{name} (held out)"] for name in ("heads", "lines", "energy")]).all()


def test_the_loader_gives_corrupted_and_complete_images_with_their_masks(data):
    _, loader = head_study.prepare(data, 24, 8)
    corrupted, complete, visible, hidden = next(iter(loader))
    assert corrupted.shape == complete.shape == visible.shape == hidden.shape == (8, 1, 64, 64)
    assert torch.equal(corrupted, complete * visible) and not (visible & hidden).any()
    assert hidden.flatten(1).any(1).all()


def test_a_generator_is_trained_and_its_loss_on_validation_heads_is_in_the_history(data, tmp_path, monkeypatch):
    monkeypatch.setattr(head_study, "Diffusion", lambda: Diffusion((64, 64), widths=(12, 24), layers=1))
    model = head_study.train_generator(data.real.train[:4], data.real.validation, tmp_path, 32)
    assert np.isfinite(json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))[-1]["validation"])
    assert model.sample(2, steps=2).shape == (2, 1, 64, 64)


def test_heads_are_masked_and_lines_are_hidden_before_they_are_filled(data):
    filled = data.fill_heads(lambda x, known: data.real.validation, data.real.validation)
    assert torch.equal(filled, data.real.validation)
    shown = []
    error = data.psnr_on_lines(lambda x, known: shown.append(known) or x + 0.1, data.folds == 0, data.lines)
    assert (error < 40).all() and not (shown[0] & data.lines[data.folds == 0]).any()
