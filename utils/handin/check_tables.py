"""Checks of files with numbers: the labels of the test images (CSV) and the filled head images (NumPy).

A check returns what it found. It raises `Failed` if the requirement is not met, and `Unchecked` if it cannot decide.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from utils.data import head_images
from utils.handin.inspection import Failed, Unchecked, content, find, text

HEADS = (100, 1, 64, 64)
TOLERANCE = 1e-6  # largest allowed change of a known pixel in [0, 1]


def csv(folder: Path, name: str, lines: int) -> str:
    """There is a line '<file>, <0, 1 or 2>' for each test file, in name order."""
    name = find(folder, name)
    rows = text(folder, name).splitlines()
    for number, row in enumerate(rows, start=1):
        if not re.fullmatch(r"test_hand_\d+\.jpeg, ?[012]", row):
            raise Failed(f"{name}, line {number}: '{row[:50]}' is not '<file>, <0, 1 or 2>'")
    names = [row.split(",")[0] for row in rows]
    if len(set(names)) < len(names):
        raise Failed(f"{name} has {len(names) - len(set(names))} lines too many: it names some files more than once")
    if names != sorted(names):
        raise Failed(f"the lines of {name} are not in name order")
    if len(rows) != lines:
        raise Failed(f"{name} has {len(rows)} lines, not {lines}")
    return f"{len(rows)} lines"


def filled(folder: Path, name: str) -> str:
    """The filled test images have the right shape and range. Known pixels are unchanged, and no gap is left."""
    name = find(folder, name)
    try:
        images = head_images.load_array(content(folder, name), name)
    except ValueError as error:
        raise Failed(str(error)) from error
    if images.shape != HEADS:
        raise Failed(f"{name} has shape {images.shape}, not {HEADS}")
    if images.dtype.kind != "f" or not np.isfinite(images).all():
        raise Failed(f"{name} holds {images.dtype}; it must hold floats without NaN and infinity")
    if images.min() < 0 or images.max() > 1:
        raise Failed(f"{name} has values from {images.min():.2f} to {images.max():.2f}, outside [0, 1]")
    try:
        given = head_images.read(head_images.find("test_set.npy"), report=lambda change: None)
    except (FileNotFoundError, ValueError) as error:
        raise Unchecked("shape and range are right; the check of the known pixels needs test_set.npy") from error
    missing = (given == 0).all(axis=(0, 1))  # a missing pixel is 0 in every image
    changed = np.abs(images - given)[:, :, ~missing]
    if changed.max() > TOLERANCE:
        count = (changed > TOLERANCE).any(axis=(1, 2)).sum()
        raise Failed(f"known pixels of {count} images were changed, by up to {changed.max():.3f}")
    if (images[:, :, missing] == 0).all(axis=(1, 2)).any():
        raise Failed("an image still has its gaps")
    return f"{HEADS}, known pixels unchanged"
