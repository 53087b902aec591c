"""Fills the data folders with the course's images.

With `--from`, the images come from the given folder or archive. Otherwise, the first of these sources that works is
used, and its name is printed:

1. images that are already there
2. an archive that is found beside the project
3. the public data set MedNIST, from which the course made its images
4. stand-ins: hands sampled from the generator whose weights this repository ships

A source is first read and verified to its end, in a hidden folder. After that, its files are moved to their places. A
damaged archive or an early interruption changes nothing. If the moving is interrupted, the next start finishes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from utils import config, files
from utils.data import archives, hand_images, image_files
from utils.data.filling import add, filling, put_in_place, refuse_to_replace, write_stand_ins
from utils.data.hand_images import COURSE_COUNT, FOLDERS, HELD_OUT, course_images, origin

ARCHIVES = ("hands_cw1.tar.gz", "hands_cw2.tar.gz", "real_hands.zip")  # looked for beside the project
PLACES = (".", "..", "../shared/data")
CW2_REAL_PREFIX = "real_hand_"  # coursework 2's `real_hands` have these names; they are 500 of coursework 1's images
COURSE_SIDE = 32  # side of the course's images in pixels
STAND_IN_COUNT = 2000
LEFT_OUT = "left out, because they are not JPEG files of the course"


def _files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (data folder, name, content) of each file of a source.

    The source is an archive, a folder of archives, or a folder that holds data folders.
    """
    if not source.is_dir():
        for path, content in archives.members(source):
            if path.parent.name in FOLDERS and not any(map(image_files.is_noise, path.parts)):
                yield path.parent.name, path.name, content
        return
    for name in ARCHIVES:
        if (source / name).is_file():
            yield from _files(source / name)
    for folder in FOLDERS:
        for path in sorted((source / folder).glob("*")):
            if path.is_file() and not image_files.is_noise(path.name):
                yield folder, path.name, path.read_bytes()


def from_path(source: Path, root: Path) -> dict[str, int]:
    """Copy the course's images from a folder or archive, all or none.

    The 500 `real_hands` of coursework 2 are also images of coursework 1. They are left out if coursework 1's images are
    already there.

    Returns:
        The number of files for each data folder, and the number of files that were left out.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: an archive is damaged or unsafe, the source holds none of the course's images, or an image would
            replace another picture of the same name.
        OSError: the data folders cannot be written to.
    """
    if not source.exists():
        raise FileNotFoundError(
            f"There is no '{files.printable(source)}'. --from needs a folder or archive with the course's images."
        )
    counts: dict[str, int] = {}
    have_reals = _have_reals(root)
    with filling(root) as part:
        for folder, name, content in _files(source):
            if name.startswith(CW2_REAL_PREFIX) and have_reals:
                continue
            if image_files.is_jpeg(name) and hand_images.is_course_name(name):
                add(part, folder, name, content)
                have_reals = have_reals or folder == "real_hands" and not name.startswith(CW2_REAL_PREFIX)
            else:
                folder = LEFT_OUT
            counts[folder] = counts.get(folder, 0) + 1
        if not counts.keys() & set(FOLDERS):
            raise ValueError(
                f"'{files.printable(source)}' holds none of the course's images. It must be a folder or archive with "
                "real_hands/*.jpeg (and VAE_hands, GAN_hands, test_hands for coursework 2)."
            )
        refuse_to_replace(part, root)
    return counts


def from_mednist(archive: Path, root: Path) -> int:
    """Rebuild `real_hands/000000.jpeg` ... from MedNIST's Hand class. Returns the number of images.

    The images that the course did not hand out go to `held_out_hands/`.

    Raises:
        FileNotFoundError, UnsafeArchive, ValueError: see `archives.mednist_hands`.
        OSError: the data folders cannot be written to.
    """
    made = 0
    with filling(root) as part:
        for name, content in archives.mednist_hands(archive):
            folder = "real_hands" if int(Path(name).stem) < COURSE_COUNT else HELD_OUT
            add(part, folder, name, archives.resized_jpeg(content, COURSE_SIDE))
            made += 1
    return made


