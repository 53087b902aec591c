"""Gives a hand-in its author's name: files and the texts that name them, all or nothing."""

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
JOURNAL = ".renaming"  # the old texts and the plan, until everything is done
NAME = re.compile(r"(?<=\*\*Name:\*\* )Your Name\b")  # as the notebooks' first cells have them
CID = re.compile(r"(?<=\*\*CID:\*\* )0{8}\b")
TAKEN = ("real", "vae", "gan", "test", "stand", "username")  # how other files' names begin


class Plan(NamedTuple):
    """What a renaming changes: paths relative to the folder."""

    moves: list[tuple[str, str]]  # old name, new name
    texts: list[str]  # files whose content changes, by their old names


def current_name(folder: Path) -> str:
    """The username that a hand-in's files bear.

    Raises:
        ValueError: none, or several.
    """
    names = {
        match.group(1)
        for path in inspection.listing(folder)
        if (match := re.fullmatch(r"(\w+?)_(?:DLcw[12]_(?:clean|hypertune)\.ipynb|classified_hands\.csv)", path))
    }
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise ValueError(f"'{folder}': the notebooks should bear one username, but bear {found}")
    return names.pop()


def check_name(name: str) -> None:
    """Refuse what cannot be a username.

    Raises:
        ValueError: says what is wrong with it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{1,19}", name):
        raise ValueError(f"'{name}' is no username: wanted are 2 to 20 small letters and digits, a letter first")
    if name in TAKEN:
        raise ValueError(f"'{name}' cannot be used: other files' names begin like that")


def mentions(name: str) -> re.Pattern:
    """Where texts mean the username: before an underscore, in quotes, and after 'Username:'."""
    return re.compile(rf'(?<![<\w]){name}(?=_)|(?<="){name}(?=\\?")|(?<=\*\*Username:\*\* ){name}\b')


def replacements(old: str, new: str, name: str | None, cid: str | None) -> list[tuple[re.Pattern, str]]:
    """What texts are searched for, and what comes in its place.

    Raises:
        ValueError: the name or the CID cannot be one.
    """
    if name is not None and not re.fullmatch(r"[^\W\d_][^\W\d_' .-]*(?:[' .-]+[^\W\d_]+)*\.?", name):
        raise ValueError(f"'{name}' is no name: wanted are letters, with spaces, hyphens and apostrophes between them")
    if cid is not None and not re.fullmatch(r"\d{8}", cid):
        raise ValueError(f"'{cid}' is no CID: wanted are 8 digits")
    every = [(mentions(old), new if old != new else None), (NAME, name), (CID, cid)]
    return [(pattern, text) for pattern, text in every if text is not None]


def plan(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """What renaming would change; with a name and a CID, also where the notebooks still have the template's.

    Raises:
        ValueError: `new` is no username, the folder bears none, or a file would be overwritten.
    """
    check_name(new)
    inspection.forget()
    old = current_name(folder)
    wanted = replacements(old, new, name, cid)
    files = inspection.listing(folder)
    moves = []
    for path in files:
        bare = Path(path).name
        if bare.startswith(f"{old}_") and old != new:
            moves.append((path, Path(path).with_name(new + bare[len(old) :]).as_posix()))
    clash = sorted({target for _, target in moves} & set(files))
    if clash:
        raise ValueError(f"'{clash[0]}' is there already; remove it, or choose another name")
    texts = []
    for path in [*files, *(hidden for hidden in HIDDEN_TEXTS if (folder / hidden).is_file())]:
        if path.endswith(TEXTS):
            text = (folder / path).read_text(errors="replace")
            if any(pattern.search(text) for pattern, _ in wanted):
                texts.append(path)
    return Plan(moves, texts)


def rename(folder: Path, new: str, name: str | None = None, cid: str | None = None) -> Plan:
    """Rename files and texts; if anything fails, or an earlier call was killed, everything is put back first.

    Raises:
        OSError, ValueError: what failed, after undoing it.
    """
    undo(folder)
    steps = plan(folder, new, name, cid)
    wanted = replacements(current_name(folder), new, name, cid)
    journal = folder / JOURNAL
    building = folder / f"{JOURNAL}.part"
    shutil.rmtree(building, ignore_errors=True)
    for path in steps.texts:
        copy = building / "texts" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, copy)
    building.mkdir(exist_ok=True)
    (building / "plan.json").write_text(json.dumps(steps._asdict()))
    building.replace(journal)  # from here on, a kill can be undone
    try:
        for path in steps.texts:
            text = (folder / path).read_bytes().decode()
            for pattern, replacement in wanted:
                text = pattern.sub(replacement, text)
            files.write_atomically(folder / path, text.encode())
        for source, target in steps.moves:
            (folder / source).rename(folder / target)
    except BaseException:
        undo(folder)
        raise
    shutil.rmtree(journal)
    inspection.forget()
    return steps


def undo(folder: Path) -> bool:
    """Put back what an unfinished renaming has changed; was there one?"""
    journal = folder / JOURNAL
    if not journal.is_dir():
        return False
    steps = json.loads((journal / "plan.json").read_text())
    for source, target in steps["moves"]:
        if (folder / target).exists() and not (folder / source).exists():
            (folder / target).rename(folder / source)
    for path in steps["texts"]:
        shutil.copy2(journal / "texts" / path, folder / path)
    shutil.rmtree(journal)
    inspection.forget()
    return True
