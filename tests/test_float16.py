"""Training in float16 with a scaled loss, as on a GPU without bfloat16. PyTorch can also do it on the CPU."""

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from tests.test_training import same_weights, train, train_until_second_evaluation, without_time
from utils.training import checkpoints, devices, loop


@pytest.fixture(autouse=True)
def float16(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


class Steep(nn.Module):
    """Two numbers, each with its own optimiser. The loss is 100 times their sum. `overflows(step)` makes it NaN."""

    ema_modules = ()

    def __init__(self, overflows=lambda step: False, clip=None):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
        self.overflows, self.clip, self.done = overflows, clip, 0

    def optimizers(self):
        return {name: torch.optim.SGD([getattr(self, name)], 1e-3) for name in ("first", "second")}

    def step(self, images, update):
        self.done += 1
        loss = 100 * self.first.sum() * (float("inf") if self.overflows(self.done) else 1)
        update("first", loss, clip=self.clip)
        update("second", 100 * self.second.sum(), clip=self.clip)
        return {"loss": loss}


def fit(model, folder, steps=10):
    return loop.fit(model, torch.zeros(8, 1), steps, 4, folder, {}, plot=False, evaluations=1)


@pytest.mark.parametrize(("clip", "largest"), [(None, 100.0), (0.5, 0.5)])
def test_the_scale_of_the_loss_does_not_change_the_steps(clip, largest, tmp_path):
    model = Steep(clip=clip)
    fit(model, tmp_path)
    rates = sum(1e-3 * loop.learning_rate_scale(step, 10) for step in range(10))
    for weight in (model.first, model.second):
        assert weight.item() == pytest.approx(-largest * rates, rel=1e-5)
    assert checkpoints.read(checkpoints.find(tmp_path)[-1]).state["scaler"]["scale"] == 2**16


def test_a_loss_that_overflows_skips_its_own_step_and_nothing_else(tmp_path):
    model = Steep(overflows=lambda step: step in (1, 4))
    history = fit(model, tmp_path)
    taken = [loop.learning_rate_scale(step, 10) for step in range(10)]
    assert model.second.item() == pytest.approx(-0.1 * sum(taken), rel=1e-5)
    assert model.first.item() == pytest.approx(-0.1 * (sum(taken) - taken[0] - taken[3]), rel=1e-5)
    assert abs(history[-1]["loss"]) < 1000  # the losses of NaN are not in the mean
    assert checkpoints.read(checkpoints.find(tmp_path)[-1]).state["scaler"]["scale"] == 2**14  # halved twice


def test_a_run_that_skips_all_its_steps_says_so(tmp_path, capsys):
    model = Steep(overflows=lambda step: True)
    with pytest.raises(FloatingPointError, match="the last 50 steps of 'first' were skipped: .*MIXED_PRECISION=no"):
        fit(model, tmp_path / "long", steps=150)
    assert model.done == 50 and checkpoints.find(tmp_path / "long") == []
    fit(Steep(overflows=lambda step: True), tmp_path / "short", steps=3)  # the scale may only have been too large
    assert "NOT TRAINED: all 3 steps were skipped" in capsys.readouterr().out
    fit(Steep(), tmp_path / "good", steps=3)
    assert "NOT TRAINED" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["vae", "dcgan", "classifier"])
def test_a_training_in_float16_resumes_bit_for_bit_with_its_scale(kind, tmp_path):
    assert torch.is_autocast_enabled("cpu") is False
    undisturbed, history = train(kind, tmp_path / "a")
    train_until_second_evaluation(kind, tmp_path / "b")
    path = checkpoints.find(tmp_path / "b")[-1]
    assert checkpoints.read(path).state["scaler"]["scale"] > 1
    resumed, resumed_history = train(kind, tmp_path / "b")
    assert same_weights(undisturbed, resumed) and without_time(history) == without_time(resumed_history)


def test_a_training_goes_on_where_there_is_no_float16_and_comes_back(tmp_path, monkeypatch):
    train_until_second_evaluation("dcgan", tmp_path)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state()
    _, history = train("dcgan", tmp_path)
    assert history[-1]["step"] == 12
    assert checkpoints.read(checkpoints.find(tmp_path)[-1]).state["scaler"] is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    AcceleratorState._reset_state()
    assert train("dcgan", tmp_path)[1] == history


def test_a_model_learns_the_same_in_float16_as_in_float32(tmp_path, monkeypatch):
    small, _ = train("dcgan", tmp_path / "float16")
    assert devices.accelerator().mixed_precision == "fp16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state()
    exact, _ = train("dcgan", tmp_path / "float32")
    assert not same_weights(small, exact)
    for one, other in zip(small.parameters(), exact.parameters()):
        torch.testing.assert_close(one, other, rtol=0.02, atol=2e-3)
