"""Changes the username in a hand-in: in the names of files, and in texts. It changes everything or nothing."""

from __future__ import annotations

import io
import json
import re
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import NamedTuple

from utils import files
from utils.handin import inspection

TEXTS = (
    ".ipynb", ".md", ".markdown", ".rst", ".py", ".txt", ".toml", ".yml", ".yaml", ".json", ".html", ".tex", ".cfg",
    "Makefile", ".gitignore",
)  # fmt: skip
HIDDEN_TEXTS = (".gitignore", ".github/workflows/test.yml")
JOURNAL = ".renaming"  # a folder with the old texts and the plan; it is removed at the end
PLACEHOLDER = "username"  # stands for the username in this repository; renaming to it is the way back
EMPTY_NAME, EMPTY_CID = "Your Name", "00000000"
# The lines with the author: of this repository's notebooks, of the course's notebooks, and of its references.md.
VALUE = r"(?:[^*|\]\\\"\n]|\\u[0-9a-fA-F]{4})*?"  # in JSON, a letter may be written as \u2019
FIELDS = {
    "name": (
        rf"(?<=\*\*Name:\*\* ){VALUE}(?= \*\*|\\n|[\"\n]|$)", rf"(?<=\*\*\*Name\*\*\*: \[\*){VALUE}(?=\*\])",
        rf"(?<=\| Student name \| \*){VALUE}(?=\* +\|)",
    ),
    "username": (
        rf"(?<=\*\*Username:\*\* ){VALUE}(?= \*\*|\\n|[\"\n]|$)", rf"(?<=\*\*\*username\*\*\*: \[\*){VALUE}(?=\*\])",
    ),
    "cid": (
        rf"(?<=\*\*CID:\*\* ){VALUE}(?= \*\*| \[|\\n|[\"\n]|$)", rf"(?<=\*\*\*CID\*\*\*: \[\*){VALUE}(?=\*\])",
        rf"(?<=\| CID      \| \*){VALUE}(?=\* +\|)", rf"(?<=\| CID \| \*){VALUE}(?=\* +\|)",
    ),
}  # fmt: skip
NAMED = re.compile(r"([^/]+?)_(?:DLcw[12]_(?:clean|hypertune)\.ipynb|classified_hands\.csv)")
USERNAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")  # ab1223, acse-ab1223, edsml_ab123
TAKEN = re.compile(r"(real|vae|gan|test|stand)([._-].*)?")  # the names of other files begin with these
JOINERS = "\u200c\u200d"  # some scripts need them inside a word
MARKS = " '\u2019\u2018\u02bc\u02bb`\u00b4-\u2010\u2011.,\u00b7\u30fb" + JOINERS  # may stand in a name, besides letters
LARGEST = 20_000_000  # bytes; a larger file is not searched for names that are left


class Plan(NamedTuple):
    """The changes of a renaming. Paths are relative to the folder."""

    moves: list[tuple[str, str]]  # old path, new path
    texts: list[str]  # old paths of the files whose content changes
    left: list[str]  # places that bear the old name and are not changed, with the reason


def current_names(folder: Path) -> list[str]:
    """The username in the names of a hand-in's files, in all its spellings: acse-ab1223 and acse_ab1223 are one.

    Raises:
        ValueError: there is no username, or there are several.
    """
    names = sorted({match[1] for path in inspection.listing(folder) if (match := NAMED.fullmatch(path))})
    if len({re.sub(r"[._-]", "", name).lower() for name in names}) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(f"'{folder}': the names of the notebooks must contain one username, but found: {found}")
    return sorted(names, key=len, reverse=True)


def current_name(folder: Path) -> str:
    """The username in the names of a hand-in's files, if it is always spelled in the same way.

    Raises:
        ValueError: there is no username, or there are several.
    """
    names = current_names(folder)
    if len(names) > 1:
        raise ValueError(f"'{folder}': the username is spelled in several ways: {', '.join(sorted(names))}")
    return names[0]


def check_name(name: str) -> None:
    """Check a username.

    Raises:
        ValueError: the username is not allowed. The message says why.
    """
    if not 2 <= len(name) <= 40 or not USERNAME.fullmatch(name):
        raise ValueError(
            f"'{name}' is not a username: use 2 to 40 small letters and digits, with single points, hyphens or "
            "underscores between them, and begin with a letter"
        )
    if TAKEN.fullmatch(name):
        raise ValueError(f"'{name}' cannot be used: the names of other files begin with it")


def check_author(name: str | None, cid: str | None) -> None:
    """Check a full name and a CID, if they are given. A name may be in any script.

    Raises:
        ValueError: one of them has a wrong form.
    """
    if name is not None:
        letters = [c for c in name if unicodedata.category(c)[0] == "L"]
        wrong = [c for c in name if unicodedata.category(c)[0] not in "LM" and c not in MARKS]
        if not letters or wrong or name != name.strip():
            raise ValueError(f"'{name}' is not a name: use letters, with spaces, hyphens or apostrophes between them")
    if cid is not None and not re.fullmatch(r"[0-9]{8}", cid):
        raise ValueError(f"'{cid}' is not a CID: use 8 digits")


