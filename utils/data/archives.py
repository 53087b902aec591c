"""Files from elsewhere: archives that are checked before anything is extracted, resumable downloads."""

from __future__ import annotations

import hashlib
import re
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import requests
from tqdm import tqdm

PATIENCE = 5  # seconds that a silent network is waited for
LARGEST_FILE = 50_000_000  # bytes; no image of the course comes near it
LARGEST_COUNT = 200_000  # files in an archive; MedNIST holds about 59,000


class UnsafeArchive(ValueError):
    """The archive holds something that must not be extracted."""


class DownloadFailed(OSError):
    """The public archive could not be fetched, or is not the one expected."""


class Member(NamedTuple):
    """One file of an archive: its path inside and its bytes."""

    path: PurePosixPath
    content: bytes


def _check(name: str, size: int, regular: bool, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise UnsafeArchive(f"'{archive}' was refused: its member '{name}' points outside the folder.")
    if not regular:
        raise UnsafeArchive(f"'{archive}' was refused: its member '{name}' is a link or a device.")
    if size > LARGEST_FILE:
        raise UnsafeArchive(f"'{archive}' was refused: its member '{name}' has {size / 1e6:.0f} MB.")
    return path


def members(archive: Path) -> Iterator[Member]:
    """The files of a .tar.gz or .zip archive, once all of its names have been found harmless.

    Raises:
        UnsafeArchive: a member's path leaves the folder, is a link or device, or is far too large.
        ValueError: not a readable archive.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                infos = [i for i in file.infolist() if not i.is_dir()]
                paths = [_check(i.filename, i.file_size, True, archive) for i in infos]
                _check_count(paths, archive)
                for path, info in zip(paths, infos):
                    yield Member(path, file.read(info))
            return
        with tarfile.open(archive) as file:
            infos = [i for i in file.getmembers() if not i.isdir()]
            paths = [_check(i.name, i.size, i.isfile(), archive) for i in infos]
            _check_count(paths, archive)
            for path, info in zip(paths, infos):
                yield Member(path, file.extractfile(info).read())
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"'{archive}' is not a complete .tar.gz or .zip archive: {error}") from error


def _check_count(paths: list, archive: Path) -> None:
    if len(paths) > LARGEST_COUNT:
        raise UnsafeArchive(f"'{archive}' was refused: it holds {len(paths)} files.")


def _first_answer(url: str, have: int) -> requests.Response:
    """The server's answer within PATIENCE seconds, name look-up included (it has no limit of its own)."""
    result: dict = {}

    def ask() -> None:
        try:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
            result["answer"] = requests.get(url, headers=headers, stream=True, timeout=PATIENCE)
        except requests.RequestException as error:
            result["error"] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)
    if "answer" in result:
        return result["answer"]
    reason = type(result["error"]).__name__ if "error" in result else f"no answer within {PATIENCE} s"
    raise DownloadFailed(f"the network gave no MedNIST archive ({reason})")


def download(url: str, path: Path, md5: str) -> Path:
    """Download a file, going on where an earlier try broke off, and compare its check sum.

    Raises:
        DownloadFailed: no network, it broke off (what came is kept for the next try), or the
            check sum is wrong (what came is deleted).
    """
    if not path.is_file():
        part = path.with_name(path.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.is_file() else 0
        with _first_answer(url, have) as answer:
            if answer.status_code not in (200, 206, 416):
                raise DownloadFailed(f"the server answered {answer.status_code} for {url}")
            have = have if answer.status_code == 206 else 0 if answer.status_code == 200 else have
            total = have + int(answer.headers.get("Content-Length", 0))
            if answer.status_code != 416:  # 416: the part is the whole file already
                try:
                    with (
                        open(part, "ab" if have else "wb") as file,
                        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=path.name) as bar,
                    ):
                        for block in answer.iter_content(1 << 16):
                            file.write(block)
                            bar.update(len(block))
                except requests.RequestException as error:
                    raise DownloadFailed(
                        f"the download broke off ({type(error).__name__}); run it again to go on from there"
                    ) from error
                if part.stat().st_size < total:
                    raise DownloadFailed("the download broke off; run it again to go on from there")
        part.replace(path)
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != md5:
        path.unlink()
        raise DownloadFailed(f"the archive from {url} has the MD5 {found} instead of {md5}; it was deleted")
    return path
