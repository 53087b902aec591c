"""Executes notebooks from top to bottom, and prints the progress and the time that is left."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image
from tqdm import tqdm

from utils import config, files
from utils.data import hand_images
from utils.notebooks import results

INSTEAD = "So nothing was started. Get the course's images (python -m utils data --from PATH), or use --profile quick."
WIDGET, PNG = "application/vnd.jupyter.widget-view+json", "image/png"
SILENCE = 60  # seconds; a log gets a line at least this often
SETTLED = 20  # seconds; after this time, the estimate of the time left uses the measured speed of this machine


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove outputs that GitHub cannot show: widgets, and old states of progress bars."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps, which are different in every run
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "stream":  # keep only the text that a terminal shows at the end
                output.text = "".join(line.rsplit("\r", 1)[-1] for line in output.text.splitlines(keepends=True))
        cell.outputs = [o for o in cell.outputs if o.get("text", "x").strip()]


def shrink_pictures(notebook: nbformat.NotebookNode) -> None:
    """Write the PNGs of all outputs in fewer bytes, without changing a pixel."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get(PNG):
                output.data[PNG] = base64.b64encode(smaller_png(base64.b64decode(png))).decode()


def smaller_png(png: bytes) -> bytes:
    """The same picture, without an alpha channel if it is opaque, and in grey if it has no colours."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    if (picture[..., 3] < 255).any():
        return png
    colours = picture[..., :3]
    grey, written = (colours == colours[..., :1]).all(), io.BytesIO()
    Image.fromarray(colours[..., 0] if grey else colours).save(written, "PNG", optimize=True)
    return min(png, written.getvalue(), key=len)


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    """The last heading above each code cell."""
    found, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append(heading)
        else:
            heading = (re.findall(r"^#+ +(.+)$", cell.source, re.M) or [heading])[-1]
    return found


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, for example `3:07`."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def known_durations(name: str, sections: list[str]) -> list[float]:
    """The seconds that each code cell of a notebook may take in this profile, or an empty list if they are unknown.

    `durations_PROFILE.json` holds the measured seconds of each section, a copy of `runs/PROFILE/durations.json` from a
    run that trained everything. They are divided equally among the section's cells. A new section counts as 0.

    Args:
        name: the file name of the notebook.
        sections: the section of each code cell.
    """
    path = Path(__file__).with_name(f"durations_{config.profile()}.json")
    known = json.loads(path.read_text(encoding="utf-8")).get(name, {}) if path.is_file() else {}
    found = [known.get(section, 0.0) / sections.count(section) for section in sections]
    return found if sum(section in known for section in sections) > len(sections) / 2 else []


def time_left(known: list[float], done: int, elapsed: float) -> float:
    """Estimate the seconds that are left. `done` cells are finished, and they took `elapsed` seconds."""
    pace = elapsed / sum(known[:done]) if elapsed > SETTLED and sum(known[:done]) > SETTLED else 1.0
    return pace * sum(known[done:])


class Clock:
    """Says how far a notebook is: a line for each section, and in between a bar, or in a log a line each minute.

    Args:
        sections: the section of each code cell.
        known: the seconds that each code cell took before, or an empty list.
    """

    def __init__(self, sections: list[str], known: list[float]) -> None:
        self.sections, self.known = sections, known
        self.start, self.ends, self.spoken = time.monotonic(), [0.0], 0.0
        self.bar = tqdm(total=1.0, disable=None, leave=False, file=sys.stdout, bar_format="  {desc} |{bar:30}|")

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def left(self) -> str:
        """The place and the time that is left, for example `cell 14 of 29, about 3:07 left`."""
        done, place = len(self.ends) - 1, f"cell {min(len(self.ends), len(self.sections))} of {len(self.sections)}"
        if not self.known:
            return place
        left = time_left(self.known, done, self.ends[-1]) - (self.elapsed - self.ends[-1])
        return f"{place}, about {clock(left)} left" if left > 0 else f"{place}, longer than expected"

    def say(self, text: str) -> None:
        """Print a line with the time."""
        self.spoken = self.elapsed
        tqdm.write(f"  {clock(self.elapsed):>5}  {text}", file=sys.stdout)
        sys.stdout.flush()

    def begin(self, number: int) -> None:
        """A code cell begins: say so if it is the first of its section."""
        if number == 0 or self.sections[number] != self.sections[number - 1]:
            self.say(f"{self.sections[number]} ({self.left()})")

    def end(self) -> None:
        """A code cell has ended."""
        self.ends.append(self.elapsed)

    def tick(self) -> None:
        """Move the bar. In a log, which shows no bar, say each minute that the work goes on."""
        number = min(len(self.ends), len(self.sections)) - 1
        if self.bar.disable and self.elapsed - self.spoken > SILENCE:
            self.say(f"still in: {self.sections[number]} ({self.left()})")
        costs = self.known or [1.0] * len(self.sections)
        part = min(self.elapsed - self.ends[-1], costs[number]) if self.known else 0.0
        self.bar.n = (sum(costs[: len(self.ends) - 1]) + part) / (sum(costs) or 1.0)
        self.bar.set_description_str(f"{clock(self.elapsed):>5}  {self.left()}")


def execute_in_thread(client: NotebookClient, tick: Callable[[], None]) -> None:
    """Execute a notebook so that Ctrl-C ends its cell. In the main thread, the client would kill the kernel first.

    `tick` is called each second.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute)
        try:
            while not running.done():
                wait([running], timeout=1)
                tick()
        except KeyboardInterrupt:
            asyncio.run(client.km.interrupt_kernel())
            wait([running])
            raise
        running.result()


