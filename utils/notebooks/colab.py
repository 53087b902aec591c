"""The "Open in Colab" links in notebooks and Markdown files."""

from __future__ import annotations

import re
from pathlib import Path

from utils import files
from utils.handin import inspection

COLAB = re.compile(r"(?<=colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(?=/blob/)")  # in a link to a notebook


def point_to(folder: Path, repository: str) -> list[str]:
    """Change all "Open in Colab" links so that they open a repository on GitHub.

    Args:
        folder: a folder like this repository.
        repository: OWNER/NAME.

    Returns:
        The names of the files that were changed.

    Raises:
        ValueError: `repository` does not have this form.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"'{repository}' is not a repository: write OWNER/NAME, as in its address on GitHub")
    inspection.forget()
    changed = []
    for path in inspection.listing(folder):
        if not path.endswith((".ipynb", ".md")):
            continue
        old = (folder / path).read_bytes().decode(errors="surrogateescape")
        new = COLAB.sub(repository, old)
        if new != old:
            files.write_atomically(folder / path, new.encode(errors="surrogateescape"))
            changed.append(path)
    return changed
