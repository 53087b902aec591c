"""Executes notebooks top to bottom, showing where they are."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from utils import config
from utils.data import hand_images

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
        resources={"metadata": {"path": str(config.PROJECT)}},
        on_cell_executed=save,
    )
    try:
        client.execute()
    finally:
        save()


def execute_all(paths: list[Path]) -> None:
    """Execute notebooks one after the other and say where the results are.

    Raises:
        SystemExit: a notebook failed, or would overwrite committed results without the course's data.
    """
    in_place = config.in_place()
    paths = [path.resolve() for path in paths]
    hands = any(path.parent == config.PROJECT.resolve() for path in paths)
    if in_place and hands and hand_images.origin().startswith("STAND-IN"):
        raise SystemExit(f"error: {hand_images.origin()}; the profile full would overwrite the committed results.")
    labelling = any("DLcw2" in path.name for path in paths)
    if in_place and labelling and not any((config.PROJECT / "test_hands").glob("test_hand_*")):
        raise SystemExit(
            "error: the course's test images (hands_cw2.tar.gz) are not here; the profile full would overwrite the "
            "committed labels with labels of our own images."
        )
    for source in paths:
        target = config.run_folder() / source.name
        print(f"{source.name} (profile {config.profile()}) -> {target}", flush=True)
        try:
            execute(source, target)
        except (CellExecutionError, DeadKernelError) as error:
            raise SystemExit(f"{source.name} failed; what it had done is in {target}.\n{error}") from error
        if in_place:
            shutil.copyfile(target, source)
    where = config.results_folder()
    folders = sorted({path.parent.name for path in paths if path.parent != config.PROJECT.resolve()})
    made = [f"The 300 + 300 new hands: {where}/GAN_hands, {where}/VAE_hands"] if hands else []
    made += [f"Its files: {where}/{folder}" for folder in folders]
    print(f"\nDone. Executed notebooks: {config.run_folder()}/*.ipynb", *made, sep="\n")
