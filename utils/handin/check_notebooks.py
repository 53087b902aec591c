"""Checks of a notebook. Each check gets the hand-in's folder and the notebook's name, which may be a pattern.

A check returns what it found. It raises `Failed` if the requirement is not met, and `Unchecked` if it cannot decide.
"""

from __future__ import annotations

import re
from pathlib import Path

from utils.handin import briefs
from utils.handin.inspection import Failed, Unchecked, cells, find

MAX_CODE_CELLS_IN_A_ROW = 4  # more code cells without a text cell count as not explained
MIN_WORDS = 200  # of text in the whole notebook
PLACEHOLDERS = ("**Name:** Your Name", "**CID:** 00000000", "**Username:** username")
PRETRAINED = re.compile(
    r"pretrained\s*=\s*True|weights\s*=\s*['\"](?!none)\w|\w+_Weights\.|torch\.hub\.load\b|\.from_pretrained\("
    r"|include_top\s*=|hub\.KerasLayer",
    re.I,
)


def is_there(folder: Path, name: str) -> str:
    """There is exactly one notebook with this name, and it can be read."""
    return f"{find(folder, name)}, {len(cells(folder, name))} cells"


def signed(folder: Path, name: str) -> str:
    """The template's name, CID and username have been replaced."""
    texts = "\n".join(cell.source for cell in cells(folder, name) if not cell.code)
    left = [placeholder for placeholder in PLACEHOLDERS if placeholder in texts]
    if PLACEHOLDERS[-1] in left:
        raise Unchecked(
            "the author's name was not filled in: use python -m utils rename USERNAME --name 'NAME' --cid CID"
        )
    if left:
        raise Failed(f"it still says {' and '.join(left)}")
    return "no placeholder left"


def executed(folder: Path, name: str) -> str:
    """All code cells were executed once, from top to bottom. No cell failed, and the outputs were saved."""
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
                f"each cell must be executed once, from top to bottom"
            )
    if not any(cell.outputs for cell in code):
        raise Failed("no cell has an output: the outputs were cleared before the notebook was saved")
    return f"{len(code)} code cells, executed 1 to {len(code)}"


def explained(folder: Path, name: str) -> str:
    """There are enough text cells between the code cells, and enough words in them."""
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
    """The code loads no pre-trained weights."""
    for cell in cells(folder, name):
        for line in cell.source.splitlines() if cell.code else ():
            if not line.lstrip().startswith("#") and PRETRAINED.search(line):
                raise Failed(f"it loads pre-trained weights: {line.strip()[:80]}")
    return "no code that loads pre-trained weights"


def loss_plot(folder: Path, name: str) -> str:
    """The loss is mentioned in a code cell with a picture, or in a cell next to it."""
    every = cells(folder, name)
    for number, cell in enumerate(every):
        near = " ".join(other.source for other in every[max(0, number - 1) : number + 2]).lower()
        if cell.code and cell.pictures() and ("loss" in near or "entropy" in near):
            return f"cell {number + 1} has a picture, and the loss is mentioned there or in a cell next to it"
    raise Failed("no code cell with a picture mentions the loss, in its own code or in the cells next to it")


def sections(folder: Path, name: str, titles: tuple[str, ...]) -> str:
    """There is a heading for each title, in this order. A heading may contain more words than the title."""
    texts = [cell.source for cell in cells(folder, name) if not cell.code]
    headings = re.findall(r"^#{1,4} +(.+)$", "\n".join(texts), re.M)
    place = 0
    for title in titles:
        following = [i for i, heading in enumerate(headings) if i >= place and title in heading.lower()]
        if not following:
            anywhere = any(title in heading.lower() for heading in headings)
            where = " after the ones before it" if anywhere else ""
            raise Failed(f"there is no heading with '{briefs.heading(title)}'{where}")
        place = following[0] + 1
    return f"{len(titles)} sections in order"
