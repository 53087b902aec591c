"""Reads another person's hand-in safely.

Nothing is executed or unpickled. Links are not followed, and files that are too large are not opened.
"""

from __future__ import annotations

import fnmatch
import json
import os
from functools import lru_cache
from pathlib import Path

LARGEST_FILE = 60_000_000  # bytes; a larger notebook, image or array is not opened
MAX_FILES = 50_000  # the largest number of files in a hand-in
IGNORED = ("runs", "site", "__pycache__", "node_modules", "venv")  # folders that are never handed in


class Failed(Exception):
    """A requirement is not met. The message says why."""


class Unchecked(Exception):
    """A requirement cannot be checked. The message says what is missing."""


@lru_cache(maxsize=4)
def listing(folder: Path) -> tuple[str, ...]:
    """Relative paths of the regular files in a folder, sorted. Links and hidden files are left out.

    Raises:
        Failed: there are more than MAX_FILES.
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
        if len(found) > MAX_FILES:
            raise Failed(f"more than {MAX_FILES} files; hand in results, not data sets or environments")
    return tuple(sorted(found))


def last_part(name: str) -> str:
    """The file name at the end of a relative path. It is much faster than pathlib for thousands of files."""
    return name.rpartition("/")[2]


def forget() -> None:
    """Forget what was read so far. Call it when files may have changed."""
    listing.cache_clear()
    cells.cache_clear()


def find(folder: Path, pattern: str) -> str:
    """The only file whose name matches the pattern. Files in sub-folders count only if none at the top matches.

    Raises:
        Failed: no file matches, or several files match.
    """
    files = listing(folder)
    found = [name for name in files if fnmatch.fnmatchcase(last_part(name), pattern)]
    found = [name for name in found if "/" not in name] or found
    if not found:
        close = [name for name in files if fnmatch.fnmatchcase(last_part(name).lower(), pattern.lower())]
        hint = f"; '{close[0]}' has different capital letters" if close else ""
        raise Failed(f"there is no {pattern}{hint}")
    if len(found) > 1:
        raise Failed(f"there are {len(found)} files that match {pattern}: {', '.join(found[:3])}")
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
            raise Failed(f"{name} has {size / 1e6:.0f} MB; files over {LARGEST_FILE / 1e6:.0f} MB are not opened")
        data = path.read_bytes()
    except OSError as error:
        raise Failed(f"{name} cannot be read: {error.strerror}") from error
    if not data:
        raise Failed(f"{name} is empty")
    return data


def text(folder: Path, name: str) -> str:
    """The content of a UTF-8 text file.

    Raises:
        Failed: the file is not text in UTF-8, or `content` fails.
    """
    try:
        return content(folder, name).decode()
    except UnicodeDecodeError as error:
        raise Failed(f"{name} is not a text file in UTF-8: {error}") from error


class Cell:
    """A cell of a notebook. Outputs of a wrong type are left out.

    Attributes:
        code: is it a code cell?
        source: its text.
        count: its execution number, or None if it was not executed.
        outputs: its outputs, each as a dict.
    """

    def __init__(self, cell: dict):
        source, outputs = cell.get("source", ""), cell.get("outputs", [])
        self.code = cell.get("cell_type") == "code"
        self.source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        self.count = cell.get("execution_count")
        self.outputs = [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []

    def pictures(self) -> bool:
        """Does one of the outputs hold a picture?"""
        kinds = [output.get("data") for output in self.outputs]
        return any(isinstance(data, dict) and any(k.startswith("image/") for k in data) for data in kinds)


@lru_cache(maxsize=8)
def cells(folder: Path, pattern: str) -> list[Cell]:
    """The cells of a notebook, without empty ones.

    Raises:
        Failed: there is no such file, or it is not a notebook.
    """
    name = find(folder, pattern)
    try:
        found = json.loads(text(folder, name))["cells"]
        read = [Cell(cell) for cell in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failed(f"{name} is not a Jupyter notebook: {error or type(error).__name__}") from error
    return [cell for cell in read if cell.source.strip()]
