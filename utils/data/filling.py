"""Moves verified images into the data folders, all of them or none. Writes stand-ins if there are no real images.

Stand-ins are generated hands that are labelled as stand-ins. With them, everything can be tried without the course's
images.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from utils import files
from utils.data import image_files
from utils.data.hand_images import FOLDERS, STAND_IN_NOTE, STAND_IN_PREFIX, course_images, stand_ins

READY = ".data.ready"  # this folder holds verified files while they are moved to their places
STAND_IN_TEXT = "stand-in: sampled from this project's generator, not a real X-ray"


@contextmanager
def filling(root: Path) -> Iterator[Path]:
    """A hidden folder for new files. They are moved to the data folders if the block ends without an error."""
    part = files.part_folder(root, "data")
    try:
        yield part
        part.rename(root / READY)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    put_in_place(root)


def put_in_place(root: Path) -> None:
    """Move verified files into the data folders. If this is interrupted, the next call finishes it."""
    ready = root / READY
    if ready.is_dir():
        folders = [root / path.name for path in sorted(ready.iterdir())]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            (folder / image_files.FILLING).touch()
        if (ready / "real_hands").is_dir():
            clear_stand_ins(root)
        for path in sorted(ready.glob("*/*")):
            shutil.move(path, root / path.parent.name / path.name)  # a data folder can lie on another disk
        for folder in folders:
            (folder / image_files.FILLING).unlink(missing_ok=True)
        shutil.rmtree(ready)
    for folder in FOLDERS:  # interrupted before the first image was moved: nothing is missing from a source
        marker = root / folder / image_files.FILLING
        if marker.exists() and not course_images(marker.parent):
            marker.unlink()


def refuse_to_replace(part: Path, root: Path) -> None:
    """Check that no image of a data folder would be replaced by another picture of the same name.

    Raises:
        ValueError: one would be replaced. The message names it.
    """
    for path in sorted(part.glob("*/*")):
        there = root / path.parent.name / path.name
        if there.is_file() and there.read_bytes() != path.read_bytes():
            pictures = [image_files.decode(image, (32, 32), resize=True) for image in (path, there)]
            if not np.array_equal(*pictures):  # another writer of JPEGs may give the same picture in other bytes
                raise ValueError(
                    f"'{files.printable(there)}' is there already, with another picture. Nothing was changed. "
                    f"Move the folder '{there.parent.name}' to another place first, if you want the new images."
                )


def add(part: Path, folder: str, name: str, content: bytes) -> None:
    """Write a file for the data folder `folder` into the hidden folder `part`.

    Raises:
        ValueError: there is already a different file of this name.
    """
    (part / folder).mkdir(exist_ok=True)
    path = part / folder / name
    if path.exists() and path.read_bytes() != content:
        raise ValueError(
            f"there are two different files named {folder}/{files.printable(name)}; leave one of them out."
        )
    path.write_bytes(content)


def write_stand_ins(images: np.ndarray, root: Path) -> None:
    """Write generated hands uint8 (N, 1, 32, 32) to `real_hands/`. Each JPEG and a note say that they are stand-ins.

    Raises:
        ValueError: `real_hands` holds images of the course.
        OSError: the folder cannot be written to.
    """
    folder = root / "real_hands"
    if course_images(folder):
        raise ValueError(f"'{folder}' holds images of the course; stand-ins are never written beside them.")
    prefix = STAND_IN_PREFIX.rstrip("_")
    image_files.write_jpegs(images, folder, prefix, len(images), replace=True, comment=STAND_IN_TEXT)
    note = f"{STAND_IN_TEXT}.\nReplace it with: python -m utils data --from PATH\n"
    (folder / STAND_IN_NOTE).write_text(note, encoding="utf-8")  # last: the note means that all are there


def clear_stand_ins(root: Path) -> None:
    """Delete the stand-in images and their note."""
    for path in stand_ins(root / "real_hands"):
        path.unlink(missing_ok=True)
    (root / "real_hands" / STAND_IN_NOTE).unlink(missing_ok=True)
