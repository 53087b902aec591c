"""`run`, `test` and `notebooks`: make the environment `.venv`, then work in it. Needs nothing but Python itself."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import venv

from utils.config import PROFILES, PROJECT, TASKS
from utils.files import path_argument

OLDEST_PYTHON = (3, 11)
ENVIRONMENT = PROJECT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NEEDED = ("torch", "nbclient")  # without these, notebooks cannot be executed


def make_environment() -> None:
    """Create `.venv` with the pinned packages; does nothing when it is up to date.

    Raises:
        SystemExit: Python is too old, or a package could not be installed.
    """
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed; this is {sys.version.split()[0]}.")
    wanted = hashlib.sha256()
    for name in ("requirements.txt", "constraints.txt"):
        wanted.update((PROJECT / name).read_bytes())
    stamp = ENVIRONMENT / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted.hexdigest() and PYTHON.exists():
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
    stamp.write_text(wanted.hexdigest(), encoding="utf-8")


def call(*arguments: str, **environment: str) -> None:
    """Run the environment's Python in the project folder; leave with its exit code if it fails."""
    code = subprocess.call([str(PYTHON), *arguments], cwd=PROJECT, env=os.environ | environment)
    if code:
        sys.exit(code)


def run(options: argparse.Namespace) -> None:
    """The command `run`: fill the data folders, then execute the notebooks of a task."""
    hands = options.task in ("hands", "tuning", "all")
    if options.source and not hands:
        raise ValueError(
            "--from (FROM=) is for the hands; test_set.npy and heads.npz go into brain_mri/, Fashion-MNIST's files "
            "into fashion_mnist/data/FashionMNIST/raw/"
        )
    make_environment()
    if hands:  # the notebooks of the other tasks get their data themselves
        call("-m", "utils", "data", *(["--from", str(options.source)] if options.source else []))
    call("-m", "utils", "notebooks", "--task", options.task, "--profile", options.profile)


def test(options: argparse.Namespace) -> None:
    """The command `test`: style, then tests; with `--all`, also those that take long."""
    make_environment()
    call("-m", "ruff", "check", ".")
    chosen = ["-m", "slow"] if options.slow else [] if options.all else ["-m", "not slow"]
    call("-m", "pytest", "-q", *chosen, OMP_NUM_THREADS="1")  # a process a core, of one thread each


def notebooks(options: argparse.Namespace) -> None:
    """The command `notebooks`: execute notebooks, by default the committed ones in place, in the profile full."""
    profile = options.profile or os.environ.get("PROFILE") or "full"
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        make_environment()
        names = [str(path) for path in options.files]
        call("-m", "utils", "notebooks", *names, "--task", options.task, "--profile", profile)
        return
    os.environ["PROFILE"] = profile
    from utils.notebooks import execute

    execute.execute_all(options.files or [PROJECT / name for name in TASKS[options.task]])


def register(commands: argparse._SubParsersAction) -> None:
    """Add the three commands to the command line."""
    running = commands.add_parser("run", help="get the data and execute the notebooks of a task, under runs/")
    running.add_argument("--task", default="hands", choices=TASKS, help="default: hands, the two clean notebooks")
    running.add_argument("--profile", default="quick", choices=PROFILES, help="how much is trained; default: quick")
    running.add_argument(
        "--from", dest="source", type=path_argument, help="folder or archive with the course's images of hands"
    )
    running.set_defaults(action=run)
    testing = commands.add_parser("test", help="check the style and run the tests")
    testing.add_argument("--all", action="store_true", help="also the tests that take minutes each")
    testing.add_argument("--slow", action="store_true", help="only those")
    testing.set_defaults(action=test)
    executing = commands.add_parser("notebooks", help="execute notebooks; by default in place, in the profile full")
    executing.add_argument("files", nargs="*", type=path_argument, metavar="FILE", help="default: those of the task")
    executing.add_argument("--task", default="all", choices=TASKS, help="default: all")
    executing.add_argument("--profile", choices=PROFILES, help="default: the variable PROFILE, else full")
    executing.set_defaults(action=notebooks)
