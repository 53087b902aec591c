"""Executes notebooks from top to bottom, and prints the progress and the time that is left."""

from __future__ import annotations

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from utils import config, files
from utils.data import hand_images
from utils.notebooks import results

WIDGET = "application/vnd.jupyter.widget-view+json"
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


def known_durations(name: str, cells: int) -> list[float]:
    """The measured seconds of each code cell of a notebook in this profile, or an empty list if they are unknown.

    They are in `durations_PROFILE.json`, a copy of `runs/PROFILE/durations.json` from a run that trained everything.
    """
    path = Path(__file__).with_name(f"durations_{config.profile()}.json")
    known = json.loads(path.read_text(encoding="utf-8")).get(name, []) if path.is_file() else []
    return known if len(known) == cells else []


def time_left(known: list[float], done: int, elapsed: float) -> float:
    """Estimate the seconds that are left. `done` cells are finished, and they took `elapsed` seconds."""
    pace = elapsed / sum(known[:done]) if elapsed > SETTLED and sum(known[:done]) > SETTLED else 1.0
    return pace * sum(known[done:])


def execute_in_thread(client: NotebookClient) -> None:
    """Execute a notebook so that Ctrl-C ends its cell. In the main thread, the client would kill the kernel first."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.execute)
        try:
            while not running.done():
                wait([running], timeout=1)
        except KeyboardInterrupt:
            asyncio.run(client.km.interrupt_kernel())
            wait([running])
            raise
        running.result()


def execute(path: Path, target: Path) -> list[float]:
    """Execute the notebook `path` in the project's folder. Save it as `target` after every cell.

    Returns:
        The seconds that each code cell took.

    Raises:
        CellExecutionError: a cell failed. `target` holds the outputs up to this cell.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    sections, known = headings(notebook), known_durations(path.name, len(code))
    start, ends = time.monotonic(), [0.0]

    def announce(cell, cell_index) -> None:
        number = code.index(cell_index)
        if number == 0 or sections[number] != sections[number - 1]:
            elapsed = time.monotonic() - start
            left = f", about {clock(time_left(known, number, elapsed))} left" if known else ""
            print(f"  {clock(elapsed):>5}  {sections[number]} (cell {number + 1} of {len(code)}{left})", flush=True)

    def save(cell=None, cell_index=None, **_) -> None:
        if cell_index is not None:
            ends.append(time.monotonic() - start)
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
        on_cell_execute=announce,
        on_cell_executed=save,
    )
    try:
        execute_in_thread(client)
    finally:
        save()
    print(f"  {clock(ends[-1]):>5}  finished", flush=True)
    return [round(end - begin, 1) for begin, end in zip(ends, ends[1:])]


def refuse_to_replace_results(paths: list[Path]) -> None:
    """Refuse to replace the committed results by results that were made without the course's data.

    Raises:
        ValueError: the profile is full, and images that the notebooks need are missing. The message says which.
    """
    if not config.in_place():
        return
    if any("DLcw" in path.name for path in paths) and hand_images.origin().startswith("STAND-IN"):
        raise ValueError(f"{hand_images.origin()}. The profile full would overwrite the committed results.")
    if any("DLcw2" in path.name for path in paths) and not any((config.PROJECT / "test_hands").glob("test_hand_*")):
        raise ValueError(
            "The course's test images (hands_cw2.tar.gz) are not here. The profile full would overwrite the committed "
            "labels with labels of our own images."
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
        known = known_durations(source.name, sum(cell.cell_type == "code" for cell in notebook.cells))
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
