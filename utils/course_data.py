"""Fill the data folders with the course's images; `python -m utils.course_data --help`.

In this order, saying which it took: files already there; a folder or archives (`--from`, or found
beside the project); the public MedNIST archive, from which the course's images were made; else a
stand-in, hands sampled from the generator whose weights this repository ships.

    python -m utils.course_data --size 64

instead puts MedNIST's hands of another size (64 pixels a side are their own) into `hands_64/`.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils import folders, runs
from utils.archives import DownloadFailed, download, members

FOLDERS = ("real_hands", "VAE_hands", "GAN_hands", "test_hands")
HELD_OUT = "held_out_hands"  # MedNIST's images 8000-9999, which the course did not hand out
ARCHIVES = ("hands_cw1.tar.gz", "hands_cw2.tar.gz", "real_hands.zip")  # looked for beside the project
PLACES = (".", "..", "../shared/data")
MEDNIST = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/MedNIST.tar.gz"
MEDNIST_MD5 = "0bc7306e7427e00ad1c5526a6677552d"
COURSE_COUNT = 8000
COURSE_SIDE = 32  # pixels; MedNIST has 64
FEWEST = 20  # images that a split, a training and the measures make sense with
STAND_IN_COUNT = 2000
FILLING = ".filling"  # in real_hands while it is being filled: what a kill leaves behind is not complete
STAND_IN_NOTE = "STAND_IN.txt"
STAND_IN_TEXT = "stand-in: sampled from this project's generator, not a real X-ray"
WEIGHTS = runs.PROJECT / "weights" / "dcgan_hands.safetensors"


def _images(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*.jp*g") if not p.name.startswith(("username_", "stand_in_"))]


def _complete(root: Path) -> bool:
    """Are the real hands there, and not only a part that an interruption left?"""
    return bool(_images(root / "real_hands")) and not (root / "real_hands" / FILLING).exists()


def _target(path: PurePosixPath, root: Path, skip_reals: bool) -> Path | None:
    """Where a course file belongs: its parent folder's name decides; None if it is no course file."""
    parent = path.parent.name
    if parent not in FOLDERS or path.suffix.lower() not in (".jpeg", ".jpg"):
        return None
    if parent == "real_hands" and skip_reals:
        return None
    return root / parent / path.name


def _clear_stand_in(root: Path) -> None:
    for path in (root / "real_hands").glob("stand_in_*.jpeg"):
        path.unlink()
    (root / "real_hands" / STAND_IN_NOTE).unlink(missing_ok=True)


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
        has_reals = len(_images(root / "real_hands")) > 500
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
        _clear_stand_in(root)
    return counts


def resized_jpeg(mednist: bytes, side: int = COURSE_SIDE) -> bytes:
    """The JPEG of `side` pixels a side of a MedNIST image: bicubic, quality 75, so that the course's 32x32 come out
    pixel for pixel; one that has that size is not touched."""
    image = Image.open(io.BytesIO(mednist))
    if image.size == (side, side):
        return mednist
    out = io.BytesIO()
    image.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=folders.JPEG_QUALITY)
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
    _clear_stand_in(root)
    return made


def of_size(side: int, root: Path = runs.PROJECT, archive: Path | None = None) -> Path:
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


def stand_in(root: Path, count: int = STAND_IN_COUNT) -> None:
    """Write sampled hands, labelled in every JPEG and in a note, so that everything can be tried."""
    from utils.dcgan import DCGAN  # here, because the other sources work without torch

    images = folders.to_uint8(DCGAN.from_weights(WEIGHTS).sample(count, seed=0))
    folders.write_jpegs(images, root / "real_hands", "stand_in", count, replace=True, comment=STAND_IN_TEXT)
    note = f"{STAND_IN_TEXT}.\nReplace it with: python -m utils.course_data --from PATH\n"
    (root / "real_hands" / STAND_IN_NOTE).write_text(note)


def origin(root: Path = runs.PROJECT) -> str:
    """One line that says what `real_hands` holds; every notebook prints it."""
    count = len(_images(root / "real_hands"))
    if count:
        return f"{count} of the course's images in real_hands/"
    if (root / "real_hands" / STAND_IN_NOTE).is_file():
        return "STAND-IN DATA, NOT A RESULT: real_hands/ holds hands sampled from this project's own generator"
    return "real_hands/ is empty"


def run_name(name: str, root: Path = runs.PROJECT) -> str:
    """A run folder's name that keeps what was trained on the stand-in apart from real runs."""
    return f"{name}_stand_in" if origin(root).startswith("STAND-IN") else name


def obtain(root: Path = runs.PROJECT, source: Path | None = None, network: bool = True, report=print) -> str:
    """Fill the data folders from the first source that works; returns `origin(root)`.

    Raises:
        FileNotFoundError, ValueError: `source` was given and is unusable (nothing else is tried).
    """
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    if source:
        report(f"from {source}: {from_path(source, root)}")
        return origin(root)
    found = [root / place / name for place in PLACES for name in ARCHIVES if (root / place / name).is_file()]
    have_reals, have_test = _complete(root), bool(_images(root / "test_hands"))
    for archive in found:
        if have_test if "cw2" in archive.name else have_reals:
            continue
        report(f"from {archive.name}, found in {archive.parent.resolve().name}/: {from_path(archive, root)}")
        have_reals, have_test = _complete(root), bool(_images(root / "test_hands"))
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
    if not (root / "real_hands" / STAND_IN_NOTE).is_file():
        stand_in(root)
    report(origin(root))
    return origin(root)


class Hands(NamedTuple):
    """The hands, split: uint8 (N, 1, 32, 32) each; no image is in two of them."""

    train: np.ndarray
    held_out: np.ndarray
    skipped: list[folders.Skipped]
    origin: str


def load_hands(held_out: int = 2000, seed: int = 0, root: Path = runs.PROJECT) -> Hands:
    """Read `real_hands` without its duplicates and keep a random part out of training; where MedNIST's
    further images are there (`held_out_hands`), they are the held-out part and all the rest is trained on.

    Args:
        held_out: how many images are kept out (at most a quarter of all).
        seed: of the split; the same at every call, in every notebook.

    Raises:
        FileNotFoundError, ValueError: the folder is missing, or holds too few usable images.
    """
    found = folders.drop_duplicates(folders.read(root / "real_hands", pattern="*.jp*g"))
    found = folders.first(found, runs.budget("hands"))
    if len(found.names) < FEWEST:
        raise ValueError(
            f"'{root / 'real_hands'}' holds {len(found.names)} different usable images; {FEWEST} are the least that "
            "can be split, trained on and measured. Fill it with: python -m utils.course_data"
        )
    order = np.random.default_rng(seed).permutation(len(found.names))
    if (root / HELD_OUT).is_dir():
        apart = folders.drop_duplicates(folders.read(root / HELD_OUT, pattern="*.jp*g"))
        return Hands(found.images[order], apart.images, found.skipped + apart.skipped, origin(root))
    cut = min(held_out, len(order) // 4)
    return Hands(found.images[order[cut:]], found.images[order[:cut]], found.skipped, origin(root))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.course_data", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, help="a folder or an archive (.tar.gz, .zip) to copy from")
    parser.add_argument("--no-network", action="store_true", help="do not try to download MedNIST")
    parser.add_argument("--size", type=int, help="MedNIST's hands with so many pixels a side, into hands_SIZE/")
    options = parser.parse_args()
    try:
        if options.size:
            folder = of_size(options.size, archive=options.source)
            print(f"{len(list(folder.iterdir()))} hands in {folder.name}/")
            return
        obtain(source=options.source, network=not options.no_network)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
