"""Execute notebooks top to bottom, showing where they are; `python -m utils.notebooks --help`."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from utils import course_data, runs

WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove what keeps a saved notebook from rendering on GitHub: widgets, and bars drawn over."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps, different at every run
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "stream":  # keep what a terminal would still show
                output.text = "".join(line.rsplit("\r", 1)[-1] for line in output.text.splitlines(keepends=True))
        cell.outputs = [o for o in cell.outputs if o.get("text", "x").strip()]


def execute(path: Path, target: Path) -> None:
    """Execute `path` in the project's folder and save it as `target` after every cell.

    Raises:
        CellExecutionError: a cell failed; `target` holds the outputs up to it.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    start = time.monotonic()

    def save(cell=None, cell_index=None, **_) -> None:
        clean(notebook)
        nbformat.write(notebook, target)
        if cell_index is not None:
            print(f"  cell {code.index(cell_index) + 1}/{len(code)}, {time.monotonic() - start:.0f} s", flush=True)

    def begin(cell, cell_index) -> None:
        cell.outputs, cell.execution_count = [], None

    for index in code:
        begin(notebook.cells[index], index)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(runs.PROJECT)}},
        on_cell_executed=save,
    )
    try:
        client.execute()
    finally:
        save()


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute notebooks in the profile of the variable PROFILE.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    options = parser.parse_args()
    in_place = runs.in_place()
    hands = any(path.parent == Path() for path in options.notebooks)
    if in_place and hands and course_data.origin().startswith("STAND-IN"):
        raise SystemExit(f"error: {course_data.origin()}; the profile full would overwrite the committed results.")
    labelling = any("DLcw2" in path.name for path in options.notebooks)
    if in_place and labelling and not any((runs.PROJECT / "test_hands").glob("test_hand_*")):
        raise SystemExit(
            "error: the course's test images (hands_cw2.tar.gz) are not here; the profile full would overwrite the "
            "committed labels with labels of our own images."
        )
    for path in options.notebooks:
        source = runs.PROJECT / path
        target = runs.folder() / source.name
        print(f"{path} (profile {runs.profile()}) -> {target}", flush=True)
        try:
            execute(source, target)
        except (CellExecutionError, DeadKernelError) as error:
            raise SystemExit(f"{path} failed; what it had done is in {target}.\n{error}") from error
        if in_place:
            shutil.copyfile(target, source)
    where = runs.hand_in()
    folders = sorted({path.parent.as_posix() for path in options.notebooks} - {"."})
    made = [f"The 300 + 300 new hands: {where}/GAN_hands, {where}/VAE_hands"] if hands else []
    made += [f"Its files: {where}/{folder}" for folder in folders]
    print(f"\nDone. Executed notebooks: {runs.folder()}/*.ipynb", *made, sep="\n")


if __name__ == "__main__":
    main()