def changed(path: str, text: str, olds: list[str], new: str, name: str | None, cid: str | None) -> str:
    """The new text of a file.

    In Python code, only the names of files change: code uses the words of the template for other things too.
    """
    for old in olds:
        word = re.escape(old)
        text = re.sub(rf"(?<![<\w-]){word}(?=_)", new, text)
        if path.endswith(".py"):
            continue
        text = re.sub(rf'(?<="){word}(?=\\?")', new, text)
        if not re.fullmatch(r"(your_?)?username", old):  # these are words of the texts too
            text = re.sub(rf"(?<![\w<.-]){word}(?![\w-]|\.\w)", new, text)
    if path.endswith(".py"):
        return text
    if new == PLACEHOLDER:
        name, cid = name or EMPTY_NAME, cid or EMPTY_CID
    for field, value in (("name", name), ("username", new), ("cid", cid)):
        for pattern in FIELDS[field] if value is not None else ():
            text = re.sub(pattern, value, text)
    return text


def left_over(folder: Path, olds: list[str], new: str, name: str | None, cid: str | None) -> list[str]:
    """Places that bear an old name and that a renaming does not change, such as names inside a zip file."""
    found = []
    telling = [old for old in olds if not re.fullmatch(r"(your_?)?username", old)]
    words = re.compile("|".join(rf"(?<!\w){re.escape(old)}(?!\w)" for old in telling) or r"(?!)")
    beginnings = re.compile("|".join(rf"(?<![<\w]){re.escape(old)}_" for old in olds))
    for path in inspection.listing(folder):
        try:
            data = (folder / path).read_bytes() if (folder / path).stat().st_size <= LARGEST else b""
        except OSError:
            continue
        if path.lower().endswith(".zip"):
            try:
                inside = [n for n in zipfile.ZipFile(io.BytesIO(data)).namelist() if beginnings.search(n)]
            except (zipfile.BadZipFile, ValueError):
                continue
            if inside:
                found.append(f"{path}: {len(inside)} names inside, such as {inside[0]}; make it again")
            continue
        if not any(old.encode() in data for old in olds):
            continue
        text = data.decode(errors="replace")
        if path.endswith(TEXTS):
            text = changed(path, text, olds, new, name, cid)
        count = len(words.findall(text)) + len(beginnings.findall(text) if not path.endswith(TEXTS) else [])
        if count and not any(new.startswith(old) or old in new for old in olds):
            found.append(f"{path}: {count} times")
    return found


def plan(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """List the changes of a renaming, without making them.

    Args:
        folder: the hand-in.
        new: the new username.
        name, cid: replace the name and the CID in the first cells of the notebooks, and in references.md.

    Raises:
        ValueError: `new` is not a username, the current username is not clear, or a file would be overwritten.
    """
    check_name(new)
    olds = current_names(folder)
    check_author(name, cid)
    files = inspection.listing(folder)
    moves = []
    for path in files:
        bare = Path(path).name
        old = next((old for old in olds if bare.startswith(f"{old}_") and old != new), None)
        if old:
            moves.append((path, Path(path).with_name(new + bare[len(old) :]).as_posix()))
    targets = [target for _, target in moves]
    clash = sorted(set(targets) & set(files) - {source for source, _ in moves})
    clash += sorted(target for target in set(targets) if targets.count(target) > 1)
    if clash:
        raise ValueError(f"'{clash[0]}' already exists; remove it, or choose another name")
    texts = []
    for path in [*files, *(hidden for hidden in HIDDEN_TEXTS if (folder / hidden).is_file())]:
        if path.endswith(TEXTS):
            text = (folder / path).read_bytes().decode(errors="surrogateescape")
            if changed(path, text, olds, new, name, cid) != text:
                texts.append(path)
    return Plan(moves, texts, left_over(folder, olds, new, name, cid))


def unfinished(folder: Path) -> bool:
    """Was a renaming killed here, so that the next one undoes it first?"""
    return (folder / JOURNAL).is_dir()


def rename(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """Rename files and change texts: everything or nothing. If an earlier call was killed, it is undone first.

    Raises:
        OSError, ValueError: a step failed, and all changes were undone.
    """
    undo(folder)
    steps, olds = plan(folder, new, name, cid), current_names(folder)
    journal = folder / JOURNAL
    building = folder / f"{JOURNAL}.part"
    shutil.rmtree(building, ignore_errors=True)
    for path in steps.texts:
        copy = building / "texts" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, copy)
    building.mkdir(exist_ok=True)
    (building / "plan.json").write_text(json.dumps(steps._asdict()), encoding="utf-8")
    building.replace(journal)  # from here on, `undo` can restore everything, also after a kill
    try:
        for path in steps.texts:
            text = (folder / path).read_bytes().decode(errors="surrogateescape")
            text = changed(path, text, olds, new, name, cid)
            files.write_atomically(folder / path, text.encode(errors="surrogateescape"))
        for source, target in steps.moves:
            (folder / source).rename(folder / target)
    except BaseException:
        undo(folder)
        raise
    shutil.rmtree(journal)
    return steps


def undo(folder: Path) -> bool:
    """Undo a renaming that did not finish. Returns False if there was nothing to undo."""
    journal = folder / JOURNAL
    if not journal.is_dir():
        return False
    steps = json.loads((journal / "plan.json").read_text(encoding="utf-8"))
    for source, target in steps["moves"]:
        if (folder / target).exists() and not (folder / source).exists():
            (folder / target).rename(folder / source)
    for path in steps["texts"]:
        shutil.copy2(journal / "texts" / path, folder / path)
    shutil.rmtree(journal)
    return True
