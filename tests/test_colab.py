"""A single notebook that is opened in Colab: its first cell gets the project, and an interrupted run goes on.

The test has no Colab. It uses a stand-in for the module `google.colab`, and its own folders instead of /content. The
notebook runs in the environment that the variable COLAB_ENVIRONMENT names. tests/colab_environment.py makes such an
environment, with Colab's versions of IPython (7.34.0), NumPy (2.0.2), pandas (2.2.2) and others, as of June 2026. It
lacks some packages, as Colab does, and the first cell installs them, which needs a network. Without the variable, the
notebook runs in the environment of this test, and nothing is installed.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from packaging.requirements import Requirement

from tests.colab_environment import MISSING, PINNED
from utils import config
from utils.data import image_files
from utils.models import shipped
from utils.notebooks import colab

NOTEBOOK = "username_DLcw1_clean.ipynb"
ENVIRONMENT = os.environ.get("COLAB_ENVIRONMENT")
PYTHON = str(Path(ENVIRONMENT, "bin", "python")) if ENVIRONMENT else sys.executable
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
PLACEHOLDER = "https://github.com/OWNER/REPOSITORY"
VERSIONS = "import json; from utils.notebooks import colab; print(json.dumps(colab.installed()))"


def first_cell(name: str) -> str:
    """The source of a notebook's first code cell."""
    cells = nbformat.read(config.PROJECT / name, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def test_all_notebooks_have_the_same_short_first_cell_that_asks_nothing():
    cells = {first_cell(name) for names in config.TASKS.values() for name in names}
    assert len(cells) == 1
    (cell,) = cells
    assert len(cell.splitlines()) <= 22 and f'ADDRESS = "{PLACEHOLDER}"' in cell
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)}
    assert "colab.setup" in called and "input" not in called


def run_cell(cell: str, content: Path, before: str = STARTED) -> subprocess.CompletedProcess:
    """Run a first cell in a stand-in Colab whose /content is the folder `content`."""
    stand_in = content.parent / "stand-in"
    (stand_in / "google" / "colab").mkdir(parents=True, exist_ok=True)
    (stand_in / "google" / "colab" / "__init__.py").touch()
    program = before + cell.replace("/content", str(content))
    environment = os.environ | {"PYTHONPATH": str(stand_in)}
    return subprocess.run([sys.executable, "-c", program], cwd=content, env=environment, text=True, capture_output=True)


@pytest.mark.skipif(os.name == "nt", reason="Colab is a Linux machine")
def test_without_an_address_or_with_a_wrong_one_the_first_cell_stops_with_a_sentence(tmp_path):
    content = tmp_path / "content"
    content.mkdir()
    done = run_cell(first_cell(NOTEBOOK), content)
    assert done.returncode == 1 and done.stderr.startswith("Write the address of your copy")
    done = run_cell(first_cell(NOTEBOOK).replace(PLACEHOLDER, str(tmp_path / "nothing")), content)
    assert done.returncode == 1 and "nothing could not be downloaded. Is the address right" in done.stderr
    assert list(content.iterdir()) == []


def test_elsewhere_the_first_cell_only_finds_the_projects_folder(tmp_path):
    (tmp_path / "fashion_mnist").mkdir()
    (tmp_path / "utils").symlink_to(config.PROJECT / "utils")
    told = "\nprint(os.getcwd(), sorted(name for name in ('RUNS_FOLDER', 'PROFILE') if name in os.environ))"
    environment = {name: value for name, value in os.environ.items() if name not in ("RUNS_FOLDER", "PROFILE")}
    for start in (tmp_path, tmp_path / "fashion_mnist"):
        command = [sys.executable, "-c", first_cell("fashion_mnist/hypertune.ipynb") + told]
        done = subprocess.run(command, cwd=start, env=environment, text=True, capture_output=True)
        assert done.stdout == f"{tmp_path} []\n", done.stderr


def test_every_package_that_may_be_installed_is_a_requirement():
    lines = (config.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {Requirement(line.partition("#")[0]).name for line in lines if line.partition("#")[0].strip()}
    assert set(colab.NEEDED.values()) <= required


@pytest.fixture
def opened(tmp_path):
    """An empty content folder, and environment variables with a module google.colab.

    The folder "remote" is a repository with a copy of the project. Drive holds an archive with sampled hands.
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
        if name.startswith(("utils/", "weights/")) and (config.PROJECT / name).is_file():
            (remote / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config.PROJECT / name, remote / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=remote, check=True)
    drive = content / "drive" / "MyDrive" / "hands_runs"
    drive.mkdir(parents=True)
    image_files.write_jpegs(shipped.hands(1500), tmp_path / "real_hands", "hand", 1500)
    for path in (tmp_path / "real_hands").iterdir():  # as the course names them
        path.rename(path.with_name(f"{int(path.stem[5:]):06d}.jpeg"))
    with tarfile.open(drive / "hands_cw1.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "real_hands", "real_hands")
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "stand-in"), "PROFILE": "smoke", "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "JUPYTER_PLATFORM_DIRS": "1",
    }  # fmt: skip
    environment.pop("RUNS_FOLDER", None)
    return content, environment


def open_notebook(content: Path) -> Path:
    """Copy the notebook alone to the content folder, as Colab opens it. Drive and /content are in the test's folder."""
    notebook = nbformat.read(config.PROJECT / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("/content", str(content)).replace(PLACEHOLDER, str(content.parent / "remote"))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STARTED))
    path = content / "opened.ipynb"
    nbformat.write(notebook, path)
    return path


def start(path: Path, content: Path, environment: dict) -> subprocess.Popen:
    """Execute a notebook in the content folder."""
    command = [PYTHON, "-c", EXECUTE, str(path), str(content)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def versions() -> dict[str, str]:
    """The installed packages of the environment in which the notebook runs."""
    done = subprocess.run([PYTHON, "-c", VERSIONS], cwd=config.PROJECT, capture_output=True, text=True, check=True)
    return {name.lower().replace("_", "-"): version for name, version in json.loads(done.stdout).items()}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Colab is a Linux machine")
def test_a_notebook_gets_the_project_and_goes_on_after_a_kill(opened):
    content, environment = opened
    runs = content / "drive" / "MyDrive" / "hands_runs" / "smoke"
    if ENVIRONMENT:  # an earlier run of this test has installed these
        subprocess.run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", *MISSING], env=environment, check=True)
    before = versions()
    begun = start(open_notebook(content), content, environment)
    while not list(runs.glob("cw1_clean/**/history.json")) and begun.poll() is None:
        time.sleep(0.1)
    assert begun.poll() is None, begun.stderr.read()[-3000:]
    for process in psutil.Process(begun.pid).children(recursive=True):  # its kernel
        process.kill()
    begun.kill()
    begun.wait()
    kept = {path: path.stat().st_mtime_ns for path in runs.rglob("step_*.ckpt")}
    assert kept
    shutil.rmtree(content / "project")  # Colab's own disk is lost, but Drive is not

    path = open_notebook(content)
    again = start(path, content, environment)
    _, said = again.communicate(timeout=900)
    assert again.returncode == 0, said[-3000:]
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert len(list((runs / "GAN_hands").glob("username_*.jpeg"))) == 300
    outputs = str(nbformat.read(path, as_version=4).cells)
    assert "profile smoke" in outputs and "1500 of the course's 8000 images" in outputs
    assert re.search(r"goes on from step|was finished on", outputs)
    after = versions()
    assert {name: after.get(name) for name in before} == before  # nothing was replaced
    if ENVIRONMENT:
        assert {name: after[name] for name in PINNED} == PINNED and set(after) - set(before) == set(MISSING)
