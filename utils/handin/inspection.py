"""Reads somebody's hand-in without running, unpickling or following anything of theirs; sizes are bounded."""

from __future__ import annotations

import fnmatch
import json
import os
from functools import lru_cache
from pathlib import Path

LARGEST_FILE = 60_000_000  # bytes; a larger notebook, image or array is not opened
MOST_FILES = 50_000  # of a folder that is looked at
IGNORED = ("runs", "site", "__pycache__", "node_modules", "venv")  # folders that are never handed in


class Failed(Exception):
    """The requirement is not met; the text says why."""


class Unchecked(Exception):
    """It cannot be told; the text says what is missing."""


@lru_cache(maxsize=4)
def listing(folder: Path) -> tuple[str, ...]:
    """Relative paths of the regular files of a folder; links and what is hidden are left out.

    Raises:
        Failed: more than MOST_FILES.
    """
    found: list[str] = []
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        for entry in os.scandir(place):
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in IGNORED:
                    waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif entry.is_file(follow_symlinks=False):
                found.append(prefix + entry.name)
        if len(found) > MOST_FILES:
            raise Failed(f"more than {MOST_FILES} files; hand in results, not data sets or environments")
    return tuple(sorted(found))


def forget() -> None:
    """Forget what was read of hand-ins, which may have changed since."""
    listing.cache_clear()
    cells.cache_clear()


def find(folder: Path, pattern: str) -> str:
    """The one file of that name, at the top or in a sub-folder.

    Raises:
        Failed: none, or several.
    """
    files = listing(folder)
    top = [name for name in files if fnmatch.fnmatchcase(name, pattern) and "/" not in name]
    found = top or [name for name in files if fnmatch.fnmatchcase(Path(name).name, pattern)]
    if not found:
        close = [name for name in files if fnmatch.fnmatch(Path(name).name.lower(), pattern.lower())]
        raise Failed(f"there is no {pattern}" + (f"; '{close[0]}' differs in capitals" if close else ""))
    if len(found) > 1:
        raise Failed(f"there are {len(found)} files {pattern}: {', '.join(found[:3])}")
    return found[0]


def content(folder: Path, name: str) -> bytes:
    """A file's bytes.

    Raises:
        Failed: it is empty, too large, or cannot be read.
    """
    path = folder / name
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise Failed(f"{name} has {size / 1e6:.0f} MB, more than the {LARGEST_FILE / 1e6:.0f} that are looked at")
        data = path.read_bytes()
    except OSError as error:
        raise Failed(f"{name} cannot be read: {error.strerror}") from error
    if not data:
        raise Failed(f"{name} is empty")
    return data


def text(folder: Path, name: str) -> str:
    """A text file's content; see `content`."""
    try:
        return content(folder, name).decode()
    except UnicodeDecodeError as error:
        raise Failed(f"{name} is no text file: {error}") from error


class Cell:
    """A notebook's cell: kind, source, number of its execution, outputs as dicts; odd parts read as empty."""

    def __init__(self, cell: dict):
        source, outputs = cell.get("source", ""), cell.get("outputs", [])
        self.code = cell.get("cell_type") == "code"
        self.source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        self.count = cell.get("execution_count")
        self.outputs = [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []

    def pictures(self) -> bool:
        kinds = [output.get("data") for output in self.outputs]
        return any(isinstance(data, dict) and any(k.startswith("image/") for k in data) for data in kinds)


@lru_cache(maxsize=8)
def cells(folder: Path, pattern: str) -> list[Cell]:
    """A notebook's cells, those of empty code left out.

    Raises:
        Failed: there is no such notebook, or it is no notebook.
    """
    name = find(folder, pattern)
    try:
        found = json.loads(text(folder, name))["cells"]
        read = [Cell(cell) for cell in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failed(f"{name} is no Jupyter notebook: {error or type(error).__name__}") from error
    return [cell for cell in read if cell.source.strip()]
