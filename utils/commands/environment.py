"""`install`, `run`, `test`, `notebooks`: make the environment `.venv` and work in it. They only need Python."""

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

from utils import OLDEST_PYTHON, config
from utils.commands.arguments import add_command
from utils.config import PROFILES, PROJECT, TASKS
from utils.files import path_argument, set_aside

ENVIRONMENT = PROJECT / ".venv"
PIN_FILES = ("requirements.txt", "constraints.txt")
NEEDED = ("torch", "nbclient")  # without these, notebooks cannot be executed
# Measured for torch 2.15 on Linux (x86-64), where the packages include CUDA. Without CUDA, the download is smaller.
DOWNLOAD = "about 3.5 GB on Linux, where PyTorch includes CUDA; about 0.5 GB on a Mac or on Windows"
SYNCHRONISED = (  # beginnings of names of folders that a program copies to a server
    "onedrive", "dropbox", "icloud", "mobile documents", "google drive", "googledrive", "mydrive", "cloudstorage",
    "nextcloud",
)  # fmt: skip


def environment_python(environment: Path) -> Path:
    """The path of an environment's Python program."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def synchronised(folder: Path) -> bool:
    """Is the folder in OneDrive, Dropbox, iCloud or a similar place? The names in its path are checked."""
    return any(part.lower().startswith(SYNCHRONISED) for part in folder.parts)


def advice(folder: Path, error: OSError) -> str:
    """A message that says why the environment cannot be made in this folder, and what to do."""
    if synchronised(folder):
        reason = "the folder is in a synchronised place (OneDrive, Dropbox, iCloud, Google Drive ...)"
    elif error.errno == errno.EROFS or not os.access(folder, os.W_OK):
        reason = "the folder is read-only"
    elif error.errno == errno.ENOSPC:
        return f"the disk is full ({error}). Make room for 10 GB, then start the same command again."
    elif error.errno == errno.ENOENT:  # a program or a file is missing
        return f"no environment can be made in '{folder}': {error}"
    else:
        reason = "the disk may not allow symbolic links (many USB sticks and network drives do not)"
    return (
        f"no environment can be made in '{folder}': {reason} ({error}). "
        "Copy the project to a folder on this computer's own disk, for example to your home folder, and start it there."
    )


def installer(environment: Path) -> list[str]:
    """The command that installs packages into an environment. uv is used if it is found, because it is faster."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # a terminal shows how far the downloads are
    python = str(environment_python(environment))
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", *quiet, "--python", python]
    return [python, "-m", "pip", "install", *quiet, "--disable-pip-version-check"]


def is_usable(environment: Path) -> bool:
    """Can packages be installed into this environment? False if it is not complete, or if its Python is too old."""
    python = environment_python(environment)
    needed = "sys" if shutil.which("uv") else "sys, pip"
    program = f"import {needed}; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    return python.exists() and subprocess.call([str(python), "-c", program], stderr=subprocess.DEVNULL) == 0


def make_environment(environment: Path = ENVIRONMENT) -> None:
    """Create `.venv` and install the pinned packages. If this was done before, do nothing.

    Raises:
        OSError: the environment cannot be made in this folder. The message says what to do.
        SystemExit: a package could not be installed. The installer has printed the reason.
    """
    pins = hashlib.sha256(b"".join((PROJECT / name).read_bytes() for name in PIN_FILES)).hexdigest()
    stamp = environment / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == pins and environment_python(environment).exists():
        return
    if synchronised(environment.parent):
        print(
            f"Note: '{environment.parent}' is in a synchronised place (OneDrive, Dropbox, iCloud, Google Drive ...). "
            "The environment has several GB in tens of thousands of files, and all of them will be synchronised. "
            "It is better to copy the project to a folder that is not synchronised.",
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
    """Run the environment's Python in the project's folder. `variables` are added to the environment variables.

    Raises:
        SystemExit: the program failed. The exit code is the same.
        KeyboardInterrupt: the user pressed Ctrl-C. It is raised after the program has ended, so the program can save
            its work first.
    """
    interrupted = False
    command = [str(environment_python(ENVIRONMENT)), *arguments]
    with subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **variables}) as program:
        while program.poll() is None:
            try:
                program.wait()
            except KeyboardInterrupt:  # the program gets Ctrl-C too
                interrupted = True
    if interrupted and program.returncode != 130:
        raise KeyboardInterrupt
    if program.returncode:
        sys.exit(program.returncode)


def install(options: argparse.Namespace) -> None:
    """The command `install`: only make the environment."""
    make_environment()
    print(f"The environment is complete. Its Python: {environment_python(ENVIRONMENT)}")


