"""Two processes train the same model as one process: same batches, losses and weights. Only one of them writes files.

The processes are real and communicate with gloo. They are started as docs/scaling.md describes.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import documented, draw_pictures
from utils import config
from utils.data import image_files
from utils.models.gan import GAN
from utils.training import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]  # the tests share the fixture `alone`

SEEN, BATCH = 96, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    image_files.write_jpegs(draw_pictures(40, 16), folder, "picture", 40)
    return folder


def run(*words: object, **variables: str) -> str:
    """Run a command on the CPU, in float32. Returns its output.

    Raises:
        RuntimeError: the command failed. The message is its standard error.
    """
    told = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}
    environment = os.environ | told | variables
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(command, cwd=config.PROJECT, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


TELLS_ITS_MODEL = """
import os
from pathlib import Path
from utils.models import zoo
from utils.training import checkpoints
from utils import __main__ as command

draw = zoo.draw

def told(model, *rest):
    Path(os.environ["TOLD"], os.environ["RANK"]).write_text(checkpoints.fingerprint(model))
    return draw(model, *rest)

zoo.draw = told
command.main()
"""
LAUNCH = ("--mixed_precision", "no", "--dynamo_backend", "no")
TWO = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, *LAUNCH)


def arguments(family: str, pictures: Path, out: Path) -> list:
    numbers = ["--size", 16, "--images-seen", SEEN, "--batch", BATCH, "--samples", 10]
    return [family, "--images", pictures, *numbers, "--out", out]


def train(pictures: Path, out: Path, processes: int, **variables: str) -> str:
    """Train a PixelCNN without dropout in one or two processes."""
    start = (*TWO, "--num_machines", 1, "--main_process_port", 0) if processes == 2 else ()
    return run(*start, "-m", "tests.without_dropout", "train", *arguments("PixelCNN", pictures, out), **variables)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train_on_two_nodes(pictures: Path, outs: tuple[Path, Path]) -> list[str | RuntimeError]:
    """Train on two "machines" with one process each, both on this machine. Returns the output or the error of each."""
    where = (*TWO, "--num_machines", 2, "--main_process_ip", "127.0.0.1", "--main_process_port", free_port())

    def node(rank: int) -> str | RuntimeError:
        try:
            command = arguments("PixelCNN", pictures, outs[rank])
            return run(*where, "--machine_rank", rank, "-m", "tests.without_dropout", "train", *command)
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(node, range(2)))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read_weights(out / "weights.safetensors")[1]


def close(wanted: list[float]):
    """Equal, except for rounding: sums in float32 have another order, and 12 steps of Adam make this larger."""
    return pytest.approx(wanted, rel=1e-4)


def losses(out: Path) -> list[float]:
    return [row["nats"] for row in json.loads((out / "checkpoints" / "history.json").read_text(encoding="utf-8"))]


def largest_difference(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def alone(pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(pictures, out, 1)
    return out


def test_two_processes_train_the_same_as_one(pictures, alone, tmp_path):
    printed = train(pictures, tmp_path / "run", 2)
    assert printed.count("s of training") == printed.count("starts, ") == 1  # only one process prints
    assert losses(tmp_path / "run") == close(losses(alone))
    assert largest_difference(alone, tmp_path / "run") < 2e-3  # another order of sums, and weights of 16 bits
    with Image.open(tmp_path / "run" / "samples.png") as picture:
        assert picture.size == (10 * 17 - 1, 16)


def test_a_run_with_one_process_continues_with_two(pictures, alone, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    program = f"""
from pathlib import Path
from utils.models import zoo

def stop(model):
    raise SystemExit

