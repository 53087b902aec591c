"""`python -m utils run` and `python -m utils test`: make the environment, then do it.

Needs nothing but Python 3.10 or newer; `make run` and `make test` call it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TASKS = {
    "hands": [
        "username_DLcw1_hypertune.ipynb",
        "username_DLcw1_clean.ipynb",
        "username_DLcw2_hypertune.ipynb",
        "username_DLcw2_clean.ipynb",
    ],
    "mri": ["brain_mri/Assessment.ipynb"],
    "final": ["fashion_mnist/hypertune.ipynb", "fashion_mnist/generative_models.ipynb"],
}


def make_environment() -> None:
    """Create `.venv` with the pinned packages; does nothing when it is up to date.

    Raises:
        SystemExit: Python is too old, or a package could not be installed.
    """
    if sys.version_info < (3, 10):
        sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")
    wanted = hashlib.sha256()
    for name in ("requirements.txt", "constraints.txt"):
        wanted.update((PROJECT / name).read_bytes())
    stamp = ENVIRONMENT / "installed.sha256"
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest() and PYTHON.exists():
        return
    print(
        f"Making the environment in {ENVIRONMENT.name} (once; about 5 GB with torch, a minute or more) ...", flush=True
    )
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True, symlinks=os.name != "nt")
    except subprocess.CalledProcessError:
        sys.exit("Python's venv module is incomplete here; on Debian and Ubuntu: sudo apt install python3-venv")
    install = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.call([*install, "-r", "requirements.txt", "-c", "constraints.txt"], cwd=PROJECT):
        sys.exit("The packages could not be installed: see pip's message above. Run the same command to try again.")
    stamp.write_text(wanted.hexdigest())


def call(*arguments: str, **environment: str) -> None:
    """Run the environment's Python in the project folder; leave with its exit code if it fails."""
    code = subprocess.call([str(PYTHON), *arguments], cwd=PROJECT, env=os.environ | environment)
    if code:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument(
        "command", choices=["run", "test", "notebooks"], help="notebooks: execute in place, profile full"
    )
    parser.add_argument("--task", default="hands", choices=[*TASKS, "all"])
    parser.add_argument("--profile", choices=["smoke", "quick", "full"], help="default: quick, or full for 'notebooks'")
    parser.add_argument("--from", dest="source", help="folder or archive with the course's images")
    options = parser.parse_args()

    hands = options.task in ("hands", "all")
    if options.source and not hands:
        parser.error(
            "--from (FROM=) is for the hands; test_set.npy and heads.npz go into brain_mri/, Fashion-MNIST's files "
            "into fashion_mnist/data/FashionMNIST/raw/"
        )
    make_environment()
    if options.command == "test":
        call("-m", "ruff", "check", ".")
        call("-m", "pytest", "-q", OMP_NUM_THREADS="1")  # a process a core, of one thread each
        return
    if hands:  # the notebooks of the other tasks get their data themselves
        call("-m", "utils.course_data", *(["--from", options.source] if options.source else []))
    profile = options.profile or ("full" if options.command == "notebooks" else "quick")
    notebooks = TASKS[options.task] if options.task != "all" else sum(TASKS.values(), [])
    call("-m", "utils.notebooks", *notebooks, PROFILE=profile)


if __name__ == "__main__":
    main()