def show_shipped_hands() -> None:
    """Write a page with the hands that the shipped GAN made, as something to look at before anything is installed."""
    from utils.notebooks import pages

    title = "300 hands of the shipped GAN"
    said = (
        "These hands were made by the GAN whose weights are in the project, and not by this run. The hands of this run "
        "will be in the same folder. Its training is much shorter, so they will be rougher."
    )
    out = config.run_folder() / "shipped_hands.html"
    body = f"<main><h1>{title}</h1><p>{said}</p>{pages.hands(PROJECT / 'GAN_hands')}</main>"
    out.write_text(pages.page(title, body, links=""), encoding="utf-8")
    print(f"While you wait: {title}, made before this run. Open {out}", flush=True)


def run(options: argparse.Namespace) -> None:
    """The command `run`: fill the data folders, then execute the notebooks of a task."""
    hands = options.task in ("hands", "tuning", "all")
    if options.source and not hands:
        raise ValueError(
            "--from (FROM=) is only for the hands. For the other tasks, put test_set.npy and heads.npz into "
            "brain_mri/, and the files of Fashion-MNIST into fashion_mnist/data/FashionMNIST/raw/"
        )
    os.environ["PROFILE"] = options.profile
    if hands:
        show_shipped_hands()
    make_environment()
    if hands:  # the notebooks of the other tasks find their data themselves
        call("-m", "utils", "data", *(["--from", str(options.source)] if options.source else []))
    fresh = ["--fresh"] if options.fresh else []
    call("-m", "utils", "notebooks", "--task", options.task, "--profile", options.profile, *fresh)


def test(options: argparse.Namespace) -> None:
    """The command `test`: check the style and run the quick tests, or run the slow ones."""
    make_environment()
    if not options.slow:
        call("-m", "ruff", "check", ".")
    tests = "slow tests (they take long)" if options.slow else "quick tests (8 to 13 minutes on two cores)"
    print(f"Running the {tests}. The last line says how many passed, and how long they took.", flush=True)
    chosen = "slow" if options.slow else "not slow"
    call("-m", "pytest", "-q", "-m", chosen, OMP_NUM_THREADS="1")  # one process for each core, with one thread each


def notebooks(options: argparse.Namespace) -> None:
    """The command `notebooks`: execute notebooks. If this Python lacks the packages, the environment is used."""
    profile = options.profile or os.environ.get("PROFILE") or "full"
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        make_environment()
        names = [str(path) for path in options.files]
        fresh = ["--fresh"] if options.fresh else []
        call("-m", "utils", "notebooks", *names, "--task", options.task, "--profile", profile, *fresh)
        return
    os.environ["PROFILE"] = profile
    from utils.notebooks import execute

    if options.fresh:
        set_aside(config.run_folder())
    execute.execute_all(options.files or [PROJECT / name for name in TASKS[options.task]])


def register(commands: argparse._SubParsersAction) -> None:
    """Add the four commands to the command line."""
    add_command(commands, "install", install, "create the environment .venv with the pinned packages", "")
    running = add_command(
        commands, "run", run,
        "get the data and execute the notebooks of a task; the results are in runs/PROFILE, or in place with full",
        "--task mri",
    )  # fmt: skip
    running.add_argument(
        "--task", default="hands", choices=TASKS, help="default: hands, which are the two clean notebooks"
    )
    running.add_argument(
        "--profile", default="quick", choices=PROFILES,
        help="how long to train. On two cores: smoke takes about a minute for each notebook, quick a few minutes, "
        "full hours; default: quick",
    )  # fmt: skip
    running.add_argument(
        "--from", dest="source", type=path_argument, metavar="PATH", help="a folder or an archive with images of hands"
    )
    running.add_argument(
        "--fresh",
        action="store_true",
        help="start every training anew; the old folder runs/PROFILE is kept under another name",
    )
    testing = add_command(
        commands, "test", test, "check the style and run the tests, which takes some minutes on two cores", "--slow"
    )
    testing.add_argument(
        "--slow", action="store_true", help="run only the tests that take long, which the others leave out"
    )
    executing = add_command(
        commands, "notebooks", notebooks,
        "execute notebooks; without arguments all of them, with the profile full, which takes hours and replaces the "
        "committed results",
        "--task final --profile quick",
    )  # fmt: skip
    executing.add_argument(
        "files", nargs="*", type=path_argument, metavar="FILE", help="default: all notebooks of the task"
    )
    executing.add_argument("--task", default="all", choices=TASKS, help="default: all")
    executing.add_argument("--profile", choices=PROFILES, help="default: the environment variable PROFILE, or full")
    executing.add_argument(
        "--fresh",
        action="store_true",
        help="start every training anew; the old folder runs/PROFILE is kept under another name",
    )
