"""The training loop: exact resume, checkpoints of other runs are refused, and a bad loss stops it."""

import errno
import importlib.util
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils import config
from utils.data import image_files
from utils.models import vae
from utils.models.classifier import Classifier
from utils.models.dcgan import DCGAN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, identity, loop

IMAGES = image_files.to_float(draw_pictures(20, 8))


def new_model(kind):
    devices.seed_everything(3)
    if kind == "vae":
        return VAE((8, 8), latent_dim=3, base=4)
    if kind == "classifier":
        return Classifier(base=4)
    return DCGAN((8, 8), latent_dim=3, base=4, discriminator_base=4, jpeg_quality=75)


def train(kind, folder, steps=12, images=IMAGES, **options):
    model = new_model(kind)
    data = (images, torch.arange(len(images)) % 3) if kind == "classifier" else images
    history = loop.fit(model, data, steps, 4, folder, model.config, plot=False, evaluations=3, **options)
    return model, history


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def same_weights(one, other):
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values()))


class Interrupted(Exception):
    pass


def train_until_second_evaluation(kind, folder):
    """Train, and stop in the eighth of twelve steps."""
    calls = []

    def interrupt(model):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted
        return {}

    with pytest.raises(Interrupted):
        train(kind, folder, evaluate=interrupt, checkpoint_seconds=0)


@pytest.mark.parametrize("kind", ["vae", "dcgan", "classifier"])
def test_a_resumed_training_is_equal_to_an_undisturbed_one_bit_for_bit(kind, tmp_path):
    undisturbed, history = train(kind, tmp_path / "a")
    train_until_second_evaluation(kind, tmp_path / "b")
    assert checkpoints.read(checkpoints.find(tmp_path / "b")[-1]).step == 7
    resumed, resumed_history = train(kind, tmp_path / "b")
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert without_time(history) == without_time(resumed_history)


def test_a_run_says_whether_it_starts_or_goes_on_or_was_loaded(tmp_path, capsys):
    train_until_second_evaluation("vae", tmp_path / "my run")
    assert "my run: starts, 12 steps\n" in capsys.readouterr().out
    train("vae", tmp_path / "my run")
    assert "my run: goes on from step 7 of 12\n" in capsys.readouterr().out
    train("vae", tmp_path / "my run")
    assert re.search(r"my run: was finished on \d{4}-\d\d-\d\d \d\d:\d\d \(cpu\): loaded\n", capsys.readouterr().out)


def test_a_run_says_on_which_other_device_it_was_trained(tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(devices, "device_name", lambda: "Tesla T4")
        train_until_second_evaluation("vae", tmp_path / "my run")
        train("vae", tmp_path / "done")
    capsys.readouterr()
    train("vae", tmp_path / "my run")
    assert "my run: goes on from step 7 of 12, trained on Tesla T4 so far\n" in capsys.readouterr().out
    train("vae", tmp_path / "done")
    assert re.search(r"done: was finished on .* \(Tesla T4\): loaded\n", capsys.readouterr().out)


def test_the_line_about_the_run_is_printed_after_each_plot(tmp_path, capsys, monkeypatch):
    """A plot deletes the output of a notebook's cell, so the line must be printed again."""
    monkeypatch.setattr("matplotlib.pyplot.show", lambda **_: print("a plot"))
    model = new_model("vae")
    loop.fit(model, IMAGES, 4, 4, tmp_path / "run", model.config, evaluations=2)
    assert capsys.readouterr().out.split("a plot")[-1].strip().endswith("run: starts, 4 steps")


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
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=config.PROJECT, stdout=subprocess.PIPE)
    for seen, _ in enumerate(process.stdout, start=1):
        if seen == kill_at:
            time.sleep(0.003)
            process.kill()
            break
    process.stdout.close()
    return process.wait()


