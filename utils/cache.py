"""Folders of more images than memory holds: decoded once into one file, which is then mapped and read by the page.

`training.fit` takes the mapped tensor like any other: it only ever asks for a batch of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import folders
from utils.checkpoints import write_atomically

CHUNK = 2000  # images that are decoded at a time


def images(folder: str | Path, size: tuple[int, int], file: str | Path) -> tuple[Tensor, list[folders.Skipped]]:
    """A folder's images, brought to `size` (width, height), as float32 (N, 1, H, W) in [-1, 1], mapped from `file`.

    The file (4 bytes a pixel) and a description beside it, `file.json`, are made at the first call, and again where a
    name, size or date of the folder's files has changed. What could not be read is in the list, as of `folders.read`.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: it holds no usable image.
        OSError: the disk is full; nothing is left behind.
    """
    folder, file = Path(folder), Path(file)
    if not folder.is_dir():
        raise (NotADirectoryError if folder.exists() else FileNotFoundError)(f"There is no folder '{folder}'.")
    marks = {entry.name: _mark(entry) for entry in os.scandir(folder) if not entry.name.startswith(".")}
    names = sorted(marks)
    listed = "\n".join(f"{name} {marks[name]}" for name in names)
    wanted = {"size": list(size), "files": hashlib.sha256(os.fsencode(listed)).hexdigest()}
    known = _description(file)
    if {key: known.get(key) for key in wanted} != wanted:
        known = wanted | _build(folder, names, size, file)
        write_atomically(_beside(file), json.dumps(known, indent=1).encode())
    count, skipped = known["count"], [folders.Skipped(*entry) for entry in known["skipped"]]
    if not count:
        raise ValueError(f"'{folder}' holds no usable image ({len(skipped)} files were set aside).")
    shape = (count, 1, size[1], size[0])
    return torch.from_file(str(file), size=math.prod(shape), dtype=torch.float32).view(shape), skipped


def _mark(entry: os.DirEntry) -> str:
    """Size and date of a file; of a broken link, nothing."""
    try:
        found = entry.stat()
    except OSError:
        return "unreadable"
    return f"{found.st_size} {found.st_mtime_ns}"


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _description(file: Path) -> dict:
    """What the description says, if the file is as long as it should be; else nothing."""
    try:
        known = json.loads(_beside(file).read_text())
        whole = file.stat().st_size == 4 * known["count"] * math.prod(known["size"])
        return known if whole else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _build(folder: Path, names: list[str], size: tuple[int, int], file: Path) -> dict:
    """Decode all into the file; returns how many, and what was set aside."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part, count, skipped = file.with_name(f".{file.name}.{os.getpid()}.part"), 0, []
    for left in file.parent.glob(f".{file.name}.*.part"):  # of a process that was killed
        left.unlink(missing_ok=True)
    try:
        with open(part, "wb") as out, ThreadPoolExecutor() as pool:
            for start in range(0, len(names), CHUNK):
                some = names[start : start + CHUNK]
                decoded = list(pool.map(lambda name: folders.decode(folder / name, size, True), some))
                skipped += [(name, found) for name, found in zip(some, decoded) if isinstance(found, str)]
                good = [found for found in decoded if not isinstance(found, str)]
                count += len(good)
                if good:
                    out.write(folders.to_float(np.stack(good)).numpy().tobytes())
        _beside(file).unlink(missing_ok=True)  # it describes the old one
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return {"count": count, "skipped": skipped}
