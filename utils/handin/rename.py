"""Changes the username in a hand-in: in the names of files, and in texts. It changes everything or nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from utils import files
from utils.handin import inspection

TEXTS = (".ipynb", ".md", ".py", ".txt", ".toml", ".yml", "Makefile", ".gitignore")
HIDDEN_TEXTS = (".gitignore", ".github/workflows/test.yml")
JOURNAL = ".renaming"  # a folder with the old texts and the plan; it is removed at the end
NAME = re.compile(r"(?<=\*\*Name:\*\* )Your Name\b")  # as in the first cells of the notebooks
CID = re.compile(r"(?<=\*\*CID:\*\* )0{8}\b")
TAKEN = ("real", "vae", "gan", "test", "stand", "username")  # the names of other files begin with these


class Plan(NamedTuple):
    """The changes of a renaming. Paths are relative to the folder."""

    moves: list[tuple[str, str]]  # old path, new path
    texts: list[str]  # old paths of the files whose content changes


def current_name(folder: Path) -> str:
    """The username in the names of a hand-in's files.

    Raises:
        ValueError: there is no username, or there are several.
    """
    names = {
        match.group(1)
        for path in inspection.listing(folder)
        if (match := re.fullmatch(r"(\w+?)_(?:DLcw[12]_(?:clean|hypertune)\.ipynb|classified_hands\.csv)", path))
    }
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise ValueError(f"'{folder}': the names of the notebooks must contain one username, but found: {found}")
    return names.pop()


def check_name(name: str) -> None:
    """Check a username.

    Raises:
        ValueError: the username is not allowed. The message says why.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{1,19}", name):
        raise ValueError(f"'{name}' is not a username: use 2 to 20 small letters and digits, and begin with a letter")
    if name in TAKEN:
        raise ValueError(f"'{name}' cannot be used: the names of other files begin with it")


def check_author(name: str | None, cid: str | None) -> None:
    """Check a full name and a CID, if they are given.

    Raises:
        ValueError: one of them has a wrong form.
    """
    if name is not None and not re.fullmatch(r"[^\W\d_][^\W\d_' .-]*(?:[' .-]+[^\W\d_]+)*\.?", name):
        raise ValueError(f"'{name}' is not a name: use letters, with spaces, hyphens or apostrophes between them")
    if cid is not None and not re.fullmatch(r"\d{8}", cid):
        raise ValueError(f"'{cid}' is not a CID: use 8 digits")


def changed(path: str, text: str, old: str, new: str, name: str | None, cid: str | None) -> str:
    """The new text of a file.

    In Python code, only the names of files change: code uses the words of the template for other things too.
    """
    file_name = rf"(?<![<\w]){old}(?=_)"
    if path.endswith(".py"):
        return re.sub(file_name, new, text)
    text = re.sub(rf'{file_name}|(?<="){old}(?=\\?")|(?<=\*\*Username:\*\* ){old}\b', new, text)
    for pattern, value in ((NAME, name), (CID, cid)):
        text = pattern.sub(value, text) if value is not None else text
    return text


def plan(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """List the changes of a renaming, without making them.

    Args:
        folder: the hand-in.
        new: the new username.
        name, cid: replace 'Your Name' and '00000000' in the first cells of the notebooks.

    Raises:
        ValueError: `new` is not a username, the current username is not clear, or a file would be overwritten.
    """
    check_name(new)
    inspection.forget()
    old = current_name(folder)
    check_author(name, cid)
    files = inspection.listing(folder)
    moves = []
    for path in files:
        bare = Path(path).name
        if bare.startswith(f"{old}_") and old != new:
            moves.append((path, Path(path).with_name(new + bare[len(old) :]).as_posix()))
    clash = sorted({target for _, target in moves} & set(files))
    if clash:
        raise ValueError(f"'{clash[0]}' already exists; remove it, or choose another name")
    texts = []
    for path in [*files, *(hidden for hidden in HIDDEN_TEXTS if (folder / hidden).is_file())]:
        if path.endswith(TEXTS):
            text = (folder / path).read_bytes().decode(errors="surrogateescape")
            if changed(path, text, old, new, name, cid) != text:
                texts.append(path)
    return Plan(moves, texts)


def rename(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """Rename files and change texts: everything or nothing. If an earlier call was killed, it is undone first.

    Raises:
        OSError, ValueError: a step failed, and all changes were undone.
    """
    undo(folder)
    steps, old = plan(folder, new, name, cid), current_name(folder)
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
            text = changed(path, text, old, new, name, cid)
            files.write_atomically(folder / path, text.encode(errors="surrogateescape"))
        for source, target in steps.moves:
            (folder / source).rename(folder / target)
    except BaseException:
        undo(folder)
        raise
    shutil.rmtree(journal)
    inspection.forget()
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
    inspection.forget()
    return True
