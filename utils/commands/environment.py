"""`run`, `test` and `notebooks`: make the environment `.venv`, then work in it. They need nothing but Python itself."""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from utils import OLDEST_PYTHON
from utils.commands.arguments import add_command
from utils.config import PROFILES, PROJECT, TASKS
from utils.files import path_argument

ENVIRONMENT = PROJECT / ".venv"
PIN_FILES = ("requirements.txt", "constraints.txt")
NEEDED = ("torch", "nbclient")  # without these, notebooks cannot be executed
# Measured for torch 2.15 (wheels for Linux on x86-64, with CUDA); without CUDA, as on a Mac or on Windows, it is less.
DOWNLOAD = "about 3.5 GB on Linux, where PyTorch brings CUDA along; about 0.5 GB on a Mac or on Windows"
SYNCHRONISED = (  # how the names of folders begin that a program copies to a server
    "onedrive", "dropbox", "icloud", "mobile documents", "google drive", "googledrive", "mydrive", "cloudstorage",
    "nextcloud",
)  # fmt: skip


def environment_python(environment: Path) -> Path:
    """The Python program of an environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def synchronised(folder: Path) -> bool:
    """Does the folder lie in OneDrive, Dropbox, iCloud or the like, by the names in its path?"""
    return any(part.lower().startswith(SYNCHRONISED) for part in folder.parts)


def advice(folder: Path, error: OSError) -> str:
    """Why no environment can be made in this folder, and what to do."""
    if synchronised(folder):
        reason = "the folder is in a synchronised place (OneDrive, Dropbox, iCloud, Google Drive ...)"
    elif error.errno == errno.EROFS or not os.access(folder, os.W_OK):
        reason = "the folder is read-only"
    elif error.errno == errno.ENOSPC:
        return f"the disk is full ({error}). Make room for 8 GB, then start the same command again."
    else:
        reason = "the disk may not allow symbolic links, as USB sticks and network drives often do not"
    return (
        f"no environment can be made in '{folder}': {reason} ({error}). "
        "Copy the project to a folder on this computer's own disk, for example in your home folder, and start it there."
    )


def installer(environment: Path) -> list[str]:
    """The command that installs packages into an environment: uv's where it is found, which is faster, else pip's."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # a terminal shows how far the downloads are
    python = str(environment_python(environment))
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", *quiet, "--python", python]
    return [python, "-m", "pip", "install", *quiet, "--disable-pip-version-check"]


def is_usable(environment: Path) -> bool:
    """Can packages be installed into this environment? Not if making it was interrupted, or its Python is too old."""
    python = environment_python(environment)
    needed = "sys" if shutil.which("uv") else "sys, pip"
    program = f"import {needed}; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    return python.exists() and subprocess.call([str(python), "-c", program], stderr=subprocess.DEVNULL) == 0


def make_environment(environment: Path = ENVIRONMENT) -> None:
    """Create `.venv` and install the pinned packages; does nothing if this was done before.

    Raises:
        OSError: no environment can be made in this folder; says what to do.
        SystemExit: a package could not be installed; the installer has said why.
    """
    pins = hashlib.sha256(b"".join((PROJECT / name).read_bytes() for name in PIN_FILES)).hexdigest()
    stamp = environment / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == pins and environment_python(environment).exists():
        return
    if synchronised(environment.parent):
        print(
            f"Note: '{environment.parent}' is in a synchronised place (OneDrive, Dropbox, iCloud, Google Drive ...). "
            "The environment has several GB in tens of thousands of files, and all of them would be synchronised. "
            "Better copy the project to a folder that is not synchronised.",
            flush=True,
        )
    try:
        if not is_usable(environment):
            print(f"Making the environment {environment.name} (once). It downloads {DOWNLOAD}.", flush=True)
            venv.create(environment, with_pip=not shutil.which("uv"), clear=True, symlinks=os.name != "nt")
        print(f"Installing the packages into {environment.name} ...", flush=True)
        code = subprocess.call([*installer(environment), "-r", PIN_FILES[0], "-c", PIN_FILES[1]], cwd=PROJECT)
        if code:
            sys.exit("error: the packages could not be installed; see the message above. Then start the command again.")
        stamp.write_text(pins, encoding="utf-8")
    except subprocess.CalledProcessError as error:
        sys.exit(
            "error: Python's module venv is not complete here. On Debian and Ubuntu, install it with: "
            f"sudo apt install python3-venv ({error})"
        )
    except OSError as error:
        raise OSError(advice(environment.parent, error)) from error


