"""The real hands: what their folder holds, and the split into training and held-out images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import budgets, config
from utils.data import image_files

FOLDERS = ("real_hands", "VAE_hands", "GAN_hands", "test_hands")
COURSE_COUNT = 8000  # number of real hands that the course handed out
HELD_OUT = "held_out_hands"  # MedNIST's hands 8000 to 9999, which the course did not hand out
STAND_IN_PREFIX, STAND_IN_NOTE = "stand_in_", config.STAND_IN_NOTE
# Images that this project has made: `<username>_001.jpeg`, stand-ins, and samples of the shipped models.
# A username can have points, hyphens and underscores: acse-ab1223, edsml_ab123. `real_hand` and `test_hand` are none.
USERNAME = r"(?!(?:real|test)_hand_)[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*"
MADE = re.compile(rf"(?:{USERNAME}|{'|'.join(config.SHIPPED)})_\d{{3,}}\..+|{STAND_IN_PREFIX}.*")

HELD_OUT_COUNT = 2000  # at most this many images are kept out of training
HELD_OUT_SHARE = 4  # at most one image in four is held out
# Coursework 1 compares 300 of the held-out images, as many as are handed in, with the other held-out images. The
# two-sample test splits these others into ten folds, and each fold needs two of them. Precision and recall need more
# than five of them.
FLOOR_COUNT, LEAST_REFERENCE = 300, 20
LEAST_HELD_OUT = FLOOR_COUNT + LEAST_REFERENCE
LEAST_HANDS = HELD_OUT_SHARE * LEAST_HELD_OUT


def is_course_name(name: str) -> bool:
    """Can this be the name of a course image? It is not if the name is like those of the images that we make."""
    return not MADE.fullmatch(name)


def course_images(folder: Path) -> list[Path]:
    """The course's image files in a folder."""
    return [path for path in image_files.image_paths(folder) if is_course_name(path.name)]


def stand_ins(folder: Path) -> list[Path]:
    """The stand-in images in a folder."""
    return [path for path in image_files.image_paths(folder) if path.name.startswith(STAND_IN_PREFIX)]


def kind(root: Path = config.PROJECT) -> str:
    """What `real_hands` holds: "course", "stand-in" or "nothing".

    Raises:
        ValueError: the folder holds both kinds, or only a part of the course's images. The message says what to do.
    """
    folder = root / "real_hands"
    real, made = len(course_images(folder)), len(stand_ins(folder))
    if real and made:
        raise ValueError(
            f"'{folder}' holds {real} of the course's images and {made} stand-ins, and these must not be mixed. "
            f"Delete the stand-ins, which are the files {STAND_IN_PREFIX}* and {STAND_IN_NOTE}, and run again: "
            "python -m utils data"
        )
    image_files.refuse_part(folder)
    return "course" if real else "stand-in" if made else "nothing"


def origin(root: Path = config.PROJECT) -> str:
    """One line that says what `real_hands` holds. Every notebook prints it.

    Raises:
        ValueError: see `kind`.
    """
    count = min(len(course_images(root / "real_hands")), COURSE_COUNT)  # coursework 2's 500 can be there twice
    return {
        "course": f"{count} of the course's {COURSE_COUNT} images in real_hands/",
        "stand-in": "STAND-IN DATA, NOT A RESULT: real_hands/ holds hands sampled from this project's own generator",
        "nothing": "real_hands/ holds none of the course's images",
    }[kind(root)]


def least_hands(root: Path = config.PROJECT) -> int:
    """The number of different images that `load_hands` needs in `real_hands`."""
    return FLOOR_COUNT if (root / HELD_OUT).is_dir() else LEAST_HANDS


def run_name(name: str, root: Path = config.PROJECT) -> str:
    """The name of a run folder. Runs on stand-ins and runs on real images have different folders."""
    return f"{name}_stand_in" if kind(root) == "stand-in" else name


def read_real(root: Path = config.PROJECT) -> image_files.ImageFolder:
    """The images of `real_hands` without duplicates, uint8 (N, 1, 32, 32), in name order.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no usable image; see also `kind`.
    """
    kind(root)
    found = image_files.drop_duplicates(image_files.read(root / "real_hands"))
    skipped = [file for file in found.skipped if file.name != STAND_IN_NOTE]
    return image_files.ImageFolder(found.images, found.names, skipped)


class Hands(NamedTuple):
    """Training images and held-out images, uint8 (N, 1, 32, 32) each. No image is in both parts."""

    train: np.ndarray
    held_out: np.ndarray
    skipped: list[image_files.Skipped]
    origin: str


def load_hands(root: Path = config.PROJECT) -> Hands:
    """Read `real_hands` without duplicates and hold out a random part of the images.

    The split is the same at every call and in every notebook. If there is a folder `held_out_hands`, its images are the
    held-out part, and all images of `real_hands` are training images.

    Raises:
        FileNotFoundError: there is no folder `real_hands`.
        ValueError: there are too few usable images. The message names the number that is needed. See also `kind`.
    """
    found = image_files.first(read_real(root), budgets.reading().hands)
    order = np.random.default_rng(0).permutation(len(found.names))
    if (root / HELD_OUT).is_dir():
        apart = image_files.read(root / HELD_OUT)
        names = found.names + [f"{HELD_OUT}/{name}" for name in apart.names]
        both = np.concatenate([found.images, apart.images]), names, found.skipped + apart.skipped
        both = image_files.drop_duplicates(image_files.ImageFolder(*both))  # keeps all of `found`
        held_out = both.images[len(order) :]
        _check_count(root / "real_hands", len(order), least_hands(root))
        _check_count(root / HELD_OUT, len(held_out), LEAST_HELD_OUT)
        return Hands(found.images[order], held_out, both.skipped, origin(root))
    _check_count(root / "real_hands", len(found.names), least_hands(root))
    cut = min(HELD_OUT_COUNT, len(order) // HELD_OUT_SHARE)
    return Hands(found.images[order[cut:]], found.images[order[:cut]], found.skipped, origin(root))


def _check_count(folder: Path, count: int, least: int) -> None:
    if count < least:
        raise ValueError(
            f"'{folder}' holds {count} different usable images, but at least {least} are needed: {FLOOR_COUNT} of the "
            "held-out images, as many as are handed in, are compared with the others. "
            "Fill it with: python -m utils data"
        )
