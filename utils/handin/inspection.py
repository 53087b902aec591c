"""Reads another person's hand-in safely: a folder, or a zip file, which is opened in memory.

Nothing is executed or unpickled. Links are not followed, and files that are too large are not opened. The files in a
zip file count as files in a folder of its name, as in `GAN_hands.zip/GAN_hands/ab123_001.jpeg`.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

LARGEST_FILE = 200_000_000  # bytes; a larger file is not opened
LARGEST_INNER_ZIP = 100_000_000  # bytes; a larger zip file inside a zip file is not opened
MAX_FILES = 50_000  # the largest number of files in a hand-in
IGNORED = ("runs", "site", "__pycache__", "node_modules", "venv", "env", "__MACOSX")  # folders that nobody hands in
LFS = b"version https://git-lfs"  # a pointer begins with this; the file itself is elsewhere
# The pictures in a notebook are long strings. Only their beginnings are kept, which say what kind of picture it is.
PICTURE = re.compile(rb'"(?:image/(?:png|jpeg|gif)|png|jpeg)"\s*:\s*"')
PICTURES = ("image/png", "png", "image/jpeg", "jpeg", "image/gif", "image/svg+xml", "svg")  # kinds of outputs
KEPT = 160  # characters of a picture
DAMAGED_ZIP = (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError)


class Failed(ValueError):
    """A file is not what the brief asks for. The message says why."""


class Unchecked(ValueError):
    """Something cannot be known. The message says what is missing."""


class Finding(NamedTuple):
    """One thing that a check found. The kind is ok, fault, remark or unchecked."""

    kind: str
    text: str


def ok(text: str) -> Finding:
    """What is right."""
    return Finding("ok", text)


def fault(text: str) -> Finding:
    """The brief asks for it, and it is not so."""
    return Finding("fault", text)


def remark(text: str) -> Finding:
    """Worth a look. The brief does not forbid it."""
    return Finding("remark", text)


def unchecked(text: str) -> Finding:
    """A program cannot know it. The text says how a person can find out."""
    return Finding("unchecked", text)


def some(names: list, most: int = 5) -> str:
    """The first few of many names or numbers, to show to the user."""
    shown = ", ".join(map(str, names[:most]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown


def listing(folder: Path) -> tuple[str, ...]:
    """Relative paths of the regular files in a folder, sorted. Links, hidden files and IGNORED folders are left out.

    Raises:
        Failed: there are more than MAX_FILES.
    """
    found: list[str] = []
    waiting = [(str(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError:  # a folder that we may not read
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in IGNORED:
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.is_file(follow_symlinks=False):
                found.append(prefix + entry.name)
        if len(found) > MAX_FILES:
            raise Failed(f"more than {MAX_FILES} files; hand in results, not data sets or environments")
    return tuple(sorted(found))


def last_part(name: str) -> str:
    """The file name at the end of a relative path. It is much faster than pathlib for thousands of files."""
    return name.rpartition("/")[2]


def folder_of(name: str) -> str:
    """The folder of a relative path, or "" at the top."""
    return name.rpartition("/")[0]


class Cell:
    """A cell of a notebook. Outputs of a wrong type are left out. Cells of format 3 are read too.

    Attributes:
        code: is it a code cell?
        source: its text.
        count: its execution number, or None.
        outputs: its outputs, each as a dict.
        number, code_number: its place among all cells, and among the code cells, that are not empty, from 1.
    """

    def __init__(self, cell: dict, number: int = 0):
        source, outputs = cell.get("source", cell.get("input", "")), cell.get("outputs", [])
        self.code = cell.get("cell_type") == "code"
        self.source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        if cell.get("cell_type") == "heading":  # in format 3
            self.source = f"{'#' * int(cell.get('level', 1))} {self.source}"
        count = cell.get("execution_count", cell.get("prompt_number"))
        self.count = count if isinstance(count, int) else None
        self.outputs = [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
        self.number = self.code_number = number

    def output_texts(self) -> str:
        """The texts that the cell printed, as one text."""
        parts = []
        for output in self.outputs:
            data = output.get("data")
            texts = [output.get("text"), data.get("text/plain") if isinstance(data, dict) else None]
            parts += ["".join(map(str, t)) if isinstance(t, list) else str(t) for t in texts if t]
        return "\n".join(parts)

    def errors(self) -> list[str]:
        """The names of the errors that it ended in."""
        wrong = [output for output in self.outputs if output.get("output_type") in ("error", "pyerr")]
        return [str(output.get("ename") or "an error") for output in wrong]

    def shows(self) -> bool:
        """Does it have an output that is not an error?"""
        return any(output.get("output_type") not in ("error", "pyerr") for output in self.outputs)

    def pictures(self) -> bool:
        """Does one of the outputs hold a picture? A few bytes that only begin like one do not count."""
        return any(_is_picture(output) for output in self.outputs)


def _is_picture(output: dict) -> bool:
    data = output.get("data", output)  # in format 3, the pictures are in the output itself
    if not isinstance(data, dict):
        return False
    for kind, content in data.items():
        text = "".join(map(str, content)) if isinstance(content, list) else str(content)
        if kind in PICTURES and len(text) > 100:
            return True
        if kind.startswith(("application/vnd.plotly", "application/vnd.vega")):
            return True
        if ("html" in kind or "javascript" in kind) and re.search(r"<img|<svg|<canvas|bokeh|plotly|vega", text, re.I):
            return True
    return False


def _without_pictures(content: bytes) -> bytes:
    """A notebook's content in which each picture is cut after KEPT characters."""
    kept, place = [], 0
    for match in PICTURE.finditer(content):
        end = content.find(b'"', match.end())
        if end > match.end() + KEPT:
            kept.append(content[place : match.end() + KEPT].rstrip(b"\\"))
            place = end
    return b"".join([*kept, content[place:]])


