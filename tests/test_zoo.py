"""The five families of models, for every image shape of the final assignment, and the feature classifier."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_pictures, three_kinds
from utils import config
from utils.data import image_files
from utils.evaluation import feature_spaces, fidelity, likelihood
from utils.models import zoo
from utils.models.diffusion import Diffusion
from utils.training import checkpoints

SETTINGS = {
    "VAE": {"base": 8},
    "GAN": {"base": 8, "discriminator_base": 8, "ema_share": 0.2},
    "PixelCNN": {"width": 8, "layers": 2, "hidden": 8, "components": 3},
    "flow": {"width": 8, "depth": 1, "bins": 4},
    "diffusion": {"widths": (24, 24), "components": 2, "dropout": 0.0},
}
SHAPES = [(family, *shape) for family in SETTINGS for shape in ((1, (28, 28)), (3, (20, 16)))]
SHAPES += [(family, 1, (64, 64)) for family in SETTINGS if family != "PixelCNN"]  # its samples would take half a minute
WITH_LIKELIHOOD = [family for family in SETTINGS if family != "GAN"]


def pictures(channels: int, size: tuple[int, int]) -> torch.Tensor:
    """Drawn pictures (32, channels, *size) of whole grey levels in [-1, 1]."""
    images = draw_pictures(32, max(size))[:, :, : size[0], : size[1]]
    return image_files.to_float(np.repeat(images, channels, 1))


def samples(model, count: int, seed: int) -> torch.Tensor:
    options = {"steps": 10} if isinstance(model, Diffusion) else {}
    return model.sample(count, seed, **options)


@pytest.mark.parametrize(("family", "channels", "size"), SHAPES)
def test_each_family_can_be_trained_sampled_and_measured(family, channels, size, tmp_path):
    images = pictures(channels, size)
    settings = SETTINGS[family] | {"batch_size": 16}
    evaluate = likelihood.bits_hook(images[:4], num_samples=2) if family in WITH_LIKELIHOOD else None
    found = zoo.train(family, images, 64, tmp_path, settings, evaluate=evaluate, evaluations=2)
    assert found.seconds > 0 and not found.model.training
    made = samples(found.model, 3, seed=1)
    assert made.shape == (3, channels, *size) and made.abs().max() <= 1
    assert made.dtype == torch.float32 and made.device.type == "cpu"
    assert torch.equal(made, samples(found.model, 3, seed=1)) and not torch.equal(made, samples(found.model, 3, seed=2))
    if evaluate:
        bits = [row["bits (validation)"] for row in found.history]
        assert len(bits) == 2 and all(0 < b < 100 for b in bits)
        nats = likelihood.nats(found.model, images[:5], 2)
        assert nats.shape == (5,) and torch.equal(nats, likelihood.nats(found.model, images[:5], 2))
    again = zoo.train(family, images, 64, tmp_path, settings, evaluate=evaluate, evaluations=2)
    assert again.history == found.history and torch.equal(samples(again.model, 3, seed=1), made)


@pytest.mark.parametrize("family", SETTINGS)
def test_the_command_trains_every_family_on_a_folder(family, tmp_path):
    image_files.write_jpegs(draw_pictures(20, 20), tmp_path / "pictures", "picture", 20)
    zoo.train_on_folder(family, str(tmp_path / "pictures"), 16, None, 32, tmp_path / "out", samples=3, seed=0, batch=16)
    _, tensors = checkpoints.read_weights(tmp_path / "out" / "weights.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) > 10_000
    with Image.open(tmp_path / "out" / "samples.png") as picture:
        assert picture.height == 16 and np.ptp(np.asarray(picture)) > 0


def test_the_command_does_not_replace_the_weights_of_another_family(tmp_path):
    image_files.write_jpegs(draw_pictures(20, 16), tmp_path / "pictures", "picture", 20)
    arguments = {"file": None, "images_seen": 32, "out": tmp_path / "out", "samples": 3, "seed": 0, "batch": 16}
    zoo.train_on_folder("PixelCNN", str(tmp_path / "pictures"), 16, **arguments)
    first = (tmp_path / "out" / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="does not hold weights of SpatialVAE.*Choose another folder for the VAE"):
        zoo.train_on_folder("VAE", str(tmp_path / "pictures"), 16, **arguments)
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == first


def test_the_command_refuses_other_images_and_fewer_than_a_batch(tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        image_files.write_jpegs(draw_pictures(20, 16, seed), tmp_path / name, "picture", 20)
    arguments = {"file": None, "images_seen": 32, "out": tmp_path / "out", "samples": 3, "seed": 0, "batch": 16}
    zoo.train_on_folder("PixelCNN", str(tmp_path / "one"), 16, **arguments)
    zoo.train_on_folder("PixelCNN", str(tmp_path / "one"), 16, **arguments)
    with pytest.raises(ValueError, match="images, or other data, differ"):
        zoo.train_on_folder("PixelCNN", str(tmp_path / "other"), 16, **arguments)
    with pytest.raises(ValueError, match="to train on is 3, but one batch of the PixelCNN has .* smaller batch"):
        zoo.train_on_folder(
            "PixelCNN", str(tmp_path / "one"), 16, **arguments | {"images_seen": 3, "out": tmp_path / "few"}
        )


@pytest.mark.parametrize("name", ["fashion-mnist", "nosuch"])
def test_an_unknown_data_set_gets_the_list_of_data_sets(name):
    with pytest.raises(
        FileNotFoundError, match=f"'{name}' is neither a folder nor a data set.*: Fashion-MNIST, CelebA"
    ):
        zoo.load(name, 16)


def test_a_class_without_what_a_family_needs_is_refused_before_the_training(monkeypatch, tmp_path):
    class Toy(torch.nn.Module):
        config, ema_modules = {}, ()

        def __init__(self, size, channels):
            super().__init__()

    monkeypatch.setitem(zoo.MODELS, "toy", Toy)
    with pytest.raises(ValueError, match="Toy, .* lacks optimizers, step, sample, export, from_weights"):
        zoo.train("toy", pictures(1, (16, 16)), 64, tmp_path / "run", {"batch_size": 16})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no hyper-parameters for 'final_toy'"):
        zoo.committed_settings("toy", None, 1.0)


def test_a_gan_of_classes_makes_the_class_that_is_asked_for(tmp_path):
    dark_or_bright = torch.arange(32) % 2
    images = (2.0 * dark_or_bright - 1)[:, None, None, None].expand(-1, 1, 8, 8) * 0.8
    settings = {"base": 8, "discriminator_base": 8, "batch_size": 16, "augmentation": 0.0, "ema_share": 0.02}
    found = zoo.train("GAN", images, 16 * 150, tmp_path, settings, labels=dark_or_bright).model
    dark, bright = (found.sample(20, seed=0, label=label).mean() for label in (0, 1))
    assert dark < -0.4 and bright > 0.4
    assert found.sample(20, seed=0).flatten(1).mean(1).std() > 0.3, "without a label, both classes are made"


def test_the_feature_classifier_learns_classes_and_is_a_feature_space(tmp_path):
    images, truth = three_kinds(40)
    found, history = feature_spaces.train_feature_classifier(images, truth, 1_500, tmp_path, batch_size=30)
    probabilities = found.probabilities(images)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(images)), atol=1e-5)
    assert (probabilities.argmax(1).numpy() == truth).mean() > 0.9 and history[-1]["accuracy"] > 0.8
    assert feature_spaces.features(found, images).shape == (120, found.num_features)
    near, far = images[truth == 0], images[truth == 2]
    floor = fidelity.frechet_distance(found, near[::2], near[1::2])
    assert floor < fidelity.frechet_distance(found, near[::2], far[1::2]) / 3


def test_every_family_of_the_command_line_has_a_class():
    assert tuple(zoo.MODELS) == config.FAMILIES == tuple(SETTINGS)


@pytest.mark.parametrize("family", SETTINGS)
def test_loaded_weights_give_the_same_model(family, tmp_path):
    settings = {name: value for name, value in SETTINGS[family].items() if name != "ema_share"}
    model = zoo.MODELS[family](size=(16, 16), channels=1, **settings)
    again = zoo.MODELS[family].from_weights(model.export(tmp_path / "weights.safetensors"))
    for name, value in again.state_dict().items():
        kept = name.startswith("generator") or family != "GAN"  # sampling does not need the discriminator
        if kept and value.is_floating_point():
            assert torch.allclose(value, model.state_dict()[name], rtol=1e-3, atol=1e-4), name
    assert samples(again, 2, seed=0).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"images_seen": 0}, {"samples": -1}, {"batch": 0}, {"lr_scale": 0.0}])
def test_numbers_that_are_too_small_are_refused_before_reading_and_writing(wrong, tmp_path):
    arguments = {"size": 16, "file": None, "images_seen": 64, "out": tmp_path / "out", "samples": 3, "seed": 0}
    with pytest.raises(ValueError, match="but must be"):
        zoo.train_on_folder("VAE", str(tmp_path / "no such folder"), **arguments | wrong)
    assert not list(tmp_path.iterdir())
