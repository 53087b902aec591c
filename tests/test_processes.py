"""Several processes train the model that one trains: the same batches, losses and weights, one writer, any number of
them after an interruption. Two real processes over gloo, started as the documentation says."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import draw_pictures
from utils import checkpoints, folders, runs

pytestmark = pytest.mark.xdist_group("processes")  # one process: they share what was expensive to make

SEEN = 96


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folders.write_jpegs(draw_pictures(40, 16), folder, "picture", 40)
    return folder


def run(*words: object, **variables: str) -> str:
    """A command on the CPU, in float32; returns what it has printed.

    Raises:
        RuntimeError: with what it has complained of.
    """
    told = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}
    environment = os.environ | told | variables
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(command, cwd=runs.PROJECT, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def train(pictures: Path, out: Path, processes: int, **variables: str) -> str:
    """`python -m utils.train PixelCNN` in so many processes."""
    command = ["PixelCNN", "--images", pictures, "--size", 16, "--seen", SEEN, "--out", out, "--samples", 10]
    start = ["-m"]
    if processes > 1:
        launch = ["--multi_gpu", "--num_processes", processes, "--num_machines", 1, "--main_process_port", 0]
        start += ["accelerate.commands.launch", *launch, "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
    return run(*start, "utils.train", *command, **variables)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read_weights(out / "weights.safetensors")[1]


def close(wanted: list[float]):
    """As near as sums in another order come, in float32."""
    return pytest.approx(wanted, rel=1e-5)


def losses(out: Path) -> list[float]:
    return [row["nats"] for row in json.loads((out / "checkpoints" / "history.json").read_text())]


def largest_difference(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(pictures, out, 1)
    return out


def test_two_processes_train_what_one_does(pictures, alone, tmp_path):
    printed = train(pictures, tmp_path / "run", 2)
    assert printed.count("s of training") == 1  # one of them writes and speaks
    assert losses(tmp_path / "run") == close(losses(alone))
    assert largest_difference(alone, tmp_path / "run") < 2e-3  # sums in another order, stored in 16 bits
    with Image.open(tmp_path / "run" / "samples.png") as picture:
        assert picture.size == (10 * 17 - 1, 16)


def test_a_run_of_one_process_goes_on_in_two(pictures, alone, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    program = f"""
from pathlib import Path
from utils import families, runs
from utils.train import load

def stop(model):
    raise SystemExit

settings, options = runs.hyperparameters("final_pixelcnn"), {{"evaluations": 2, "checkpoint_seconds": 0}}
images = load({str(pictures)!r}, 16)
families.train("PixelCNN", images, {SEEN}, Path({str(folder)!r}), settings, evaluate=stop, **options)
"""
    run("-c", program)
    assert checkpoints.read(sorted(folder.glob("step_*.ckpt"))[-1])[0] == 5  # of 12
    train(pictures, tmp_path / "run", 2)
    assert losses(tmp_path / "run")[1:] == close(losses(alone)[5:])
    assert largest_difference(alone, tmp_path / "run") < 2e-3


def test_a_notebooks_launcher_does_the_same(pictures, alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"""
from pathlib import Path
from accelerate import notebook_launcher
from utils.train import train

arguments = ("PixelCNN", {str(pictures)!r}, 16, None, {SEEN}, Path({str(tmp_path)!r}), 10, 0)
notebook_launcher(train, arguments, num_processes=2, use_port="{port}")
"""
    assert run("-c", program).count("s of training") == 1
    assert losses(tmp_path) == close(losses(alone))
    assert largest_difference(alone, tmp_path) < 2e-3


def test_accelerate_chooses_the_number_format(pictures, alone, tmp_path):
    train(pictures, tmp_path / "run", 1, ACCELERATE_MIXED_PRECISION="bf16")
    assert losses(tmp_path / "run") != close(losses(alone))
    assert losses(tmp_path / "run")[0] == pytest.approx(losses(alone)[0], rel=1e-2)


def test_processes_that_do_not_know_of_each_other_do_not_begin(pictures, tmp_path):
    with pytest.raises(RuntimeError, match="2 processes were started, but each would train alone"):
        train(pictures, tmp_path / "run", 2, ACCELERATE_USE_CPU="false")
    assert not (tmp_path / "run").exists()
