"""All models also work on another device: no tensor stays on the CPU by mistake.

tests/test_device.py runs this file in a separate process. PyTorch must know a device before it computes the first
gradient, and a process with such a device cannot be forked.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from benchmarks import limit, models, soak
from tests import pretend
from tests.test_zoo import SETTINGS, pictures, samples
from utils.data import image_files
from utils.evaluation import detector, feature_spaces, fidelity, likelihood
from utils.models import blocks, zoo
from utils.models.dcgan import DCGAN
from utils.models.heads import imputer
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop, run

pretend.register()
FLOAT = torch.rand(16, 1, *soak.SIZE, generator=torch.Generator().manual_seed(0))
KNOWN = FLOAT < 0.7
GREY_LEVEL = 2 / 255


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """The device has no bfloat16."""
    monkeypatch.setattr(devices, "mixed_precision", lambda: "no")


def fitted(kind: str, folder) -> nn.Module:
    """A small model after four steps. It was stopped after two steps, and it continued from its checkpoint."""

    def stop(model):
        raise InterruptedError

    devices.seed_everything(0)
    model, options = soak.MODELS[kind](), {"plot": False, "evaluations": 2, "checkpoint_seconds": 0}
    with pytest.raises(InterruptedError):
        loop.fit(model, soak.data(kind), 4, 4, folder, {}, evaluate=stop, **options)
    model = soak.MODELS[kind]()
    loop.fit(model, soak.data(kind), 4, 4, folder, {}, **options)
    return model


def used(kind: str, model: nn.Module) -> Tensor:
    """The outputs of the model: logits, filled images, latents or samples."""
    if kind == "classifier":
        return model.logits(image_files.to_uint8(FLOAT * 2 - 1))
    if kind == "imputer":
        return imputer.fill_masked([model], FLOAT, KNOWN)[0]
    if kind == "VAE's prior":
        return model.sample(2, seed=1).cpu()
    return image_files.to_float(image_files.to_uint8(samples(model, 2, seed=1)))


def test_the_simulated_device_refuses_the_same_as_a_gpu():
    with pretend.device() as device:
        there, here = torch.ones(2, 2).to(device), torch.ones(2, 2)
        assert there.device.type == devices.accelerator().device.type == pretend.NAME
        assert torch.equal((there + 1).cpu(), here + 1) and torch.equal((there * here[0, 0]).cpu(), here)
        with pytest.raises(RuntimeError, match="on the CPU"):
            there + here
        with pytest.raises(RuntimeError, match="on the CPU"):
            here[there.long()]
        with pytest.raises(RuntimeError, match="on the CPU"):
            there[torch.tensor([0])] = here[:1]
        total = torch.zeros(())
        with pytest.raises(RuntimeError, match="on the CPU"):
            total += there.sum()
        assert torch.equal(there[torch.tensor([0])].cpu(), here[:1])  # indices may be on the CPU
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device=device, generator=torch.Generator())
        with pytest.raises(RuntimeError):
            there.numpy()
    assert devices.accelerator().device.type == "cpu"


def state_of_the_device() -> int:
    return int(torch.get_device_module(pretend.NAME).get_rng_state(torch.device(pretend.NAME)))


def test_seeded_and_evaluation_do_not_change_the_random_state_of_the_device(tmp_path):
    seeds = []

    def evaluate(model):
        seeds.append(state_of_the_device())
        torch.manual_seed(9)
        return {}

    with pretend.device():
        torch.manual_seed(7)
        with devices.seeded(3):
            assert state_of_the_device() == 3
        assert state_of_the_device() == 7
        model, options = soak.MODELS["VAE"](), {"plot": False, "evaluations": 2, "seed": 5}
        loop.fit(model, soak.data("VAE"), 4, 4, tmp_path, {}, evaluate=evaluate, **options)
        assert seeds == [5, 5] and state_of_the_device() == 5  # the seed of the training
        torch.manual_seed(8)
        devices.set_random_state(checkpoints.read(checkpoints.find(tmp_path)[-1]).state["random"])
        assert state_of_the_device() == 5
    torch.manual_seed(8)
    devices.set_random_state({"cpu": torch.get_rng_state(), pretend.NAME: torch.zeros(1)})  # from another machine
    assert state_of_the_device() == 8


@pytest.mark.parametrize("kind", [kind for kind in soak.MODELS if hasattr(soak.MODELS[kind](), "sample")])
def test_a_seed_gives_the_same_images_on_a_device_with_other_random_numbers(kind):
    devices.seed_everything(0)
    here = soak.MODELS[kind]()
    for module in here.modules():
        if isinstance(module, blocks.Noise):
            nn.init.constant_(module.strength, 0.5)  # before training, it is 0
    there, options = soak.MODELS[kind](), [{"steps": 10}, {"steps": 10, "scheduler": "ddpm"}]
    there.load_state_dict(here.state_dict())
    for option in options if kind == "diffusion" else [{}]:
        made = here.sample(3, seed=2, **option)
        with pretend.device(own_noise=True) as device:
            torch.manual_seed(0)
            assert not torch.equal(torch.rand(5, device=device).cpu(), torch.manual_seed(0) and torch.rand(5))
            again = there.to(device).sample(3, seed=2, **option)
        assert type(again) is Tensor and made.std() > 1e-3
        torch.testing.assert_close(again, made, rtol=0, atol=GREY_LEVEL)


@pytest.mark.parametrize("kind", [*soak.MODELS, "GAN from a VAE"])
def test_a_training_step_sends_nothing_to_the_device(kind, tmp_path):
    name = kind.removesuffix(" from a VAE")
    with pretend.device() as device:
        devices.seed_everything(0)
        model = soak.MODELS[name]() if name == kind else DCGAN(soak.SIZE, latent_dim=4, base=4, jpeg_quality=75)
        if name != kind:
            model.start_from(VAE(soak.SIZE, latent_dim=4, base=4), 20)
        model = run.Run(model, 10, tmp_path, {"data": ""}, 0, 1.0)
        data = soak.data(name)
        batch = tuple(x[:8].to(device) for x in (data if isinstance(data, tuple) else (data,)))
        for _ in range(2):  # in its first step, an optimiser makes its state
            pretend.Module.sent.clear()
            model.train_step(batch if isinstance(data, tuple) else batch[0], 1.0)
            loop.batch_indices(64, 8, model.step, 0, device)
        assert [shape for shape in pretend.Module.sent if shape] == []  # single numbers are sent with a command


@pytest.mark.parametrize("kind", soak.MODELS)
def test_a_model_trains_resumes_and_works_as_on_the_cpu(kind, tmp_path):
    here = fitted(kind, tmp_path / "cpu")
    with pretend.device():
        there = fitted(kind, tmp_path / "other")
        assert {x.device.type for x in there.state_dict().values()} == {pretend.NAME}
        made = used(kind, there)
        weights = {name: x.cpu() for name, x in there.state_dict().items()}
        checkpoints.export_weights(tmp_path / "weights.safetensors", there, {})
    # There, an optimiser updates many tensors at once, so it rounds differently.
    torch.testing.assert_close(weights, dict(here.state_dict()), rtol=1e-4, atol=1e-4)
    assert type(made) is Tensor
    torch.testing.assert_close(made, used(kind, here), rtol=0, atol=1.1 * GREY_LEVEL)


def test_a_gan_of_classes_is_trained_on_the_device(tmp_path):
    images, labels = pictures(1, (16, 16)), torch.arange(32) % 3
    with pretend.device():
        gan = zoo.train("GAN", images, 32, tmp_path, SETTINGS["GAN"] | {"batch_size": 16}, labels=labels).model
        made = gan.sample(3, seed=1, label=2)
    assert type(made) is Tensor and made.shape == (3, 1, 16, 16) and made.isfinite().all()


def test_fidelity_is_measured_on_the_device():
    real, fake, training = (image_files.to_uint8(torch.rand(40, 1, 16, 16) * 2 - 1) for _ in range(3))

    def measured():
        spaces = {"pixels": feature_spaces.PixelComponents(training), "texture": feature_spaces.Texture()}
        trained = detector.train_detector(real, fake, steps=2)
        device = {spaces["texture"].filters.device, *(weight.device for weight in trained.parameters())}
        row = fidelity.report(spaces, real, fake, training)
        return device, row | {"pass rate": detector.pass_rate(trained, fake)}

    here, expected = measured()
    with pretend.device() as device:
        there, found = measured()
    assert here == {torch.device("cpu")} and there == {device}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_speed_is_measured_on_the_device(monkeypatch):
    monkeypatch.setattr(models, "ROUNDS", 1)
    monkeypatch.setattr(models, "SECONDS", 0.01)
    monkeypatch.setattr(models, "call_seconds", lambda device: 1e-5)  # its 80,000 calls are slow here
    with pretend.device():
        case = models.Case(
            soak.MODELS["classifier"], soak.data("classifier"), 4, lambda model, _: used("classifier", model)
        )
        roofline = partial(limit.Roofline, {torch.float32: 100.0}, {10**9: 10.0})  # GFLOP/s, GB/s
        assert models.training_row(case)["ratio"] > 0
        assert models.limits_row(models.our_step(case), case.batch_size, roofline)["GFLOP an image"] > 0
        assert models.use_limits(case, roofline)["images/s"] > 0


@pytest.mark.parametrize("family", [family for family in SETTINGS if family != "GAN"])
def test_likelihoods_are_computed_on_the_device(family, tmp_path):
    images = pictures(1, (16, 16))
    with pretend.device():
        settings, judged = (
            SETTINGS[family] | {"batch_size": 16},
            likelihood.bits_hook(images[:4], num_samples=2),
        )
        model = zoo.train(family, images, 32, tmp_path, settings, evaluate=judged, evaluations=1).model
        there = likelihood.nats(model, images[:4], 2)
    assert type(there) is Tensor and there.isfinite().all()
