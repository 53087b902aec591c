"""The final models of the last assignment: one call for each, on any data set."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils import budgets, config
from utils.data.public_images import Part, Parts
from utils.evaluation import garment_study
from utils.models.flow import Flow


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder for runs, small budgets, and small models."""
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    monkeypatch.setenv("PROFILE", "smoke")
    small = dataclasses.replace(budgets.GARMENTS["smoke"], faces_images=dict.fromkeys(config.DATA_SETS[1:], 32))
    monkeypatch.setitem(budgets.GARMENTS, "smoke", small)
    tiny = {
        "final_flow": {"width": 8, "depth": 1, "bins": 4, "batch_size": 16},
        "vae": {"base": 4, "batch_size": 16},
        "dcgan": {"base": 4, "discriminator_base": 4, "batch_size": 16, "ema_share": 0.05, "jpeg_quality": 75},
    }
    monkeypatch.setattr(config, "hyperparameters", lambda name: dict(tiny[name]))
    return tmp_path / "smoke"


def parts() -> Parts:
    pictures, none = draw_pictures(60, 8), np.zeros(20, dtype=np.int64)
    return Parts(*(Part(x, none) for x in np.split(pictures, 3)), ("picture",), "drawn")


def test_a_model_is_trained_with_its_curve_and_then_loaded(here):
    found = garment_study.train("CelebA", parts(), "flow", seed=1)
    assert found.history[-1]["images"] == 32 and found.history[-1]["bits (validation)"] > 0
    assert (here / "final_CelebA" / "flow_seed_1" / "history.json").is_file()
    again = garment_study.train("CelebA", parts(), "flow", seed=1)
    assert again.history == found.history
    mean, error = garment_study.bits(found.model, parts().test.images)
    assert 0 < mean < 20 and error > 0
    kept = [garment_study.bits(found.model, parts().test.images, 4, here, "test") for _ in range(2)]
    assert kept == [(mean, error)] * 2 and len(list(here.glob("nats_test_*"))) == 1


def test_garments_faces_and_a_gan_of_classes_have_their_own_budgets(here):
    budget = budgets.garments()
    seen = garment_study.images_seen
    assert seen("Fashion-MNIST", "flow") == budget.images_seen["flow"]
    assert seen("CelebA in colour", "flow") == 32 and seen("Fashion-MNIST", "GAN", True) == budget.class_gan_images


def test_samples_are_kept_as_long_as_the_weights_are_the_same(tmp_path, monkeypatch):
    model = Flow((8, 8), width=8, depth=1, bins=4)
    first = garment_study.draw(model, 5, tmp_path)
    assert first.shape == (5, 1, 8, 8) and first.dtype == np.uint8 and len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(model, "sample", lambda *_: pytest.fail("they were drawn before"))
        assert np.array_equal(garment_study.draw(model, 5, tmp_path, batch_size=2), first)
    other = garment_study.draw(model, 5, tmp_path, seed=1)
    assert not np.array_equal(other, first) and len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        [weights.add_(0.1) for weights in model.parameters()]
    assert not np.array_equal(garment_study.draw(model, 5, tmp_path), first)


def test_a_gan_begins_with_a_vae_and_both_are_then_loaded(here, capsys):
    found = garment_study.train_warm_gan("CelebA", parts(), seed=1)
    assert found.model.prior is not None and found.model.config["jpeg_quality"] is None
    assert found.history[-1]["Frechet distance (validation)"] > 0 and found.seconds > found.history[-1]["seconds"]
    again = garment_study.train_warm_gan("CelebA", parts(), seed=1)
    assert again.history == found.history and capsys.readouterr().out.count("was finished on") == 3