def call(*arguments: str, **variables: str) -> None:
    """Run the environment's Python in the project's folder, with these environment variables added.

    Raises:
        SystemExit: it failed; with its exit code.
        KeyboardInterrupt: somebody pressed Ctrl-C; only after the program has ended, so that it can save its work.
    """
    interrupted = False
    command = [str(environment_python(ENVIRONMENT)), *arguments]
    with subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **variables}) as program:
        while program.poll() is None:
            try:
                program.wait()
            except KeyboardInterrupt:  # the program gets it too
                interrupted = True
    if interrupted and program.returncode != 130:
        raise KeyboardInterrupt
    if program.returncode:
        sys.exit(program.returncode)


def run(options: argparse.Namespace) -> None:
    """The command `run`: fill the data folders, then execute the notebooks of a task."""
    hands = options.task in ("hands", "tuning", "all")
    if options.source and not hands:
        raise ValueError(
            "--from (FROM=) is only for the hands. Put test_set.npy and heads.npz into brain_mri/, and the files of "
            "Fashion-MNIST into fashion_mnist/data/FashionMNIST/raw/"
        )
    make_environment()
    if hands:  # the notebooks of the other tasks find their data themselves
        call("-m", "utils", "data", *(["--from", str(options.source)] if options.source else []))
    call("-m", "utils", "notebooks", "--task", options.task, "--profile", options.profile)


def test(options: argparse.Namespace) -> None:
    """The command `test`: check the style and run the quick tests, or run the slow ones."""
    make_environment()
    if not options.slow:
        call("-m", "ruff", "check", ".")
    chosen = "slow" if options.slow else "not slow"
    takes = "they take long" if options.slow else "up to 6 minutes on two cores"
    print(f"Running the tests that are {chosen} ({takes}). The last line says how many and how long.", flush=True)
    call("-m", "pytest", "-q", "-m", chosen, OMP_NUM_THREADS="1")  # one process for each core, with one thread each


def notebooks(options: argparse.Namespace) -> None:
    """The command `notebooks`: execute notebooks, in the environment if this Python lacks the packages."""
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
    running = add_command(
        commands, "run", run, "get the data and execute the notebooks of a task; results are in runs/PROFILE",
        "--task mri",
    )  # fmt: skip
    running.add_argument("--task", default="hands", choices=TASKS, help="default: hands, the two clean notebooks")
    running.add_argument("--profile", default="quick", choices=PROFILES, help="how long to train; default: quick")
    running.add_argument(
        "--from", dest="source", type=path_argument, metavar="PATH", help="a folder or an archive with images of hands"
    )
    testing = add_command(commands, "test", test, "check the style and run the tests that take seconds", "--slow")
    testing.add_argument("--slow", action="store_true", help="run only the tests that take long, instead")
    executing = add_command(
        commands, "notebooks", notebooks, "execute notebooks; by default all, in place, in the profile full",
        "--task final --profile quick",
    )  # fmt: skip
    executing.add_argument("files", nargs="*", type=path_argument, metavar="FILE", help="default: those of the task")
    executing.add_argument("--task", default="all", choices=TASKS, help="default: all")
    executing.add_argument("--profile", choices=PROFILES, help="default: the environment variable PROFILE, else full")