@pytest.mark.slow
def test_a_training_that_was_killed_twice_gives_the_same_weights(tmp_path):
    assert run_killed(tmp_path / "a", kill_at=None) == 0
    assert run_killed(tmp_path / "b", kill_at=9) != 0
    assert run_killed(tmp_path / "b", kill_at=17) != 0
    assert run_killed(tmp_path / "b", kill_at=None) == 0
    states = [torch.load(tmp_path / name / "final.pt", weights_only=True) for name in "ab"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, history = train("vae", tmp_path)
    again, same = train("vae", tmp_path, evaluate=lambda model: pytest.fail("a finished run was trained again"))
    assert history == same == json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert torch.equal(first.sample(2), again.sample(2))


def test_an_evaluation_of_nan_or_infinity_is_null_in_the_history_file(tmp_path):
    _, history = train("vae", tmp_path, evaluate=lambda model: {"a": math.nan, "b": -math.inf, "c": 0.5})
    rows = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [(row["a"], row["b"], row["c"]) for row in rows] == [(None, None, 0.5)] * 3
    assert math.isnan(history[0]["a"]) and rows[0]["step"] == 4


def test_a_full_disk_does_not_damage_the_old_history(tmp_path, monkeypatch):
    train("vae", tmp_path)
    before = (tmp_path / "history.json").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train("vae", tmp_path)
    assert (tmp_path / "history.json").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused_with_the_differences(tmp_path):
    train("vae", tmp_path)
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"steps: 12 in the file, 13 wanted\n.*fresh=True"):
        train("vae", tmp_path, steps=13)
    with pytest.raises(checkpoints.CheckpointMismatch, match="discriminator_base: absent in the file"):
        train("dcgan", tmp_path)


def test_the_same_number_of_other_images_is_another_run(tmp_path):
    train("vae", tmp_path)
    images = IMAGES.clone()
    images[7, 0, 3, 3] += 0.1
    with pytest.raises(checkpoints.CheckpointMismatch, match="the images, or other data, differ") as raised:
        train("vae", tmp_path, images=images)
    assert "source" not in str(raised.value)


def edited_vae(folder, *replacements):
    """The class VAE from an edited copy of its file. `replacements` are pairs of old and new text."""
    text = Path(vae.__file__).read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"edited_{abs(hash(replacements))}.py"
    path.write_bytes(text.encode())
    spec = importlib.util.spec_from_file_location("utils.models.vae", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VAE


EDITS_THAT_COUNT = {
    "the step": ("clip=1.0", "clip=2.0"),
    "a loss function": ("return 0.5 * (mean**2", "return 0.4 * (mean**2"),
    "a helper of a helper": ("matrix[0] /= math.sqrt(2)", "matrix[0] /= math.sqrt(3)"),
    "a module": ("clamp(-10, 10)", "clamp(-9, 9)"),
    "a constant": ('ema_modules = ("encoder", "decoder")', 'ema_modules = ("decoder",)'),
}
EDITS_THAT_DO_NOT_COUNT = {
    "a comment": ("return losses\n", "return losses  # of this batch\n"),
    "a docstring": ('    def step(self, images: Tensor, update) -> dict[str, Tensor]:\n        """',),
    "blank lines": ("        losses = self.losses(images)\n", "\n        losses = self.losses(images)\n\n"),
    "the ends of lines": ("\n", "\r\n"),
    "how it is sampled": ("return self.decode(self.prior.sample(count, seed))", "return self.decode(torch.zeros(1))"),
    "a function that trains": ("steps = vae_images // batch_size", "steps = vae_images // batch_size + 1"),
}
EDITS_THAT_DO_NOT_COUNT["a docstring"] += (EDITS_THAT_DO_NOT_COUNT["a docstring"][0] + "New words.\n\n        ",)


@pytest.mark.parametrize("edit", EDITS_THAT_COUNT)
def test_an_edited_source_is_another_run(edit, tmp_path):
    train("vae", tmp_path / "run")
    devices.seed_everything(3)
    model = edited_vae(tmp_path, EDITS_THAT_COUNT[edit])((8, 8), latent_dim=3, base=4)
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"the model's source has changed: models\.vae\.\w+"):
        loop.fit(model, IMAGES, 12, 4, tmp_path / "run", model.config, plot=False, evaluations=3)


@pytest.mark.parametrize("edit", EDITS_THAT_DO_NOT_COUNT)
def test_edits_without_effect_on_the_training_do_not_change_the_identity(edit, tmp_path):
    model = edited_vae(tmp_path, EDITS_THAT_DO_NOT_COUNT[edit])((8, 8), latent_dim=3, base=4)
    assert identity.of_source(model) == identity.of_source(new_model("vae"))


