"""How long the imports of each notebook take, without the import of torch.

    make benchmark-start-up        or        python -m benchmarks.start_up

The imports of each notebook's first cell run in a new process. This process has already imported torch and IPython, as
a notebook's kernel has. Files come from the system's cache, as in every start except the first one after a reboot.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd

from utils import config

TRIES = 5


def imports(notebook: Path) -> str:
    """The import statements, as code, of the first cell that imports from `utils`.

    Raises:
        ValueError: no cell imports from `utils`.
    """
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and "from utils" in cell.source:
            found = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Import | ast.ImportFrom)]
            return "\n".join(map(ast.unparse, found))
    raise ValueError(f"'{notebook}' imports nothing from utils")


def seconds(code: str) -> float:
    """Seconds that the code takes in a new process, after the imports of torch and IPython."""
    before = "import time, torch, IPython.display\nstart = time.perf_counter()"
    timed = f"{before}\n{code}\nprint(time.perf_counter() - start)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", timed], cwd=config.PROJECT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    rows = {}
    for notebook in sorted([*config.PROJECT.glob("*.ipynb"), *config.PROJECT.glob("*/*.ipynb")]):
        code = imports(notebook)
        seconds(code)  # the first run fills the system's cache
        rows[notebook.relative_to(config.PROJECT).as_posix()] = [seconds(code) for _ in range(TRIES)]
    found = pd.DataFrame(rows).T
    print(pd.DataFrame({"median (s)": found.median(axis=1), "slowest (s)": found.max(axis=1)}).round(2).to_string())


if __name__ == "__main__":
    main()
