"""Fills the data folders with the course's images.

In this order, saying which it took: files already there; a folder or archives (`--from`, or found
beside the project); the public MedNIST archive, from which the course's images were made; else a
stand-in, hands sampled from the generator whose weights this repository ships.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from utils import config
from utils.data import image_files
from utils.data.archives import DownloadFailed, download, members
from utils.data.hand_images import COURSE_COUNT, FOLDERS, HELD_OUT, course_images, origin
from utils.data.stand_ins import STAND_IN_COUNT, STAND_IN_NOTE, clear_stand_in, write_stand_in

ARCHIVES = ("hands_cw1.tar.gz", "hands_cw2.tar.gz", "real_hands.zip")  # looked for beside the project


PLACES = (".", "..", "../shared/data")


MEDNIST = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/MedNIST.tar.gz"


MEDNIST_MD5 = "0bc7306e7427e00ad1c5526a6677552d"


COURSE_SIDE = 32  # pixels; MedNIST has 64


FILLING = ".filling"  # in real_hands while it is being filled: what a kill leaves behind is not complete


def _complete(root: Path) -> bool:
    """Are the real hands there, and not only a part that an interruption left?"""
    return bool(course_images(root / "real_hands")) and not (root / "real_hands" / FILLING).exists()


def _target(path: PurePosixPath, root: Path, skip_reals: bool) -> Path | None:
    """Where a course file belongs: its parent folder's name decides; None if it is no course file."""
    parent = path.parent.name
    if parent not in FOLDERS or path.suffix.lower() not in (".jpeg", ".jpg"):
        return None
    if parent == "real_hands" and skip_reals:
        return None
    return root / parent / path.name


def from_path(source: Path, root: Path) -> dict[str, int]:
    """Copy the course's images from a folder or archive; returns how many went into which folder.

    The 500 `real_hands` of coursework 2 are images of coursework 1 as well; they are left out
    where coursework 1's are there already.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no archive, or nothing of the course in it.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no '{source}'. --from wants a folder or archive with the course's images.")
    archives = [source]
    if source.is_dir():
        archives = [source / name for name in ARCHIVES if (source / name).is_file()]
    counts: dict[str, int] = {}
    filling = root / "real_hands" / FILLING
    filling.touch()
    for archive in archives:
        has_reals = len(course_images(root / "real_hands")) > 500
        for path, content in members(archive):
            target = _target(path, root, has_reals)
            if target:
                target.write_bytes(content)
                counts[target.parent.name] = counts.get(target.parent.name, 0) + 1
    if source.is_dir():
        for name in FOLDERS:
            if (source / name).resolve() == (root / name).resolve():
                continue
            for path in sorted((source / name).glob("*.jp*g")):
                if path.is_file() and not path.is_symlink():
                    shutil.copyfile(path, root / name / path.name)
                    counts[name] = counts.get(name, 0) + 1
    filling.unlink()
    if not counts:
        raise ValueError(
            f"'{source}' holds none of the course's images. Wanted: a folder or archive with real_hands/*.jpeg "
            "(and VAE_hands, GAN_hands, test_hands for coursework 2)."
        )
    if "real_hands" in counts:
        clear_stand_in(root)
    return counts


def resized_jpeg(mednist: bytes, side: int = COURSE_SIDE) -> bytes:
    """The JPEG of `side` pixels a side of a MedNIST image: bicubic, quality 75, so that the course's 32x32 come out
    pixel for pixel; one that has that size is not touched."""
    image = Image.open(io.BytesIO(mednist))
    if image.size == (side, side):
        return mednist
    out = io.BytesIO()
    image.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=image_files.JPEG_QUALITY)
    return out.getvalue()


def mednist_hands(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names (000000.jpeg ...) and contents of MedNIST's Hand class.

    Raises:
        UnsafeArchive: see `members`.
        ValueError: no archive, or no Hand images in it.
    """
    found = False
    for path, content in members(archive):
        if path.parent.name == "Hand" and re.fullmatch(r"\d{6}\.jpeg", path.name):
            found = True
            yield path.name, content
    if not found:
        raise ValueError(f"'{archive}' holds no Hand/*.jpeg; is it MedNIST?")


def from_mednist(archive: Path, root: Path) -> int:
    """Rebuild `real_hands/000000.jpeg` ... from MedNIST's Hand class; the images that the course
    did not hand out go to `held_out_hands/`. Returns how many were made.

    Raises:
        UnsafeArchive, ValueError: see `mednist_hands`.
    """
    (root / HELD_OUT).mkdir(exist_ok=True)
    filling = root / "real_hands" / FILLING
    filling.touch()
    made = 0
    for name, content in mednist_hands(archive):
        folder = "real_hands" if int(Path(name).stem) < COURSE_COUNT else HELD_OUT
        (root / folder / name).write_bytes(resized_jpeg(content))
        made += 1
    filling.unlink()
    clear_stand_in(root)
    return made


def of_size(side: int, root: Path = config.PROJECT, archive: Path | None = None) -> Path:
    """All of MedNIST's hands, `side` pixels a side, in `hands_<side>/`: made where missing, all or none of them.

    Raises:
        DownloadFailed: no `archive` was given, and the network gave none.
        UnsafeArchive, ValueError: see `mednist_hands`.
    """
    folder, part = root / f"hands_{side}", root / f".hands_{side}.part"
    if folder.is_dir():
        return folder
    archive = archive or download(MEDNIST, root / "runs" / "MedNIST.tar.gz", MEDNIST_MD5)
    shutil.rmtree(part, ignore_errors=True)  # what a kill has left
    part.mkdir()
    for name, content in mednist_hands(archive):
        (part / name).write_bytes(resized_jpeg(content, side))
    return part.rename(folder)


def obtain(
    root: Path = config.PROJECT,
    source: Path | None = None,
    network: bool = True,
    stand_in: Callable[[int], np.ndarray] | None = None,
    report: Callable[[str], None] = print,
) -> str:
    """Fill the data folders from the first source that works; returns `origin(root)`.

    Args:
        root: the project's folder.
        source: a folder or archive to copy from; nothing else is tried then.
        network: may MedNIST be downloaded?
        stand_in: makes N images uint8 (N, 1, 32, 32), as `shipped.hands` does; used where no source has real ones.
        report: is told which source was taken.

    Raises:
        FileNotFoundError, ValueError: `source` was given and is unusable (nothing else is tried).
    """
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    if source:
        report(f"from {source}: {from_path(source, root)}")
        return origin(root)
    found = [root / place / name for place in PLACES for name in ARCHIVES if (root / place / name).is_file()]
    have_reals, have_test = _complete(root), bool(course_images(root / "test_hands"))
    for archive in found:
        if have_test if "cw2" in archive.name else have_reals:
            continue
        report(f"from {archive.name}, found in {archive.parent.resolve().name}/: {from_path(archive, root)}")
        have_reals, have_test = _complete(root), bool(course_images(root / "test_hands"))
    if have_reals:
        report(f"real_hands: {origin(root)}")
        return origin(root)
    if network:
        try:
            archive = download(MEDNIST, root / "runs" / "MedNIST.tar.gz", MEDNIST_MD5)
            report(f"from MedNIST: {from_mednist(archive, root)} images rebuilt")
            return origin(root)
        except (DownloadFailed, ValueError) as error:
            report(f"MedNIST: {error}.")
    if stand_in and not (root / "real_hands" / STAND_IN_NOTE).is_file():
        write_stand_in(stand_in(STAND_IN_COUNT), root)
    report(origin(root))
    return origin(root)