def test_the_source_of_a_model_contains_its_step_and_everything_that_it_uses():
    found = identity.of_source(new_model("dcgan"), loop.learning_rate_scale)
    expected = (
        "models.dcgan.DCGAN.step",
        "models.augmentation.as_jpeg",
        "models.dcgan.CriticBlock.forward",
        "models.vae.cosine_matrix",
    )
    assert set(expected) < found.keys() and "training.loop.DECAY_SHARE" in found
    assert "models.dcgan.DCGAN.export" not in found and "models.vae.VAE.step" not in found


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_the_source_does_not_depend_on_the_order_of_names(name, monkeypatch):
    """A set of names has a different order at each start of Python."""
    order, found_globals = random.Random(0), identity._globals

    def shuffled(function, names):
        return sorted(found_globals(function, names), key=lambda _: order.random())

    monkeypatch.setattr(identity, "_globals", shuffled)
    found = [identity.of_source(new_model(name)) for _ in range(10)]
    assert all(other == found[0] for other in found)
    assert "models.vae.VAE.sample" not in found[0]


def test_the_source_of_a_model_in_a_notebook_is_part_of_the_identity():
    def model_with(text):
        def step(self, images, update):
            return text

        kind = type("Mine", (torch.nn.Module,), {"__module__": "__main__", "step": step, "RATE": text})
        step.__module__, step.__qualname__ = "__main__", "Mine.step"
        return identity.of_source(kind())

    found = model_with("one")
    assert found.keys() == {"__main__.Mine", "__main__.Mine.step"} and found != model_with("two")


def test_the_hash_of_data_depends_on_shape_dtype_and_values(monkeypatch):
    data = torch.arange(24, dtype=torch.float32).view(4, 6)
    known = identity.of_data((data,))
    assert known == "3f6f59b85d509843"  # the same on every machine
    assert known == identity.of_data((data.t().contiguous().t(),))
    others = [data.view(6, 4), data.double(), data + 1e-6, -data, data.bfloat16()]
    assert len({known, *(identity.of_data((other,)) for other in others), identity.of_data((data, data))}) == 7
    monkeypatch.setattr(identity, "WHOLE_BYTES", 10)
    monkeypatch.setattr(identity, "SAMPLED_ROWS", 3)
    changed = [data.clone() for _ in range(4)]
    for row in range(4):
        changed[row][row, 5] += 1
    differs = [identity.of_data((x,)) != identity.of_data((data,)) for x in changed]
    assert differs == [True, True, False, True]  # rows 0, 1 and 3 are read


def test_data_from_a_network_is_identified_by_the_given_hash(tmp_path):
    train("vae", tmp_path, data_hash="made of A")
    train("vae", tmp_path, images=IMAGES + 1e-7, data_hash="made of A")
    with pytest.raises(checkpoints.CheckpointMismatch, match="the images, or other data, differ"):
        train("vae", tmp_path, images=IMAGES, data_hash="made of B")


def test_fresh_starts_again_and_keeps_the_old_runs(tmp_path, capsys):
    folder = tmp_path / "run"
    train("vae", folder, fresh=True)  # there is no old run yet
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    for steps in (13, 14):
        train("vae", folder, steps=steps, fresh=True)
        assert checkpoints.find(folder)[-1].name == f"step_{steps:08d}.ckpt"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.old_1", "run.old_2"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "run.old_1").iterdir()} == old
    assert "run.old_2'" in capsys.readouterr().out


