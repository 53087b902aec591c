"""Checks of a notebook. Each takes the hand-in's folder and the notebook's name, which may be a pattern.

A check returns what it found. It raises `Failed` if the requirement is not met, and `Unchecked` if it cannot tell.
"""

from __future__ import annotations

import re
from pathlib import Path

from utils.handin.inspection import Failed, Unchecked, cells, find

MAX_CODE_CELLS_IN_A_ROW = 4  # more than this without a text cell is not explained
MIN_WORDS = 200  # of text in the whole notebook
PLACEHOLDERS = ("**Name:** Your Name", "**CID:** 00000000", "**Username:** username")
PRETRAINED = re.compile(
    r"pretrained\s*=\s*True|weights\s*=\s*['\"](?!none)\w|\w+_Weights\.|torch\.hub\.load\b|\.from_pretrained\("
    r"|include_top\s*=|hub\.KerasLayer",
    re.I,
)


def is_there(folder: Path, name: str) -> str:
    """There is exactly one such notebook, and it can be read."""
    return f"{find(folder, name)}, {len(cells(folder, name))} cells"


def signed(folder: Path, name: str) -> str:
    """The template's name, CID and username have been replaced."""
    texts = "\n".join(cell.source for cell in cells(folder, name) if not cell.code)
    left = [placeholder for placeholder in PLACEHOLDERS if placeholder in texts]
    if PLACEHOLDERS[-1] in left:
        raise Unchecked(
            "the author's name is still the template's: python -m utils rename USERNAME --name 'NAME' --cid CID"
        )
    if left:
        raise Failed(f"it still says {' and '.join(left)}")
    return "no placeholder left"


def executed(folder: Path, name: str) -> str:
    """All code cells were executed from top to bottom, none failed, and their outputs were saved."""
    code = [cell for cell in cells(folder, name) if cell.code]
    if not code:
        raise Failed("it has no code")
    for number, cell in enumerate(code, start=1):
        first = cell.source.strip().splitlines()[0][:60]
        for output in cell.outputs:
            if output.get("output_type") == "error":
                raise Failed(f"code cell {number} ended in {output.get('ename', 'an error')}: {first}")
        if cell.count is None:
            raise Failed(f"code cell {number} was not executed: {first}")
        if cell.count != number:
            raise Failed(
                f"code cell {number} has execution number {cell.count}: "
                f"the cells were not executed once each from top to bottom"
            )
    if not any(cell.outputs for cell in code):
        raise Failed("no cell has an output: they were cleared before saving")
    return f"{len(code)} code cells, executed 1 to {len(code)}"


def explained(folder: Path, name: str) -> str:
    """Text comes often enough between the code, and there is enough of it."""
    every, in_a_row = cells(folder, name), 0
    for number, cell in enumerate(every, start=1):
        in_a_row = in_a_row + 1 if cell.code else 0
        if in_a_row > MAX_CODE_CELLS_IN_A_ROW:
            raise Failed(f"{in_a_row} code cells in a row without text, up to cell {number}")
    words = sum(len(cell.source.split()) for cell in every if not cell.code)
    if words < MIN_WORDS:
        raise Failed(f"it has only {words} words of text; at least {MIN_WORDS} are expected")
    return f"{words} words of text"


def from_scratch(folder: Path, name: str) -> str:
    """No code loads weights that were trained elsewhere."""
    for cell in cells(folder, name):
        for line in cell.source.splitlines() if cell.code else ():
            if not line.lstrip().startswith("#") and PRETRAINED.search(line):
                raise Failed(f"it loads weights that were trained elsewhere: {line.strip()[:80]}")
    return "nothing that loads pre-trained weights"


def loss_plot(folder: Path, name: str) -> str:
    """A cell with a picture, or a cell next to it, mentions the loss."""
    every = cells(folder, name)
    for number, cell in enumerate(every):
        near = " ".join(other.source for other in every[max(0, number - 1) : number + 2]).lower()
        if cell.code and cell.pictures() and ("loss" in near or "entropy" in near):
            return f"cell {number + 1} has a picture, and the word loss is next to it"
    raise Failed("no cell that mentions a loss in its code or text has a picture")


def sections(folder: Path, name: str, titles: tuple[str, ...]) -> str:
    """There is a heading for each title, in this order; a heading may say more than the title."""
    texts = [cell.source for cell in cells(folder, name) if not cell.code]
    headings = re.findall(r"^#{1,4} +(.+)$", "\n".join(texts), re.M)
    place = 0
    for title in titles:
        following = [i for i, heading in enumerate(headings) if i >= place and title in heading.lower()]
        if not following:
            anywhere = any(title in heading.lower() for heading in headings)
            raise Failed(f"there is no heading with '{title}'" + (" after the ones before it" if anywhere else ""))
        place = following[0] + 1
    return f"{len(titles)} sections in order"