def execute(path: Path, target: Path) -> dict[str, float]:
    """Execute the notebook `path` in the project's folder. Save it as `target` after every cell.

    Returns:
        The seconds that each section took.

    Raises:
        CellExecutionError: a cell failed. `target` holds the outputs up to this cell.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    sections = headings(notebook)
    progress = Clock(sections, known_durations(path.name, sections))

    def save(cell=None, cell_index=None, **_) -> None:
        if cell_index is not None:
            progress.end()
        clean(notebook)
        files.write_atomically(target, nbformat.writes(notebook).encode())

    for index in code:
        notebook.cells[index].outputs, notebook.cells[index].execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # hides warnings about the kernel's open port
        resources={"metadata": {"path": str(config.PROJECT)}},
        on_cell_execute=lambda cell, cell_index: progress.begin(code.index(cell_index)),
        on_cell_executed=save,
    )
    try:
        execute_in_thread(client, progress.tick)
    finally:
        progress.bar.close()
        shrink_pictures(notebook)
        save()
    progress.say("finished")
    seconds = dict.fromkeys(sections, 0.0)
    for section, (begin, end) in zip(sections, pairwise(progress.ends)):
        seconds[section] = round(seconds[section] + end - begin, 1)
    return seconds


def refuse_to_replace_results(paths: list[Path]) -> None:
    """Refuse to replace the committed results by results that were made without the course's data.

    Raises:
        ValueError: the profile is full, and images that the notebooks need are missing. The message says which.
    """
    if not config.in_place():
        return
    if any("DLcw" in path.name for path in paths) and hand_images.origin().startswith("STAND-IN"):
        raise ValueError(f"{hand_images.origin()}. The profile full would overwrite the committed results. {INSTEAD}")
    if any("DLcw2" in path.name for path in paths) and not any((config.PROJECT / "test_hands").glob("test_hand_*")):
        raise ValueError(
            "The course's test images (hands_cw2.tar.gz) are not here. The profile full would overwrite the committed "
            f"labels with labels of our own images. {INSTEAD}"
        )


def execute_all(paths: list[Path]) -> None:
    """Execute notebooks one after the other, and print where the results are.

    Raises:
        ValueError: as in `refuse_to_replace_results`.
        SystemExit: a notebook failed.
    """
    paths = [path.resolve() for path in paths]
    for path in paths:
        if path.suffix != ".ipynb" or not path.is_file():
            raise ValueError(f"'{files.printable(path)}' is not a notebook: a file that ends in .ipynb is needed")
    refuse_to_replace_results(paths)
    durations, begin = {}, time.monotonic()
    for number, source in enumerate(paths, start=1):
        target = config.run_folder() / source.name
        notebook = nbformat.read(source, as_version=4)
        title = re.search(r"^# +(.+)$", notebook.cells[0].source, re.M)
        known = known_durations(source.name, headings(notebook))
        takes = f", about {clock(sum(known))} minutes on two cores" if known else ""
        print(f"Notebook {number} of {len(paths)}: {source.name}, profile {config.profile()}{takes}")
        print(f"  {title[1] if title else ''}", flush=True)
        try:
            durations[source.name] = execute(source, target)
        except (CellExecutionError, DeadKernelError) as error:
            raise SystemExit(f"{source.name} failed. Its outputs up to the error are in {target}\n{error}") from error
        if config.in_place():
            files.write_atomically(source, target.read_bytes())
    files.write_atomically(config.run_folder() / "durations.json", (json.dumps(durations, indent=1) + "\n").encode())
    print(f"\nDone in {clock(time.monotonic() - begin)}. The results:", *results.summary(paths), sep="\n  ")
