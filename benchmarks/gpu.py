"""Everything that needs a GPU, in one command and in a given time.

    make gpu MINUTES=8 TRAIN=hands,classifier,heads,final OUT=runs/gpu

First come the tests of CUDA, then the notebooks of TRAIN in this order, then the tables of the speed. The trainings go
to `runs/full/`, and go on from what is there. At the end they are packed into OUT. See docs/gpu.md.

The notebooks themselves are executed, because they hold the settings, the seeds and the evaluations of the trainings.
So nothing is written twice, and the same notebook elsewhere recognises each training as its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import psutil

from utils import config, files
from utils.commands.arguments import positive_number

NOTEBOOKS = {
    "hands": config.HANDS[0], "classifier": config.HANDS[1], "heads": config.MRI[0], "final": config.FINAL[1],
    "hands-tuning": config.TUNING[0], "classifier-tuning": config.TUNING[1], "final-tuning": config.FINAL[0],
}  # fmt: skip
REQUIREMENTS = config.PROJECT / "requirements.txt"
FOR_ALL = ("accelerate", "livelossplot", "numpy", "pillow", "safetensors", "scikit-learn", "torch", "tqdm")
FOR_NOTEBOOKS = ("ipykernel", "matplotlib", "nbclient", "optuna", "pandas", "torchmetrics")
TESTS_SHARE, SPEED_SHARE = 0.2, 0.25  # of the time: at most for the tests; kept for the tables of the speed
PACKING_SECONDS = 15
GRACE = 10  # seconds that a part has for saving its work after its time


def missing_packages() -> list[str]:
    """The packages of requirements.txt, and nbclient, that are not installed here."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    names = [line.partition(">")[0].partition("[")[0] for line in lines if line] + ["nbclient"]

    def is_missing(name: str) -> bool:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return True
        return False

    return [name for name in names if is_missing(name)]


def call(command: Sequence[str | Path], seconds: float) -> str:
    """Run a program for at most so many seconds. Returns "done", "stopped" (its time was over) or "FAILED".

    It is stopped as with Ctrl-C, and killed if it still runs GRACE seconds later. Processes that it has started, such
    as the kernel of a notebook, are killed then too. Otherwise they would go on to use the GPU.
    """
    if seconds <= GRACE:
        return "not started: there was no time"
    program = subprocess.Popen([str(word) for word in command], cwd=config.PROJECT, start_new_session=True)
    try:
        return "done" if program.wait(seconds - GRACE) == 0 else "FAILED"
    except subprocess.TimeoutExpired:
        started = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE)
    program.kill()
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, timeout=GRACE)
    program.wait()
    return "stopped"


class Report:
    """The page `report.md`. It is written again after each part, so that a stopped command leaves it too."""

    def __init__(self, out: Path, first: str) -> None:
        self.path, self.started = out / "report.md", time.monotonic()
        self.parts: list[str] = []
        self.add(f"# make gpu\n\n{first}")

    def add(self, text: str) -> None:
        """Add a part, print it, and write the page."""
        self.parts.append(text)
        print(f"\n{text}", flush=True)
        files.write_atomically(self.path, ("\n\n".join(self.parts) + "\n").encode())

    def run(self, name: str, command: Sequence[str | Path], end: float) -> None:
        """Run a part of the work until the time `end` at the latest, and write how it went."""
        print(f"\n{name}: at most {end - time.monotonic():.0f} s", flush=True)
        start = time.monotonic()
        result = call(command, end - start)
        self.add(f"- {name}: {result} ({time.monotonic() - start:.0f} s)")


def trainings_table(out: Path) -> str:
    """Pack everything, and describe it."""
    from benchmarks import packing

    trainings, left_out = packing.pack(out)
    lines = ["| training | steps | minutes | device | finished | archive |", "| --- | ---: | ---: | --- | --- | --- |"]
    for one in trainings:
        steps = f"{one.step:,}" if one.step == one.steps else f"{one.step:,} of {one.steps:,}"
        end = one.date if one.step == one.steps else "no"
        cells = (one.name, steps, f"{one.minutes:.1f}", one.device, end, one.archive or "left out")
        lines.append(f"| {' | '.join(cells)} |")
    if left_out:
        lines += ["", f"Too large, or no room in the archives: {', '.join(left_out)}"]
    return "\n".join(["## Trainings", "", *lines])


def work(minutes: float, train: list[str], out: Path) -> None:
    """Do everything in so many minutes. See the first lines of this file."""
    begun, absent = time.monotonic(), missing_packages()
    if needed := [name for name in FOR_ALL if name in absent]:
        raise SystemExit(f"error: nothing works here without these packages: {', '.join(needed)}. See docs/gpu.md")
    import torch

    from utils.data import hand_images
    from utils.training import devices

    if devices.accelerator().device.type == "cpu":
        raise SystemExit("error: there is no GPU here, so there is nothing to do")
    end = begun + 60 * minutes - PACKING_SECONDS
    machine = f"{devices.device_name()}, PyTorch {torch.__version__}, {os.cpu_count()} cores"
    first = f"{machine}, profile {config.profile()}, at most {minutes:g} minutes. Hands: {hand_images.origin()}."
    report = Report(out, first + (f" Missing packages: {', '.join(absent)}." if absent else ""))
    if "pytest" in absent:
        report.add("- tests of CUDA: left out, because pytest is missing")
    else:
        tests = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "tests/test_cuda.py"]
        os.environ["TEST_CUDA"] = "1"  # otherwise, tests/conftest.py hides the GPU
        report.run("tests of CUDA", tests, begun + TESTS_SHARE * 60 * minutes)
    for name in train:
        if lacking := [package for package in FOR_NOTEBOOKS if package in absent]:
            report.add(f"- {name}: left out, because packages are missing: {', '.join(lacking)}")
        else:
            notebook = [sys.executable, "-m", "utils", "notebooks", NOTEBOOKS[name]]
            report.run(name, notebook, end - SPEED_SHARE * 60 * minutes)
    report.add(trainings_table(out))
    with_table = config.run_folder() / "speed.md"
    with_table.unlink(missing_ok=True)
    report.run("speed", [sys.executable, "-m", "benchmarks.gpu_speed", with_table], end)
    if with_table.is_file():
        report.add(f"## Speed\n\n{with_table.read_text(encoding='utf-8')}")
    report.add(f"{(time.monotonic() - begun) / 60:.1f} minutes in all")


def chosen(text: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        argparse.ArgumentTypeError: a name is not in NOTEBOOKS.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if name not in NOTEBOOKS]:
        raise argparse.ArgumentTypeError(f"TRAIN has {', '.join(wrong)}, but can only have {', '.join(NOTEBOOKS)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=positive_number, default=8.0, help="time for everything; default: 8")
    parser.add_argument("--train", type=chosen, default="hands,classifier,heads,final", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=config.PROJECT / "runs" / "gpu", help="default: runs/gpu")
    options = parser.parse_args()
    os.environ.setdefault("PROFILE", "full")
    os.environ.setdefault("RUNS_FOLDER", str(config.PROJECT / "runs"))  # so that no committed result is replaced
    work(options.minutes, options.train, options.out.absolute())


if __name__ == "__main__":
    main()