def test_a_prior_is_loaded_even_if_the_last_digits_of_its_latents_differ(tmp_path, monkeypatch, capsys):
    def train_both(**options):
        return vae.train(new_model("vae"), IMAGES, 48, 512, 4, tmp_path, plot=False, **options)

    train_both()
    exact = VAE.posteriors
    monkeypatch.setattr(VAE, "posteriors", lambda self, images: exact(self, images) * (1 + 1e-6))  # another machine
    monkeypatch.setattr(identity, "of_source", lambda *_: {})
    capsys.readouterr()
    with pytest.raises(checkpoints.CheckpointMismatch, match="source has changed"):
        train_both()
    train_both(fresh=True)
    assert {path.name for path in tmp_path.iterdir()} == {"vae", "vae.old_1", "prior", "prior.old_1"}
    monkeypatch.setattr(VAE, "posteriors", exact)
    capsys.readouterr()
    train_both()
    assert capsys.readouterr().out.count("was finished on") == 2


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b = (train("dcgan", tmp_path / name)[0] for name in ("a", "b"))
    assert same_weights(a, b)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"evaluations": 0}, "evaluations is 0, but must be at least 1"),
        ({"images": IMAGES[:0]}, "the same length above 0"),
        ({"images": (IMAGES, IMAGES[:3])}, r"lengths \[20, 3\]"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message, tmp_path):
    arguments = {"images": IMAGES, "steps": 4, "batch_size": 4, "folder": tmp_path / "run", "config": {}} | wrong
    with pytest.raises(ValueError, match=message):
        loop.fit(new_model("vae"), **arguments, plot=False)
    assert not (tmp_path / "run").exists()


def test_a_loss_of_nan_stops_the_run(tmp_path):
    model = new_model("vae")
    with torch.no_grad():
        model.log_std.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinite at step 1. Start again .* fresh=True"):
        loop.fit(model, IMAGES, 4, 4, tmp_path, model.config, plot=False)


def test_an_epoch_contains_every_image_once():
    seen = torch.cat([loop.batch_indices(20, 4, step, seed=1) for step in range(5)])
    assert sorted(seen.tolist()) == list(range(20))
    second = torch.cat([loop.batch_indices(20, 4, step, seed=1) for step in range(5, 10)])
    assert sorted(second.tolist()) == list(range(20)) and not torch.equal(seen, second)
    assert len(loop.batch_indices(2, 8, 0, seed=0)) == 8  # also with two images


def test_learning_rate_schedule():
    scales = [loop.learning_rate_scale(step, 100) for step in (0, 1, 40, 80, 90, 99)]
    assert scales == [0.5, 1, 1, 1, pytest.approx(0.5), pytest.approx(0.05)]
    assert 0 < loop.learning_rate_scale(0, 1) <= 1  # also in the shortest training


def test_evaluation_uses_the_ema_weights(tmp_path):
    model = new_model("vae")
    seen = []

    def look(m):
        assert not m.training and not torch.is_grad_enabled()
        seen.append(next(m.decoder.parameters()).clone())
        return {"n": len(seen)}

    loop.fit(model, IMAGES, 12, 4, tmp_path, model.config, plot=False, evaluations=2, evaluate=look)
    assert len(seen) == 2
    assert torch.equal(next(model.decoder.parameters()), seen[-1])  # at the end, they are the weights of the model


def test_random_numbers_and_seeds_in_an_evaluation_do_not_change_the_training(tmp_path):
    drawn = []

    def draw(model):
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        devices.seed_everything(len(drawn))
        return {}

    without, history = train("dcgan", tmp_path / "a")
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with_draws, other = train("dcgan", tmp_path / "b", evaluate=draw)
    assert same_weights(without, with_draws) and without_time(history) == without_time(other)
    assert len(drawn) == 3 and len(set(drawn)) == 1  # the same random numbers each time
    devices.seed_everything(3)  # as in new_model
    assert (random.getstate(), np.random.get_state()[1].tolist()) != before
    random.seed(5)
    with devices.seeded(1):
        inside = random.random()
    assert random.getstate() == before[0] and inside == random.Random(1).random()


def test_ema_by_hand():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = loop.ema_copy(layer, half_life=1)  # each update has weight one half
    values = []
    for value in (4.0, 8.0, 0.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        average.update_parameters(layer)
        values.append(average.module.weight.item())
    assert values == [4, 6, 3]


def test_gradients_are_averaged_in_one_message(monkeypatch):
    sent = []
    monkeypatch.setattr(devices, "reduce", lambda x, how: (sent.append((x.shape, how)), x / 2)[1])
    kernel = torch.nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    parameters = [kernel, torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(()))]
    gradients = [torch.randn_like(p) for p in parameters]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    devices.average_gradients([*parameters, torch.nn.Parameter(torch.zeros(2))])  # the last one has no gradient
    assert sent == [((96 + 5 + 1,), "mean")]
    assert all(torch.equal(p.grad, gradient / 2) for p, gradient in zip(parameters, gradients))
