"""Stand-in images for `real_hands/`: generated hands, labelled as such, so that everything can be tried without data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.data import image_files

STAND_IN_COUNT = 2000
STAND_IN_NOTE = "STAND_IN.txt"
STAND_IN_TEXT = "stand-in: sampled from this project's generator, not a real X-ray"


def write_stand_in(images: np.ndarray, root: Path) -> None:
    """Write generated hands uint8 (N, 1, 32, 32) to `real_hands/`, labelled in every JPEG and in a note."""
    folder = root / "real_hands"
    image_files.write_jpegs(images, folder, "stand_in", len(images), replace=True, comment=STAND_IN_TEXT)
    note = f"{STAND_IN_TEXT}.\nReplace it with: python -m utils data --from PATH\n"
    (folder / STAND_IN_NOTE).write_text(note, encoding="utf-8")


def clear_stand_in(root: Path) -> None:
    """Delete the stand-in images and their note."""
    for path in (root / "real_hands").glob("stand_in_*.jpeg"):
        path.unlink()
    (root / "real_hands" / STAND_IN_NOTE).unlink(missing_ok=True)
