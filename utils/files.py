"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment `path` is the old file or the new one, never a part.

    Raises:
        OSError: the disk is full or not writable; the old file is still whole, no part stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if not isinstance(error, OSError):  # Ctrl-C, say
            raise
        raise OSError(
            error.errno, f"could not write '{path}' ({error.strerror}); what was saved before is untouched"
        ) from error


def path_argument(text: str) -> Path:
    """A path that a user has typed, with `~` replaced by the home folder."""
    return Path(text).expanduser()
