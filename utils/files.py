"""Writes files completely or not at all, reads paths from the command line, and makes any file name printable."""

from __future__ import annotations

import argparse
import contextlib
import errno
import glob
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)  # errors of a folder that we may not write to
ADVICE = (
    "Is the folder read-only, or is a program such as OneDrive or Dropbox using it? "
    "Copy the project into a folder of your own and run it there."
)


def could_not_write(path: Path, error: OSError) -> OSError:
    """The error to raise if `path` could not be written. If the folder is not writable, the message says what to do."""
    advice = f" {ADVICE}" if error.errno in NOT_ALLOWED else ""
    text = f"could not write '{printable(path)}' ({error.strerror}); what was saved before has not changed.{advice}"
    return OSError(error.errno, text)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all. At any moment, `path` is the old file or the complete new one.

    Raises:
        OSError: the disk is full, or the folder cannot be written to. The old file has not changed.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):  # Ctrl-C, for example
            raise
        raise could_not_write(path, error) from error


def part_folder(parent: Path, name: str) -> Path:
    """Make a hidden folder in `parent` for files that are not complete yet. The caller deletes or renames it.

    Folders of the same name that killed processes have left are deleted first.

    Raises:
        OSError: `parent` cannot be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        delete_leftovers(parent, name)
        part = parent / f".{name}.{os.getpid()}.part"
        part.mkdir()
    except OSError as error:
        raise could_not_write(parent, error) from error
    return part


@contextlib.contextmanager
def all_or_none(folder: Path) -> Iterator[Path]:
    """A hidden folder for new files. They are moved into `folder` if the block ends without an error.

    Raises:
        OSError: `folder` cannot be written to.
    """
    part = part_folder(folder, "writing")
    try:
        yield part
        for path in sorted(part.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def delete_leftovers(folder: Path, name: str) -> None:
    """Delete the parts `.NAME.PID.part` of processes that have ended. Running processes still need their parts."""
    for left in folder.glob(f".{glob.escape(name)}.*.part"):
        pid = left.name.split(".")[-2]
        if pid == str(os.getpid()) or not _is_running(pid):  # our own PID: an earlier process had the same PID
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def _is_running(pid: str) -> bool:
    """Is this process running? True if we cannot find out."""
    if os.name == "nt":  # there, os.kill would end the process
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass
    return True


def path_argument(text: str) -> Path:
    """The path that a user has typed. `~` is replaced by the home folder.

    Raises:
        argparse.ArgumentTypeError: the path begins with `~name`, but there is no user `name`.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from error


def printable(text: str | Path) -> str:
    r"""The text, with an escape such as `\n` or `\udcff` for each character that cannot be printed."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def is_utf8(name: str) -> bool:
    """Is the name valid UTF-8? Other names cannot be written into a text file. On Linux, a name can be any bytes."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def escape_unprintable_output() -> None:
    """Make the console print an escape for each character that it does not know. Otherwise, there would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test or a notebook may have replaced the stream
            stream.reconfigure(errors="backslashreplace")


def set_aside(folder: Path) -> None:
    """Rename a folder that is not empty to the first free name of `<folder>.old_1`, `<folder>.old_2`, ..., and say so.

    Raises:
        OSError: the folder cannot be renamed.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    number = 1
    while folder.with_name(f"{folder.name}.old_{number}").exists():
        number += 1
    aside = folder.rename(folder.with_name(f"{folder.name}.old_{number}"))
    print(f"The old run in '{printable(folder)}' is kept as '{printable(aside)}'.")
