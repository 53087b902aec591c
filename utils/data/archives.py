"""Reads archives and verifies them to their end. Downloads the public archive MedNIST and reads its hands."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from utils.data.image_files import JPEG_QUALITY
from utils.files import printable

PATIENCE = 5  # seconds to wait for an answer from the network
LARGEST_FILE = 50_000_000  # bytes; the course's images are about 1000 bytes long
LARGEST_COUNT = 200_000  # files in an archive; MedNIST holds about 59,000
MEDNIST = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/MedNIST.tar.gz"
MEDNIST_MD5 = "0bc7306e7427e00ad1c5526a6677552d"
MEDNIST_MEGABYTES = 59
ZIP_BEGINNINGS = (b"PK\3\4", b"PK\5\6")  # the second one: a zip file without members


class UnsafeArchive(ValueError):
    """The archive holds something that must not be extracted."""


class DownloadFailed(OSError):
    """There is no network, or the downloaded file is not the expected archive."""


class Member(NamedTuple):
    """One file of an archive: its path in the archive and its content."""

    path: PurePosixPath
    content: bytes


def members(archive: Path) -> Iterator[Member]:
    """The files of an archive (.zip, .tar, .tar.gz, .tar.xz, .tar.bz2), one after the other.

    Damage is often found only at the end, when the check sums are compared. So write the files into a hidden folder
    first. Use them only after the last file has been read without an error.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeArchive: a path leads out of the folder, a file is a link or far too large, or there are too many files.
        ValueError: the file is not an archive, or the archive is damaged or incomplete.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"There is no archive '{printable(archive)}'.")
    try:
        with open(archive, "rb") as file:
            is_zip = file.read(4) in ZIP_BEGINNINGS
        for count, member in enumerate(_zip_members(archive) if is_zip else _tar_members(archive), start=1):
            if count > LARGEST_COUNT:
                raise UnsafeArchive(f"it holds more than {LARGEST_COUNT} files")
            yield member
    except UnsafeArchive as error:
        raise UnsafeArchive(f"'{printable(archive)}' was refused: {error}.") from error
    except Exception as error:  # the readers raise many kinds of error, and all mean the same
        first_line = f"{error}".partition("\n")[0].rstrip(":")  # tarfile also gives a line for each compression
        reason = printable(first_line) or type(error).__name__
        raise ValueError(
            f"'{printable(archive)}' is not a complete .tar.gz or .zip archive ({reason}). Get a new copy of it."
        ) from error


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir():
                path = _checked_path(info.filename, info.file_size)
                yield Member(path, file.read(info))  # compares the CRC


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as tar:
        for info in tar:
            if not info.isdir():
                path = _checked_path(info.name, info.size)
                if not info.isfile():
                    raise UnsafeArchive(f"its member '{printable(path)}' is a link or a device")
                yield Member(path, tar.extractfile(info).read())
        # tarfile treats a damaged header as the end of the archive. But after the true end, there are only zeros. So
        # the rest is read here. Reading to the last byte also makes gzip, bzip2 and xz compare their check sums.
        tar.fileobj.seek(tar.offset)
        length = 0
        while block := tar.fileobj.read(1 << 20):
            if block.strip(b"\0"):
                raise ValueError("the header of a member is damaged")
            length += len(block)
        if not length:
            raise ValueError("its end is missing")


def _checked_path(name: str, size: int) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise UnsafeArchive(f"its member '{printable(name)}' points outside the folder")
    if size > LARGEST_FILE:
        raise UnsafeArchive(f"its member '{printable(name)}' is too large ({size / 1e6:.0f} MB)")
    return path


def download(url: str, path: Path, md5: str) -> Path:
    """Download a file with a progress bar and compare its check sum. A correct file that is already there is kept.

    Raises:
        DownloadFailed: there was no answer within PATIENCE seconds, the connection broke, or the check sum is wrong.
            The downloaded part is deleted.
    """
    import pooch  # here, because only a download needs it

    if _is_whole(path, md5):
        return path
    pooch.get_logger().setLevel("WARNING")
    fetch = pooch.HTTPDownloader(timeout=PATIENCE, progressbar=True)
    _wait_for_answer(url, fetch)
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch))
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"the download of {url} failed ({error})") from error


def _is_whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def _wait_for_answer(url: str, fetch) -> None:
    """Return as soon as the server has given any answer.

    A thread asks the server, because there is no time limit for finding the server's address.
    """
    failed = [f"no answer within {PATIENCE} s"]

    def ask() -> None:
        try:
            fetch(url, None, None, check_only=True)
            failed.clear()
        except OSError as error:
            failed[:] = [type(error).__name__]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)
    if failed:
        raise DownloadFailed(f"the network gave no answer for {url} ({failed[0]})")


def mednist(root: Path, network: bool, report: Callable[[str], None]) -> Path:
    """The path of MedNIST's archive in `runs/`. With `network`, a missing or damaged archive is downloaded.

    `report` is called before the download.

    Raises:
        DownloadFailed: the download failed, or the archive is missing and `network` is False.
    """
    path = root / "runs" / "MedNIST.tar.gz"
    if network:
        if not _is_whole(path, MEDNIST_MD5):
            why = f"runs/{path.name} is damaged: " if path.is_file() else ""
            report(f"{why}downloading MedNIST, {MEDNIST_MEGABYTES} MB, to runs/{path.name} (only once)")
        return download(MEDNIST, path, MEDNIST_MD5)
    if not path.is_file():
        raise DownloadFailed(f"runs/{path.name} is missing, and nothing may be downloaded (--no-network)")
    return path


def resized_jpeg(jpeg: bytes, side: int) -> bytes:
    """A JPEG of MedNIST, resized to `side` x `side` pixels. A JPEG that already has this size is returned unchanged.

    The resizing is bicubic, and the JPEG quality is 75. At 32 x 32, this gives exactly the course's images.

    Raises:
        ValueError: the bytes are not a complete JPEG.
    """
    try:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        if image.size == (side, side):
            return jpeg
        out = io.BytesIO()
        image.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=JPEG_QUALITY)
    except OSError as error:
        raise ValueError(f"an image of MedNIST is damaged ({error}).") from error
    return out.getvalue()


def mednist_hands(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names (000000.jpeg ...) and contents of MedNIST's Hand class.

    Raises:
        FileNotFoundError, UnsafeArchive, ValueError: see `members`.
        ValueError: the archive holds no Hand images.
    """
    found = False
    for path, content in members(archive):
        if path.parent.name == "Hand" and re.fullmatch(r"\d{6}\.jpeg", path.name):
            found = True
            yield path.name, content
    if not found:
        raise ValueError(f"'{printable(archive)}' holds no Hand/*.jpeg; is it MedNIST?")
