"""A short run of the soak harness, and that it can fail; the long one is `make soak`."""

import random

import pytest

from benchmarks import soak
from utils import checkpoints


def test_a_training_that_is_killed_and_damaged_ends_with_the_same_weights():
    done = soak.soak("PixelCNN", rounds=4, chance=random.Random(1))
    assert done["killed"] and done["difference"] == 0


def test_it_notices_a_training_that_starts_anew(tmp_path, monkeypatch):
    soak.one_round("VAE", tmp_path, None)
    monkeypatch.setattr(checkpoints, "latest", lambda *_, **__: None)
    with pytest.raises(soak.Failure, match="went on from step 0, but the newest whole checkpoint is of step 150"):
        soak.one_round("VAE", tmp_path, None)
