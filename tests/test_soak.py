"""A short run of benchmarks/soak.py, and tests that it finds faults. The long run is `make soak`."""

import random

import pytest

from benchmarks import soak
from utils.training import checkpoints, loop

pytestmark = pytest.mark.slow


def test_a_training_that_is_killed_and_damaged_ends_with_the_same_weights():
    done = soak.soak("PixelCNN", rounds=6, chance=random.Random(1))
    assert done["killed"] and done["difference"] == 0
    assert done["cut short"] + done["bit flipped"] + done["replaced"]


def test_it_notices_a_training_that_saves_too_late(tmp_path, monkeypatch):
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *x, **options: fit(*x, **options | {"checkpoint_seconds": 60}))
    with pytest.raises(soak.Failure, match=r"trained \d+ steps after a checkpoint was due"):
        soak.one_round("VAE", tmp_path, None, file_limit=100)  # not even the last checkpoint can be written


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(soak, "STEPS", 20)


@pytest.mark.parametrize("kind", soak.MODELS)
def test_every_model_can_be_soaked(kind, tmp_path, few_steps):
    assert soak.one_round(kind, tmp_path, None) == 0 and soak.whole(tmp_path) == 20


def test_it_notices_a_training_that_starts_again(tmp_path, few_steps, monkeypatch):
    soak.one_round("VAE", tmp_path, None)
    monkeypatch.setattr(checkpoints, "latest", lambda *_, **__: None)
    with pytest.raises(soak.Failure, match="continued from step 0, but the newest undamaged checkpoint has step 20"):
        soak.one_round("VAE", tmp_path, None)
