"""For folders that do not fit into memory: their images are decoded once into one `.npy` file, which NumPy maps.

A mapped array is read from the disk page by page, when it is used. `loop.fit` takes it like any other tensor, because
it only reads one batch at a time.
"""

from __future__ import annotations

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
from utils.files import could_not_write, delete_leftovers, printable, write_atomically

CHUNK = 2000 * 32 * 32  # pixels that are decoded together; they need about 20 MB


def images(folder: str | Path, size: tuple[int, int], file: str | Path) -> tuple[Tensor, list[image_files.Skipped]]:
    """A folder's images, resized to `size` (height, width), as float32 (N, 1, H, W) in [-1, 1], mapped from `file`.

    The first call writes `file` and a description beside it, `file.json`. The format of `file` is `.npy`, whatever its
    name is; each pixel needs 4 bytes. Both are written again if the name, size or date of a file in the folder has
    changed. Do not write to the tensor: if it is larger than memory, this ends the process.

    Returns:
        The tensor, and the files that could not be read, with the reasons.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: the folder holds no usable image.
        OSError: the file cannot be written (no part of it is left), or another process has just written the file from
            other images.
    """
    folder, file = Path(folder), Path(file)
    if not folder.is_dir():
        raise (NotADirectoryError if folder.exists() else FileNotFoundError)(
            f"There is no folder '{printable(folder)}'."
        )
    image_files.refuse_part(folder)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not image_files.is_noise(entry.name))
    if not names:
        raise image_files.no_files(folder)
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(f"{name} {_size_and_date(folder / name)}\n"))
    wanted = {"height_width": list(size), "files": digest.hexdigest()}
    known = _description(file)
    if {key: known.get(key) for key in wanted} != wanted:
        known = wanted | _build(folder, names, size, file)
        write_atomically(_beside(file), json.dumps(known, indent=1).encode())
    count, skipped = known["count"], [image_files.Skipped(*entry) for entry in known["skipped"]]
    if not count:
        raise ValueError(f"'{printable(folder)}' holds no usable image ({len(skipped)} files were set aside).")
    found = _mapped(file)
    if found.shape != (count, 1, *size):
        raise OSError(f"another process has just made '{printable(file)}' from other images: choose another file")
    return found, skipped


def _size_and_date(path: Path) -> str:
    """Size and date of a file, or "unreadable" for a link to a missing file."""
    try:
        found = path.stat()
    except OSError:
        return "unreadable"
    return f"{found.st_size} {found.st_mtime_ns}"


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _header(count: int, size: tuple[int, int]) -> bytes:
    """The header of a `.npy` file of `count` images. NumPy pads it, so its length is the same for every count."""
    begin, shape = io.BytesIO(), (count, 1, *size)
    settings = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(begin, settings)
    return begin.getvalue()


def _description(file: Path) -> dict:
    """The description of `file`. It is empty if the header or the length of `file` does not agree with it."""
    try:
        known = json.loads(_beside(file).read_text(encoding="utf-8"))
        count, size = known["count"], known["height_width"]
        header, length = _header(count, size), 4 * count * math.prod(size)
        with open(file, "rb") as begin:
            whole = begin.read(len(header)) == header and file.stat().st_size == len(header) + length
        return known if whole else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _mapped(file: Path) -> Tensor:
    """The array of a `.npy` file, read from the disk when it is used. Writing to the array never changes the file."""
    try:
        return torch.from_numpy(np.load(file, mmap_mode="c"))
    except OSError:  # the file is larger than memory, and Linux refuses to map it for writing
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(np.load(file, mmap_mode="r"))


def _build(folder: Path, names: list[str], size: tuple[int, int], file: Path) -> dict:
    """Decode all images into the file. Returns the number of images and the files that were set aside."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        delete_leftovers(file.parent, file.name)
        try:
            found = _decode_into(part, folder, names, size)
            _beside(file).unlink(missing_ok=True)  # it describes the old file
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise could_not_write(file, error) from error
    return found


def _decode_into(part: Path, folder: Path, names: list[str], size: tuple[int, int]) -> dict:
    """Decode the images and write them to `part`, as `_build` does.

    The file is not mapped for writing: on a full disk, writing to a mapped array ends the process.
    """
    count, skipped = 0, []
    with open(part, "wb") as out, ThreadPoolExecutor() as pool:
        room = out.write(_header(len(names), size))
        together = max(1, CHUNK // math.prod(size))
        for start in range(0, len(names), together):
            some = names[start : start + together]
            decoded = list(pool.map(lambda name: image_files.decode(folder / name, size, True), some))
            skipped += [(printable(name), found) for name, found in zip(some, decoded) if isinstance(found, str)]
            good = [found for found in decoded if not isinstance(found, str)]
            count += len(good)
            if good:
                out.write(image_files.to_float(np.stack(good)).numpy().data)
        header = _header(count, size)
        assert len(header) == room, "the header does not fit where the first one is"
        out.seek(0)
        out.write(header)
    return {"count": count, "skipped": skipped}
