"""A single notebook that is opened in Colab: its first cell gets the project, and an interrupted run continues.

The test has no Colab. It uses a fake module `google.colab`, and its own folders instead of /content.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tests.conftest import write_fashion_mnist
from utils import config

NOTEBOOK = "fashion_mnist/hypertune.ipynb"
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
where = {"metadata": {"path": sys.argv[2]}}
try:
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""
DRIVE = """
from pathlib import Path

def mount(path):
    (Path(path) / "MyDrive").mkdir(parents=True, exist_ok=True)
"""
STARTED = "import google.colab\n"  # Colab imports it before the first cell runs


@pytest.fixture
def colab(tmp_path):
    """An empty content folder, and environment variables with a module google.colab and the address of a repository.

    The repository is a copy of the project in another folder.
    """
    content = tmp_path / "content"
    content.mkdir()
    module = tmp_path / "stand-in" / "google" / "colab"
    module.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    (module / "__init__.py").touch()
    (module / "drive.py").write_text(DRIVE, encoding="utf-8")

    remote = tmp_path / "remote"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=config.PROJECT, capture_output=True, text=True
    )
    if files.returncode:
        pytest.skip("this copy of the project is not a git repository")
    for name in files.stdout.splitlines():
        if name.startswith(("utils/", "fashion_mnist/")) and (config.PROJECT / name).is_file():
            (remote / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config.PROJECT / name, remote / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=remote, check=True)
    write_fashion_mnist(tmp_path / "data" / "FashionMNIST" / "raw", 400)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "stand-in"), "PROJECT_URL": str(remote), "PROFILE": "smoke",
        "DATA_FOLDER": str(tmp_path / "data"), "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    environment.pop("RUNS_FOLDER", None)
    return content, environment


def open_notebook(content: Path) -> Path:
    """Copy the notebook alone to the content folder, as Colab opens it. Drive and /content are in the test's folder."""
    notebook = nbformat.read(config.PROJECT / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("/content", str(content))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STARTED))
    path = content / "opened.ipynb"
    nbformat.write(notebook, path)
    return path


def start(path: Path, content: Path, environment: dict) -> subprocess.Popen:
    """Execute a notebook in the content folder, in a new process group, so that its kernel can be killed too."""
    command = [sys.executable, "-c", EXECUTE, str(path), str(content)]
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Colab is a Linux machine")
def test_a_notebook_gets_the_project_and_continues_after_a_kill(colab):
    content, environment = colab
    drive = content / "drive" / "MyDrive" / "hands_runs" / "smoke"
    begun = start(open_notebook(content), content, environment)
    first = drive / "final_Fashion-MNIST" / "search" / "VAE_other_seed" / "prior" / "history.json"
    while not first.is_file() and begun.poll() is None:
        time.sleep(0.2)
    assert begun.poll() is None, begun.stderr.read()
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    kept = {path: path.stat().st_mtime_ns for path in drive.rglob("step_*.ckpt") if "VAE_" in str(path)}
    shutil.rmtree(content / "project")  # Colab's own disk is lost, but Drive is not

    path = open_notebook(content)
    again = start(path, content, environment)
    _, said = again.communicate(timeout=600)
    assert again.returncode == 0, said[-3000:]
    assert len(kept) >= 4 and all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert (drive / "hyperparameters.json").is_file()
    outputs = str(nbformat.read(path, as_version=4).cells)
    assert "profile smoke" in outputs and not re.search(r"Successfully installed[^\n]* torch-", outputs)
