"""Checks of texts and of the folder: references, answers, the report, and the place of the code.

A check returns what it found. It raises `Failed` if the requirement is not met, and `Unchecked` if it cannot decide.
"""

from __future__ import annotations

import re
from pathlib import Path

from utils.handin import briefs
from utils.handin.inspection import Failed, Unchecked, find, listing, text

CODE_FOLDERS = ("utils", "tests", "benchmarks")  # they may hold .py files; notebooks import only utils
MIN_ANSWER_WORDS = 10


def references(folder: Path, name: str) -> str:
    """The file lists sources: as items, rows of a table, or web addresses."""
    found = text(folder, find(folder, name))
    if not re.search(r"^\s*(?:[-*|]|\d+[.)]|\[\d+\])|https?://", found, re.M):
        raise Failed(f"{name} lists nothing")
    return f"{len(found.split())} words"


def one_utils(folder: Path) -> str:
    """All .py files are in utils/, or in the folders of tests and benchmarks."""
    scripts = [name for name in listing(folder) if name.endswith(".py")]
    if not scripts:
        raise Unchecked("there are no .py files to check")
    outside = [name for name in scripts if name.split("/")[0] not in CODE_FOLDERS]
    if outside:
        raise Failed(f"{len(outside)} .py files are outside utils/, the first: {outside[0]}")
    return f"{len(scripts)} .py files, all in the right folders"


def answer(folder: Path, heading: str, words: int) -> str:
    """The README has an answer under this heading, with at most this number of words and one figure or table."""
    found = text(folder, find(folder, "README.md"))
    match = re.search(rf"^#+ *{re.escape(heading)}\b[^\n]*\n(.*?)(?=^#+ |\Z)", found, re.M | re.S | re.I)
    if not match:
        raise Failed(f"README.md has no heading '{heading}'")
    body = match.group(1)
    figures = len(re.findall(r"!\[|<img", body)) + len(re.findall(r"^\s*\|?[\s:|-]*-{3,}[\s:|-]*$", body, re.M))
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)|^\|.*$|<img[^>]*>", " ", body, flags=re.M)
    plain = re.sub(r"^\s*\*[^*\n]+\*\s*$", " ", plain, count=1, flags=re.M)  # the question itself, in italics
    plain = re.sub(r"\]\([^)]*\)", "]", plain)  # the address of a link is not counted
    count = _count_words(plain)
    if count > words:
        raise Failed(f"{count} words: {count - words} too many")
    if figures > 1:
        raise Failed(f"{figures} figures and tables: only one is allowed")
    if count < MIN_ANSWER_WORDS:
        raise Failed(f"only {count} words")
    return f"{count} words, {figures} figure"


def report(folder: Path, name: str, parts: tuple[str, ...], words: tuple[int, int], terms: tuple[str, ...]) -> str:
    """The report has a heading for each part, mentions each term, shows figures, and has the right length."""
    name = find(folder, name)
    found = text(folder, name)
    headings = [heading.lower() for heading in re.findall(r"^#{1,4} +(.+)$", found, re.M)]
    for part in parts:
        if not any(part in heading for heading in headings):
            raise Failed(f"{name} has no heading with '{briefs.heading(part)}'")
    for term in terms:
        if term not in re.sub(r"optimizer", "optimiser", found.lower()):
            raise Failed(f"{name} does not mention the {term}")
    figures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", found)
    if not figures:
        raise Failed(f"{name} shows no figure")
    for figure in figures:
        address = Path(name).parent / figure
        if "://" not in figure and address.as_posix() not in listing(folder):
            raise Failed(f"{name} shows {figure}, which is not there")
    count = _count_words(re.sub(r"!\[[^\]]*\]\([^)]*\)|^\|.*$|\]\([^)]*\)", " ", found, flags=re.M))
    if not words[0] <= count <= words[1]:
        raise Failed(f"{count} words: about two pages are {words[0]} to {words[1]} words")
    return f"{count} words, {len(figures)} figures"


def _count_words(plain: str) -> int:
    """The number of words in a text. Punctuation alone does not count as a word."""
    return len(re.findall(r"[\w%][^\s]*", plain))