def decode(content: bytes) -> tuple[str, list[str]]:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark. Also returns what is unusual about it.

    Raises:
        Failed: it is not such a text.
    """
    marks = ((b"\xef\xbb\xbf", "utf-8-sig", "it begins with a byte order mark (BOM)"),) + tuple(
        (mark, "utf-16", "it is in UTF-16, not in UTF-8") for mark in (b"\xff\xfe", b"\xfe\xff")
    )
    for mark, encoding, note in marks:
        if content.startswith(mark):
            try:
                return content.decode(encoding), [note]
            except UnicodeDecodeError as error:
                raise Failed(f"it is not a text in {encoding}: {error.reason}") from error
    try:
        return content.decode(), []
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), ["it is not in UTF-8"]


class HandIn:
    """The files of a hand-in. Everything that was read is kept until the object is dropped.

    Attributes:
        path: the folder or the zip file.
        names: relative paths of its files, sorted.
        archives: archives that cannot be opened here, such as .7z files, and damaged zip files.

    Raises:
        Failed: there are too many files, or the zip file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.archives: list[str] = []
        self._inner: dict[str, tuple[zipfile.ZipFile, str]] = {}  # the zip file of a name, and the name in it
        self._notebooks: dict[str, list[Cell]] = {}
        self._texts: dict[str, str] = {}
        self.trees: dict[str, object] = {}  # the syntax trees of modules
        names: list[str] = []
        if path.is_dir():
            for name in listing(path):
                if name.lower().endswith(".zip"):
                    names += self._open(name, path / name)
                else:
                    names.append(name)
        else:
            names = self._open("", path)
            if not names:
                raise Failed("it is not a zip file that can be read, or it is empty")
        self.archives += [n for n in names if re.search(r"\.(7z|rar|tar|tgz|gz|bz2|xz)$", n, re.I)]
        if len(names) > MAX_FILES:
            raise Failed(f"more than {MAX_FILES} files; hand in results, not data sets or environments")
        self.names = tuple(sorted(names))

    def _open(self, prefix: str, source: Path | io.BytesIO, depth: int = 0) -> list[str]:
        """The names of the files in a zip file. Zip files in it are opened too, down to a depth of 2."""
        found = []
        try:
            archive = zipfile.ZipFile(source)
            for info in archive.infolist()[: MAX_FILES + 1]:
                parts = [part for part in info.filename.replace("\\", "/").split("/") if part not in ("", ".", "..")]
                if info.is_dir() or not parts or any(part.startswith(".") or part in IGNORED for part in parts):
                    continue
                name = "/".join([prefix, *parts] if prefix else parts)
                if name.lower().endswith(".zip") and depth < 2 and info.file_size <= LARGEST_INNER_ZIP:
                    with archive.open(info) as file:
                        found += self._open(name, io.BytesIO(file.read(LARGEST_INNER_ZIP + 1)), depth + 1)
                else:
                    self._inner[name] = archive, info.filename
                    found.append(name)
        except DAMAGED_ZIP:
            self.archives.append(prefix or self.path.name)
        return found

    @cached_property
    def notebooks(self) -> list[str]:
        """The paths of the notebooks."""
        return [name for name in self.names if name.lower().endswith(".ipynb")]

    def read(self, name: str, most: int = LARGEST_FILE) -> bytes:
        """A file's bytes.

        Raises:
            Failed: it is empty or cannot be read.
            Unchecked: it is too large, or only a Git LFS pointer.
        """
        bare = last_part(name)
        try:
            if name in self._inner:
                archive, inner = self._inner[name]
                with archive.open(inner) as file:
                    data = file.read(most + 1)
            else:
                with open(self.path / name, "rb") as file:
                    data = file.read(most + 1)
        except DAMAGED_ZIP as error:
            raise Failed(f"{bare} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if len(data) > most:
            raise Unchecked(f"{bare} is larger than {most / 1e6:.0f} MB and was not opened; look at it yourself")
        if not data:
            raise Failed(f"{bare} is empty")
        if data.startswith(LFS):
            raise Unchecked(f"{bare} is a Git LFS pointer, not the file itself: run git lfs pull, then check again")
        return data

    def text(self, name: str) -> tuple[str, list[str]]:
        """The content of a text file, and what is unusual about its encoding.

        Raises:
            Failed, Unchecked: see `read` and `decode`.
        """
        return decode(self.read(name))

    def cells(self, name: str) -> list[Cell]:
        """The cells of a notebook that are not empty. Pictures are shortened.

        Raises:
            Failed: it is not a notebook; see also `read`.
            Unchecked: see `read`.
        """
        if name not in self._notebooks:
            self._notebooks[name] = self._read_cells(name)
        return self._notebooks[name]

    def words(self, name: str) -> str:
        """The sources of all cells of a notebook, and its name, in small letters. "" if it cannot be read."""
        if name not in self._texts:
            try:
                cells = self.cells(name)
            except (Failed, Unchecked):
                cells = []
            self._texts[name] = "\n".join([last_part(name), *(cell.source for cell in cells)]).lower() if cells else ""
        return self._texts[name]

    def _read_cells(self, name: str) -> list[Cell]:
        data = self.read(name)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            data = decode(data)[0].encode()
        try:
            content = json.loads(_without_pictures(data.removeprefix(b"\xef\xbb\xbf")))
            if not isinstance(content, dict):
                raise Failed(f"{last_part(name)} is not a Jupyter notebook: it has no cells")
            if "cells" in content:
                found = content["cells"]
            else:
                found = [cell for sheet in content["worksheets"] for cell in sheet["cells"]]  # format 3
            read = [Cell(cell) for cell in found]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = "it has no cells" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise Failed(f"{last_part(name)} is not a Jupyter notebook: {reason[:100]}") from error
        kept = [cell for cell in read if cell.source.strip()]
        count = 0
        for number, cell in enumerate(kept, start=1):
            cell.number = number
            count += cell.code
            cell.code_number = count
        return kept
