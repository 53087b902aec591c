"""Coursework 1's trainings: what is kept and when it is made again, the opponent's generator, and the searches."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils import budgets, config
from utils.data import image_files
from utils.data.hand_images import Hands
from utils.evaluation import generator_study
from utils.evaluation.generator_study import GeneratorStudy, Search
from utils.models.residual_gan import ResidualGAN
from utils.models.vae import VAE
from utils.training import kept

SMALL = {"batch_size": 16, "base": 4, "discriminator_base": 4}


@pytest.fixture
def study(tmp_path):
    return GeneratorStudy(draw_pictures(40), draw_pictures(312, seed=1), tmp_path)


def test_a_finished_training_is_loaded_and_another_one_is_not(study, capsys):
    first = study.gan("a", SMALL, 48, 0, plot=False)
    again = study.gan("a", SMALL, 48, 0, plot=False)
    assert "a/seed_0/gan: was finished on" in capsys.readouterr().out and again.history == first.history
    assert torch.equal(again.model.sample(2), first.model.sample(2))
    assert study.gan("a", SMALL, 48, 1, plot=False).history != first.history
    with pytest.raises(ValueError, match="belongs to another run"):  # the checkpoint of the same folder
        study.gan("a", SMALL | {"penalty": 1.0}, 48, 0, plot=False)


def test_a_damaged_record_is_made_again(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"score": 1.5, "samples": np.zeros((2, 3), np.uint8)}

    path = tmp_path / "folder" / "x.npz"
    for wanted in ({"a": 1}, {"a": 1}, {"a": 2}):
        found = kept.kept_values(path, wanted, make)
        assert found.keys() == {"score", "samples"} and found["score"] == 1.5 and found["samples"].shape == (2, 3)
    assert len(calls) == 2
    path.write_bytes(path.read_bytes()[:50])
    kept.kept_values(path, {"a": 2}, make)
    assert len(calls) == 3


def test_a_gan_begins_with_a_vae_and_is_measured_along_the_way(study):
    vae, history = study.vae("a", {"batch_size": 16, "base": 4}, 64, 256, 0, plot=False)
    assert {row["part"] for row in history} == {"VAE", "prior"} and "negative_elbo (held out)" in history[0]
    gan = study.gan(
        "a", SMALL, 64, 0, vae, evaluations=2, plot=False,
        evaluate=lambda model: study.distances(image_files.as_saved(model.sample(12))),
    )  # fmt: skip
    assert len(gan.history) == 2 and gan.history[-1]["FD pixels"] > 0
    first = study.gan("first", SMALL, 64, 0, vae, plot=False).model
    both = {"own_pairs": True, "before": first, "plot": False}
    second = study.gan("b", SMALL, 64, 0, vae, **both)
    assert not torch.equal(second.model.sample(2), gan.model.sample(2))
    assert study.gan("b", SMALL, 64, 0, vae, **both).history == second.history


def test_the_opponents_images_do_not_depend_on_each_other():
    torch.manual_seed(0)
    gan = ResidualGAN((32, 32), 1, 128, base=4, discriminator_base=4)
    for layer in gan.generator.modules():  # the last convolution of each block begins at zero
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.1)
    latents = gan.sample_latents(6)
    assert gan.sample(6).shape == (6, 1, 32, 32) and torch.equal(gan.sample(6), gan.decode(latents))
    gan.generator.train()
    alone, together = gan.generator(latents[:1]), gan.generator(latents)[:1]
    assert torch.allclose(alone, together, atol=1e-5)  # the noise has strength zero at first
    assert gan.generator(latents).std(0).max() > 0
    with pytest.raises(ValueError, match="multiple of 64"):
        ResidualGAN((32, 32), 1, 100, base=4, discriminator_base=4)
    with pytest.raises(ValueError, match="random weights"):
        gan.start_from(VAE(base=4), 10)


def test_the_opponents_weights_come_back(tmp_path):
    gan = ResidualGAN(base=4, discriminator_base=4)
    back = ResidualGAN.from_weights(gan.export(tmp_path / "gan.safetensors"))
    assert torch.allclose(back.sample(3), gan.eval().sample(3), atol=0.02)


def test_a_search_keeps_its_trials_and_only_them(tmp_path):
    found = Hands(draw_pictures(72), draw_pictures(20, seed=1), [], "drawn")
    search = Search(found, budgets.HANDS_TUNING["smoke"], tmp_path)
    first, second = search.vae_design
    assert {first["lr"], first["latent_dim"]} == {config.hyperparameters("vae")[n] for n in ("lr", "latent_dim")}
    results = [search.vae_trial(settings) for settings in (first, second, first)]
    assert results[0]["score"] == results[2]["score"] != results[1]["score"] > 0
    assert len(results[0]["samples"]) == 12 and results[0]["seconds"] > 0
    of_gan = [search.gan_trial(settings) for settings in (*search.gan_design, search.gan_design[0])]
    assert of_gan[0]["score"] == of_gan[2]["score"] != of_gan[1]["score"]
    again = search.gan_trial(search.gan_design[0], seed=1)
    assert again["score"] != of_gan[0]["score"]
    assert not list(tmp_path.glob("*_trials/**/*.ckpt")) and not list(tmp_path.glob("*_trials/**/*.safetensors"))
    model, history = search.first  # the same training, and this one is kept
    samples = image_files.as_saved(model.sample(12))
    assert search.study.score(samples)["score"] == pytest.approx(results[0]["score"], rel=0.1)
    assert generator_study.seconds(history) > 0 and list(tmp_path.glob("first/seed_0/vae.safetensors"))
