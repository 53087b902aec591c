"""The loop: an interruption changes nothing, other runs' checkpoints are refused, bad losses stop it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import image_files
from utils.models.classifier import Classifier
from utils.models.dcgan import DCGAN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop

IMAGES = image_files.to_float(draw_pictures(20, 8))


def new_model(kind):
    devices.seed_everything(3)
    if kind == "vae":
        return VAE((8, 8), latent_dim=3, base=4)
    if kind == "classifier":
        return Classifier(base=4)
    return DCGAN((8, 8), latent_dim=3, base=4, discriminator_base=4, jpeg_quality=75)


def train(kind, folder, steps=12, **options):
    model = new_model(kind)
    data = (IMAGES, torch.arange(len(IMAGES)) % 3) if kind == "classifier" else IMAGES
    history = loop.fit(model, data, steps, 4, folder, model.config, plot=False, evaluations=3, **options)
    return model, history


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", ["vae", "dcgan", "classifier"])
def test_resumed_equals_undisturbed_bit_for_bit(kind, tmp_path):
    undisturbed, history = train(kind, tmp_path / "a")
    calls = []

    def interrupt(model):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted
        return {}

    with pytest.raises(Interrupted):
        train(kind, tmp_path / "run2", evaluate=interrupt, checkpoint_seconds=0)
    assert checkpoints.latest(tmp_path / "run2", _config(kind))[0] == 7  # killed in the eighth step
    resumed, resumed_history = train(kind, tmp_path / "run2")
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert without_time(history) == without_time(resumed_history)


def _config(kind):
    asked = {"steps": 12, "batch_size": 4, "seed": 0, "images": 20, "average_share": loop.AVERAGE_SHARE}
    return new_model(kind).config | asked


KILLED = """
import sys, torch
from tests.test_training import new_model, IMAGES
from utils.training import loop
torch.set_num_threads(1)
model = new_model("dcgan")
step = model.step
def slow(images, update):
    print("step", flush=True)
    return step(images, update)
model.step = slow
loop.fit(model, IMAGES, 60, 4, sys.argv[1], model.config, plot=False, checkpoint_seconds=0)
torch.save(model.state_dict(), sys.argv[1] + "/final.pt")
"""


def run_killed(folder, kill_at):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE
    )
    for seen, _ in enumerate(process.stdout, start=1):
        if seen == kill_at:
            time.sleep(0.003)
            process.kill()
            break
    process.stdout.close()
    return process.wait()


def test_killed_at_any_moment_it_goes_on(tmp_path):
    assert run_killed(tmp_path / "a", kill_at=None) == 0
    assert run_killed(tmp_path / "b", kill_at=9) != 0
    assert run_killed(tmp_path / "b", kill_at=17) != 0
    assert run_killed(tmp_path / "b", kill_at=None) == 0
    states = [torch.load(tmp_path / name / "final.pt", weights_only=True) for name in "ab"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, history = train("vae", tmp_path)
    again, same = train("vae", tmp_path, evaluate=lambda model: pytest.fail("nothing was left to do"))
    assert history == same == json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert torch.equal(first.sample(2), again.sample(2))


def test_a_foreign_checkpoint_is_refused(tmp_path):
    train("vae", tmp_path)
    with pytest.raises(checkpoints.CheckpointMismatch, match="steps: 12 in the file, 13 wanted"):
        train("vae", tmp_path, steps=13)
    with pytest.raises(checkpoints.CheckpointMismatch, match="discriminator_base: absent in the file"):
        train("dcgan", tmp_path)


def test_same_seed_same_weights(tmp_path):
    a, b = (train("dcgan", tmp_path / name)[0] for name in ("a", "b"))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    model = new_model("vae")
    with torch.no_grad():
        model.log_std.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        loop.fit(model, IMAGES, 4, 4, tmp_path, model.config, plot=False)


def test_an_epoch_shows_every_image_once():
    seen = torch.cat([loop.batch_indices(20, 4, step, seed=1) for step in range(5)])
    assert sorted(seen.tolist()) == list(range(20))
    second = torch.cat([loop.batch_indices(20, 4, step, seed=1) for step in range(5, 10)])
    assert sorted(second.tolist()) == list(range(20)) and not torch.equal(seen, second)
    assert len(loop.batch_indices(2, 8, 0, seed=0)) == 8  # two images only


def test_schedule():
    assert [loop.learning_rate_scale(step, 100) for step in (0, 40, 70, 100)] == [1, 1, pytest.approx(0.5), 0]


def test_evaluation_sees_averaged_weights_and_leaves_no_trace(tmp_path):
    model = new_model("vae")
    seen = []

    def look(m):
        assert not m.training and not torch.is_grad_enabled()
        seen.append(next(m.decoder.parameters()).clone())
        return {"n": len(seen)}

    loop.fit(model, IMAGES, 12, 4, tmp_path / "a", model.config, plot=False, evaluations=2, evaluate=look)
    assert len(seen) == 2
    assert torch.equal(next(model.decoder.parameters()), seen[-1])  # what it returns is the average
    assert torch.equal(model.sample(2), train_like(tmp_path / "b", evaluations=2).sample(2))


def train_like(folder, evaluations):
    model = new_model("vae")
    loop.fit(model, IMAGES, 12, 4, folder, model.config, plot=False, evaluations=evaluations)
    return model


def test_average_by_hand(tmp_path):
    layer = torch.nn.Linear(1, 1, bias=False)
    average = loop.averaged_copy(layer, half_life=1)  # halves every time
    values = []
    for value in (4.0, 8.0, 0.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update_parameters(layer)
        values.append(average.module.weight.item())
    assert values == [4, 6, 3]
