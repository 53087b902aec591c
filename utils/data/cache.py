"""Folders of more images than memory holds: decoded once into one `.npy` file, which NumPy maps and reads by the page.

`loop.fit` takes the mapped tensor like any other: it only ever asks for a batch of it.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.data import image_files
from utils.files import write_atomically

CHUNK = 2000 * 32 * 32  # pixels that are decoded at a time: some 20 MB


def images(folder: str | Path, size: tuple[int, int], file: str | Path) -> tuple[Tensor, list[image_files.Skipped]]:
    """A folder's images, brought to `size` (width, height), as float32 (N, 1, H, W) in [-1, 1], mapped from `file`.

    The file (`.npy`, 4 bytes a pixel, under whatever name) and a description beside it, `file.json`, are made at the
    first call, and again where a name, size or date of the folder's files has changed. What could not be read is in
    the list, as of `image_files.read`. The tensor is for reading: where it is larger than memory, writing to it crashes.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: it holds no usable image.
        OSError: the disk is full; nothing is left behind. Or another process has made the file anew from other images.
    """
    folder, file = Path(folder), Path(file)
    if not folder.is_dir():
        raise (NotADirectoryError if folder.exists() else FileNotFoundError)(f"There is no folder '{folder}'.")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(f"{name} {_mark(folder / name)}\n"))
    wanted = {"size": list(size), "files": digest.hexdigest()}
    known = _description(file)
    if {key: known.get(key) for key in wanted} != wanted:
        known = wanted | _build(folder, names, size, file)
        write_atomically(_beside(file), json.dumps(known, indent=1).encode())
    count, skipped = known["count"], [image_files.Skipped(*entry) for entry in known["skipped"]]
    if not count:
        raise ValueError(f"'{folder}' holds no usable image ({len(skipped)} files were set aside).")
    found = _mapped(file)
    if found.shape != (count, 1, size[1], size[0]):
        raise OSError(f"another process has just made '{file}' from other images: choose another file")
    return found, skipped


def _mark(path: Path) -> str:
    """Size and date of a file; of a broken link, nothing."""
    try:
        found = path.stat()
    except OSError:
        return "unreadable"
    return f"{found.st_size} {found.st_mtime_ns}"


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _header(count: int, size: tuple[int, int]) -> bytes:
    """How a `.npy` file of so many images begins; NumPy leaves room, so that the length is that of any other count."""
    begin, shape = io.BytesIO(), (count, 1, size[1], size[0])
    settings = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(begin, settings)
    return begin.getvalue()


def _description(file: Path) -> dict:
    """What the description says, if the file begins and is as long as it should be; else nothing."""
    try:
        known = json.loads(_beside(file).read_text(encoding="utf-8"))
        header, length = _header(known["count"], known["size"]), 4 * known["count"] * math.prod(known["size"])
        with open(file, "rb") as begin:
            whole = begin.read(len(header)) == header and file.stat().st_size == len(header) + length
        return known if whole else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _mapped(file: Path) -> Tensor:
    """The array of a `.npy` file, read when it is used; nothing that is written to it reaches the file."""
    try:
        return torch.from_numpy(np.load(file, mmap_mode="c"))
    except OSError:  # Linux refuses a mapping that may be written to, and so take memory, if it is larger than memory
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(np.load(file, mmap_mode="r"))


def _alive(pid: str) -> bool:
    """Is there such a process? Yes where one cannot know."""
    if os.name == "nt":  # there, os.kill would end it
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass
    return True


def _build(folder: Path, names: list[str], size: tuple[int, int], file: Path) -> dict:
    """Decode all into the file; returns how many, and what was set aside."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{glob.escape(file.name)}.*.part"):
        if not _alive(left.name.split(".")[-2]):  # it was killed; a living process will need its own
            left.unlink(missing_ok=True)
    part, count, skipped = file.with_name(f".{file.name}.{os.getpid()}.part"), 0, []
    try:
        # Not by way of a mapping: on a full disk, writing to one ends the process.
        with open(part, "wb") as out, ThreadPoolExecutor() as pool:
            room = out.write(_header(len(names), size))
            together = max(1, CHUNK // math.prod(size))
            for start in range(0, len(names), together):
                some = names[start : start + together]
                decoded = list(pool.map(lambda name: image_files.decode(folder / name, size, True), some))
                skipped += [(name, found) for name, found in zip(some, decoded) if isinstance(found, str)]
                good = [found for found in decoded if not isinstance(found, str)]
                count += len(good)
                if good:
                    out.write(image_files.to_float(np.stack(good)).numpy().data)
            header = _header(count, size)
            assert len(header) == room, "the header does not fit where the first one is"
            out.seek(0)
            out.write(header)
        _beside(file).unlink(missing_ok=True)  # it describes the old one
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return {"count": count, "skipped": skipped}
