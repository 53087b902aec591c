"""All models and all notebooks work on a second device, which is simulated in separate processes."""

import os
import subprocess
import sys

import pytest
from torch.utils import backend_registration

from tests.conftest import write_fashion_mnist
from tests.test_notebooks import with_course_images
from utils import config
from utils.handin import export as exporting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="this version of PyTorch has no devices written in Python",
    ),
]
NOTEBOOKS = [("portfolio", f"{name}.ipynb") for name in ("GenAI Models", "Classifier", "Hypertuning")]
NOTEBOOKS += [(task, name) for task in ("mri", "final") for name in config.TASKS[task]]


def test_every_model_works_on_a_second_device():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "tests/device_rehearsal.py"]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("brief", "name"), NOTEBOOKS)
def test_every_notebook_runs_on_a_second_device(brief, name, tmp_path):
    """It runs from its export, where there are no files of the course. The portfolio gets its images."""
    export = exporting.export(config.PROJECT, brief, tmp_path / brief)
    if brief == "portfolio":
        with_course_images(export)
    write_fashion_mnist(tmp_path / "data" / "FashionMNIST" / "raw", 600)
    settings = {"PROFILE": "smoke", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(config.PROJECT)}
    settings |= {"DATA_FOLDER": str(tmp_path / "data"), "RUNS_FOLDER": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "tests.pretend", str(export / name)]
    done = subprocess.run(command, cwd=export, env=os.environ | settings, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]
    assert "profile smoke, pretended" in done.stdout
    if brief == "mri":
        assert "STAND-IN DATA" in done.stdout  # there is no heads.npz