def of_size(
    side: int,
    root: Path = config.PROJECT,
    archive: Path | None = None,
    network: bool = True,
    report: Callable[[str], None] = print,
) -> Path:
    """The folder `hands_<side>/` with all of MedNIST's hands, `side` x `side` pixels. It is made if it is missing.

    Raises:
        DownloadFailed: no `archive` was given, and it could not be downloaded.
        FileNotFoundError, UnsafeArchive, ValueError: see `archives.mednist_hands`.
        ValueError: `side` is not between 1 and 8192, or an archive was given and the folder is already there.
        OSError: the folder cannot be written.
    """
    if not 1 <= side <= image_files.LARGEST_SIDE:
        raise ValueError(f"--size is the number of pixels a side, from 1 to {image_files.LARGEST_SIDE}, not {side}")
    folder = root / f"hands_{side}"
    if folder.is_dir() and archive:
        raise ValueError(f"'{folder.name}' is there already. Remove it first, to make it again from the archive.")
    if folder.is_dir():
        return folder
    archive = archive or archives.mednist(root, network, report)
    part = files.part_folder(root, folder.name)
    try:
        for name, content in archives.mednist_hands(archive):
            (part / name).write_bytes(archives.resized_jpeg(content, side))
        return part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _found_archives(root: Path) -> list[Path]:
    return [root / place / name for place in PLACES for name in ARCHIVES if (root / place / name).is_file()]


def _have_reals(root: Path) -> bool:
    """Are real hands of coursework 1 there, complete as their source had them? Coursework 2's 500 alone are too few."""
    found = course_images(root / "real_hands")
    others = any(not path.name.startswith(CW2_REAL_PREFIX) for path in found)
    return others and not (root / "real_hands" / image_files.FILLING).exists()


def obtain(
    root: Path = config.PROJECT,
    source: Path | None = None,
    network: bool = True,
    stand_in: Callable[[int], np.ndarray] | None = None,
    report: Callable[[str], None] = print,
) -> str:
    """Fill the data folders from the first source that works. Returns `origin(root)`.

    Args:
        root: the project's folder.
        source: a folder or archive to copy from. If it is given, no other source is tried.
        network: whether MedNIST may be downloaded.
        stand_in: makes N images uint8 (N, 1, 32, 32), such as `shipped.hands`; used if no source has real images.
        report: is called with each line that says what was done.

    Raises:
        FileNotFoundError, ValueError: `source` was given and cannot be used. Nothing has changed.
        ValueError: `real_hands` holds a mixture, or a part of the images that cannot be completed; see
            `hand_images.kind`.
        OSError: the data folders cannot be written to.
    """
    put_in_place(root)
    if source:
        report(f"from {files.printable(source)}: {_in_words(from_path(source, root))}")
    else:
        _obtain_from_anywhere(root, network, stand_in, report)
    found, count = origin(root), len(course_images(root / "real_hands"))
    report(found)
    if 0 < count < hand_images.least_hands(root):
        report(
            f"{count} images are too few for coursework 1, which needs at least {hand_images.least_hands(root)}. "
            "Get the others from the course's archive: python -m utils data --from hands_cw1.tar.gz. Or move these "
            "images to another place and run python -m utils data, which gets all images from MedNIST."
        )
    return found


def _in_words(counts: dict[str, int]) -> str:
    """The result of `from_path` as a text for the user."""
    return ", ".join(f"{n} file(s) {LEFT_OUT if to == LEFT_OUT else f'for {to}/'}" for to, n in counts.items())


def _obtain_from_anywhere(
    root: Path, network: bool, stand_in: Callable[[int], np.ndarray] | None, report: Callable[[str], None]
) -> None:
    """Try the sources one after another, as `obtain` does without a `source`."""
    if course_images(root / "real_hands") and hand_images.stand_ins(root / "real_hands"):
        return  # the error of `origin` says what to do
    for archive in _found_archives(root):
        have_tests = course_images(root / "test_hands") and not (root / "test_hands" / image_files.FILLING).exists()
        have_it = have_tests if "cw2" in archive.name else _have_reals(root)
        if not have_it:
            try:
                counts = from_path(archive, root)
                report(f"from {archive.name}, found in {archive.parent.resolve().name}/: {_in_words(counts)}")
            except ValueError as error:
                report(f"{error} The next source is tried.")
    if not _have_reals(root):
        try:
            made = from_mednist(archives.mednist(root, network, report), root)
            report(f"from MedNIST: {made} images rebuilt")
        except (archives.DownloadFailed, ValueError) as error:
            report(f"MedNIST: {error}")
    kind, note = hand_images.kind(root), root / "real_hands" / hand_images.STAND_IN_NOTE
    has_stand_ins = kind == "stand-in" and note.exists()  # the note is written last
    if stand_in and kind != "course" and not has_stand_ins:
        report(f"making {STAND_IN_COUNT} stand-ins with the shipped generator, which takes about half a minute")
        write_stand_ins(stand_in(STAND_IN_COUNT), root)