from utils import config
settings = config.hyperparameters("final_pixelcnn") | {{"batch_size": {BATCH}, "dropout": 0.0}}
options = {{"evaluations": 2, "checkpoint_seconds": 0}}
images = zoo.load({str(pictures)!r}, 16)
zoo.train("PixelCNN", images, {SEEN}, Path({str(folder)!r}), settings, evaluate=stop, **options)
"""
    run("-c", program)
    assert checkpoints.read(checkpoints.find(folder)[-1]).step == 5  # of 12 steps
    train(pictures, tmp_path / "run", 2)
    assert losses(tmp_path / "run")[1:] == close(losses(alone)[5:])
    assert largest_difference(alone, tmp_path / "run") < 2e-3


def test_two_machines_train_the_same_as_one_process(pictures, alone, tmp_path):
    first, second = train_on_two_nodes(pictures, (tmp_path, tmp_path))
    assert "s of training" in first and second == ""
    assert losses(tmp_path) == close(losses(alone))
    assert largest_difference(alone, tmp_path) < 2e-3


def test_two_machines_must_share_the_folder(pictures, alone, tmp_path):
    shutil.copytree(alone, tmp_path / "begun")
    for answer in train_on_two_nodes(pictures, (tmp_path / "begun", tmp_path / "another")):
        assert "the processes see different images or checkpoints" in str(answer)


def test_notebook_launcher_trains_the_same_as_one_process(pictures, alone, tmp_path):
    cell = documented("notebook_launcher")
    for before, after in (
        ('("VAE", "real_hands", 32, None, 200_000, Path("runs/vae"), 100, 0)',
         f'("PixelCNN", {str(pictures)!r}, 16, None, {SEEN}, Path({str(tmp_path / "run")!r}), 10, 0, {BATCH})'),
        ('num_processes=8, mixed_precision="bf16"', f'num_processes=2, mixed_precision="no", use_port="{free_port()}"'),
    ):  # fmt: skip
        assert before in cell
        cell = cell.replace(before, after)
    cell = f"import tests.without_dropout\n{cell}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, tmp_path / "fresh.ipynb")
    program = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(*(output.get("text", "") for output in notebook.cells[0].outputs))
"""
    assert run("-c", program, tmp_path / "fresh.ipynb").count("s of training") == 1
    assert losses(tmp_path / "run") == close(losses(alone))
    assert largest_difference(alone, tmp_path / "run") < 2e-3


def test_two_processes_sample_from_the_saved_model(pictures, tmp_path):
    """A GAN has two networks with their own optimisers. Each process must end with the same of both."""
    program = tmp_path / "told.py"
    program.write_text(TELLS_ITS_MODEL, encoding="utf-8")
    out = tmp_path / "run"
    launch = (*TWO, "--num_machines", 1, "--main_process_port", 0, program, "train")
    told = tmp_path / "told"
    told.mkdir()
    run(*launch, *arguments("GAN", pictures, out), PYTHONPATH=str(config.PROJECT), TOLD=str(told))
    assert (told / "0").read_text(encoding="utf-8") == (told / "1").read_text(encoding="utf-8")
    history = json.loads((out / "checkpoints" / "history.json").read_text(encoding="utf-8"))
    assert history[-1]["images"] == SEEN
    model = GAN.from_weights(out / "weights.safetensors")
    wanted = np.concatenate([image_files.to_uint8(model.sample(5, seed)) for seed in (0, 1)])
    with Image.open(out / "samples.png") as picture:
        found = np.asarray(picture).astype(int)
    assert np.abs(found - image_files.tile(wanted, 10)).max() <= 3  # the saved weights have 16 bits


def test_the_number_format_can_be_set_with_accelerate(pictures, alone, tmp_path):
    train(pictures, tmp_path / "run", 1, ACCELERATE_MIXED_PRECISION="bf16")
    assert losses(tmp_path / "run") != close(losses(alone))
    assert losses(tmp_path / "run")[0] == pytest.approx(losses(alone)[0], rel=1e-2)


def test_processes_that_are_not_connected_are_refused(pictures, tmp_path):
    with pytest.raises(RuntimeError, match="2 processes were started, but each would train alone"):
        train(pictures, tmp_path / "run", 2, ACCELERATE_USE_CPU="false")
    assert not (tmp_path / "run").exists()
