"""Trainings and samples on a real NVIDIA GPU. Without one, these tests are skipped.

TEST_CUDA=1 python -m pytest -n 0 tests/test_cuda.py
"""

import copy
import os

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from benchmarks import soak
from utils.data import image_files
from utils.models.blocks import Noise
from utils.training import checkpoints, devices, loop, recording

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms need it from the start
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU, or TEST_CUDA is not 1")
STEPS = 12
SAMPLED = [kind for kind in soak.MODELS if hasattr(soak.MODELS[kind](), "sample")]


@pytest.fixture(params=["no", "fp16", "bf16"])
def number_format(request, monkeypatch):
    if request.param == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    yield from use(request.param, monkeypatch)


@pytest.fixture
def float32(monkeypatch):
    yield from use("no", monkeypatch)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def use(format_, monkeypatch):
    """Let Accelerate use another number format, and the GPU even if an earlier test did not."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", format_)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield format_
    AcceleratorState._reset_state(reset_partial_state=True)


def train(kind, folder, stop=False):
    """A small model after STEPS steps, and the history. With `stop`, it is stopped after half of them."""

    def interrupt(model):
        raise InterruptedError

    devices.seed_everything(0)
    model, options = soak.MODELS[kind](), {"plot": False, "evaluations": 2, "checkpoint_seconds": 0}
    if not stop:
        return model, loop.fit(model, soak.data(kind), STEPS, 8, folder, {}, **options)
    with pytest.raises(InterruptedError):
        loop.fit(model, soak.data(kind), STEPS, 8, folder, {}, evaluate=interrupt, **options)


def losses(history):
    return {f"{name} {row['step']}": value for row in history for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize("kind", ["GAN", "classifier"])
def test_a_training_resumes_with_the_same_losses(kind, number_format, tmp_path):
    undisturbed, history = train(kind, tmp_path / "a")
    assert next(undisturbed.parameters()).is_cuda and PartialState().device.type == "cuda"
    train(kind, tmp_path / "b", stop=True)
    found = checkpoints.read(checkpoints.find(tmp_path / "b")[-1])
    assert found.device == torch.cuda.get_device_name() and (found.state["scaler"] is not None) == (
        number_format == "fp16"
    )
    _, resumed = train(kind, tmp_path / "b")
    rounding = {"no": 1e-3, "fp16": 0.02, "bf16": 0.1}[number_format]
    assert losses(resumed) == pytest.approx(losses(history), rel=rounding, abs=rounding)


@pytest.mark.parametrize("kind", ["VAE", "classifier"])  # a GAN turns images, which PyTorch cannot do in this way
def test_a_training_with_deterministic_algorithms_resumes_bit_for_bit(kind, number_format, deterministic, tmp_path):
    undisturbed, history = train(kind, tmp_path / "a")
    train(kind, tmp_path / "b", stop=True)
    resumed, again = train(kind, tmp_path / "b")
    assert losses(again) == losses(history)
    assert all(map(torch.equal, undisturbed.state_dict().values(), resumed.state_dict().values()))


@pytest.mark.parametrize("kind", soak.MODELS)
def test_every_model_learns_in_float16_with_a_scaled_loss(kind, monkeypatch, tmp_path):
    for _ in use("fp16", monkeypatch):
        model, history = train(kind, tmp_path)
        state = checkpoints.read(checkpoints.find(tmp_path)[-1]).state
        assert 1 < state["scaler"]["scale"] < 2**17 and len(history) == 2
        assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_seed_gives_the_same_samples_on_the_cpu_and_on_the_gpu(kind, float32):
    devices.seed_everything(0)
    here = soak.MODELS[kind]()
    for module in here.modules():
        if isinstance(module, Noise):
            torch.nn.init.constant_(module.strength, 0.5)  # before training, it is 0
    there = copy.deepcopy(here).to(devices.accelerator().device, memory_format=torch.channels_last)
    options = {"steps": 10} if kind == "diffusion" else {}
    one, other = here.sample(20, 3, **options), there.sample(20, 3, **options)
    assert next(there.parameters()).is_cuda and not other.is_cuda
    if kind == "VAE's prior":  # these are latents
        torch.testing.assert_close(one, other, rtol=0, atol=1e-2)
    else:
        a, b = (image_files.to_uint8(x).astype(int) for x in (one, other))
        # A pixel of a PixelCNN depends on all pixels before it, so one that is rounded differently can change others.
        assert (abs(a - b) > 1).mean() <= (0.02 if kind == "PixelCNN" else 0)


def test_a_run_of_the_gpu_goes_on_on_the_cpu(float32, monkeypatch, tmp_path, capsys):
    train("GAN", tmp_path, stop=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    model, _ = train("GAN", tmp_path)
    assert not next(model.parameters()).is_cuda
    assert f"trained on {torch.cuda.get_device_name()} so far" in capsys.readouterr().out


class Watched(recording.Recording):
    """A recording that tells the test whether steps were replayed."""

    made: list["Watched"] = []

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.made.append(self)


@pytest.fixture
def recorded(monkeypatch):
    """The short trainings of these tests are recorded after a few steps."""
    monkeypatch.setattr(recording, "WARM_UP", 3)
    monkeypatch.setattr(recording, "SHORTEST", 1)
    monkeypatch.setattr(recording, "Recording", Watched)
    monkeypatch.setattr(Watched, "made", [])
    return Watched.made


@pytest.mark.parametrize("kind", soak.MODELS)
def test_a_recorded_training_has_the_losses_and_weights_of_a_plain_one(kind, float32, recorded, monkeypatch, tmp_path):
    replayed, history = train(kind, tmp_path / "recorded")
    assert len(recorded) == 1 and recorded[0].graph is not None
    monkeypatch.setattr(recording, "can_record", lambda run: False)
    plain, wanted = train(kind, tmp_path / "plain")
    assert len(recorded) == 1
    assert losses(history) == pytest.approx(losses(wanted), rel=1e-3, abs=1e-3)
    for one, other in zip(replayed.state_dict().values(), plain.state_dict().values()):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", ["GAN", "classifier"])
def test_a_recorded_training_resumes_also_as_a_plain_one(kind, float32, recorded, monkeypatch, tmp_path):
    _, history = train(kind, tmp_path / "a")
    train(kind, tmp_path / "b", stop=True)
    group = checkpoints.read(checkpoints.find(tmp_path / "b")[-1]).state["optimizers"].popitem()[1]["param_groups"][0]
    assert isinstance(group["lr"], float) and not group["capturable"]
    _, resumed = train(kind, tmp_path / "b")
    assert losses(resumed) == pytest.approx(losses(history), rel=1e-3, abs=1e-3)
    train(kind, tmp_path / "c", stop=True)
    monkeypatch.setattr(recording, "can_record", lambda run: False)
    _, resumed = train(kind, tmp_path / "c")
    assert losses(resumed) == pytest.approx(losses(history), rel=1e-3, abs=1e-3)


def test_a_step_that_cannot_be_recorded_stays_plain_and_a_line_says_so(
    float32, recorded, tmp_path, capsys, monkeypatch
):
    plain_step = soak.MODELS["classifier"]().__class__.step

    def step(self, batch, update):
        found = plain_step(self, batch, update)
        return found | {"loss": torch.tensor(found["cross_entropy"].item(), device=batch[0].device)}

    monkeypatch.setattr(soak.MODELS["classifier"]().__class__, "step", step)
    _, history = train("classifier", tmp_path)
    assert recorded[0].failed and "are not recorded as a CUDA graph" in capsys.readouterr().out
    assert history[-1]["step"] == STEPS and torch.rand(2, device="cuda").isfinite().all()
