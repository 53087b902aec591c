"""The real hands: what the folder holds, and the split into training and held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import budgets, config
from utils.data import image_files
from utils.data.stand_ins import STAND_IN_NOTE

FOLDERS = ("real_hands", "VAE_hands", "GAN_hands", "test_hands")
HELD_OUT = "held_out_hands"  # MedNIST's images 8000-9999, which the course did not hand out
COURSE_COUNT = 8000
FEWEST = 20  # images that a split, a training and the measures make sense with


def course_images(folder: Path) -> list[Path]:
    """The course's own JPEG files in a folder: neither the samples of this project nor stand-ins."""
    return [p for p in folder.glob("*.jp*g") if not p.name.startswith(("username_", "stand_in_"))]


def origin(root: Path = config.PROJECT) -> str:
    """One line that says what `real_hands` holds; every notebook prints it."""
    count = len(course_images(root / "real_hands"))
    if count:
        return f"{count} of the course's images in real_hands/"
    if (root / "real_hands" / STAND_IN_NOTE).is_file():
        return "STAND-IN DATA, NOT A RESULT: real_hands/ holds hands sampled from this project's own generator"
    return "real_hands/ is empty"


def run_name(name: str, root: Path = config.PROJECT) -> str:
    """A run folder's name that keeps what was trained on the stand-in apart from real runs."""
    return f"{name}_stand_in" if origin(root).startswith("STAND-IN") else name


class Hands(NamedTuple):
    """The hands, split: uint8 (N, 1, 32, 32) each; no image is in two of them."""

    train: np.ndarray
    held_out: np.ndarray
    skipped: list[image_files.Skipped]
    origin: str


def load_hands(held_out: int = 2000, seed: int = 0, root: Path = config.PROJECT) -> Hands:
    """Read `real_hands` without its duplicates and keep a random part out of training; where MedNIST's
    further images are there (`held_out_hands`), they are the held-out part and all the rest is trained on.

    Args:
        held_out: how many images are kept out (at most a quarter of all).
        seed: of the split; the same at every call, in every notebook.

    Raises:
        FileNotFoundError, ValueError: the folder is missing, or holds too few usable images.
    """
    found = image_files.drop_duplicates(image_files.read(root / "real_hands", pattern="*.jp*g"))
    found = image_files.first(found, budgets.reading().hands)
    if len(found.names) < FEWEST:
        raise ValueError(
            f"'{root / 'real_hands'}' holds {len(found.names)} different usable images; {FEWEST} are the least that "
            "can be split, trained on and measured. Fill it with: python -m utils data"
        )
    order = np.random.default_rng(seed).permutation(len(found.names))
    if (root / HELD_OUT).is_dir():
        apart = image_files.drop_duplicates(image_files.read(root / HELD_OUT, pattern="*.jp*g"))
        return Hands(found.images[order], apart.images, found.skipped + apart.skipped, origin(root))
    cut = min(held_out, len(order) // 4)
    return Hands(found.images[order[cut:]], found.images[order[:cut]], found.skipped, origin(root))
