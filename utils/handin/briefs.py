"""Reads briefs: what they ask for, as TOML files in `utils/handin/briefs/`. docs/briefs.md says how to write one.

A brief names files, each with a role such as `clean`, and asks for things. Each thing is tested by a check: a function
with this name in a module of `checks/`.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_suffix("")
KINDS = ("notebook", "table", "array", "text", "report", "images")
ENDINGS = {
    "notebook": (".ipynb",),
    "table": (".csv", ".txt", ".tsv"),
    "array": (".npy",),
    "text": (".md", ".txt", ".markdown", ".rst"),
    "report": (".md", ".pdf", ".docx", ".txt", ".tex", ".html"),
    "images": (),
}
CHECKS: dict[str, Callable] = {}  # filled by the modules with checks


def check(function: Callable) -> Callable:
    """Make a function usable in briefs, under its own name."""
    CHECKS[function.__name__] = function
    return function


class File(NamedTuple):
    """A file, or a kind of images, that a brief asks for."""

    role: str
    kind: str  # one of KINDS
    names: list[str]  # patterns; the first is the brief's own name
    name_words: list[str]  # a file whose name has one of them is probably this one
    signs: list[str]  # regular expressions; a file whose content matches them is probably this one


class Request(NamedTuple):
    """One thing that a brief asks for."""

    asks: str  # what is asked for, in a few words
    check: str  # a key of CHECKS
    of: str  # the role of the file, or ""
    kind: str  # what it counts as if the hand-in lacks it: fault or remark
    quote: str  # the brief's own words
    advice: str  # what to do then
    arguments: dict  # further arguments of the check


class Brief(NamedTuple):
    """What a coursework asks for.

    Attributes:
        name: its short name.
        title: what it is, in a few words.
        instead_of: briefs that this one replaces if a folder looks like both.
        signs: a notebook whose text matches all of these regular expressions belongs to the brief ...
        against: ... unless it matches one of these.
        template: openings of the lines that the course itself has written.
        template_code: regular expressions for its lines of code whose values students change.
        files: the files, by their role.
        requests: what is asked for.
    """

    name: str
    title: str
    instead_of: list[str]
    signs: list[str]
    against: list[str]
    template: list[str]
    template_code: list[str]
    files: dict[str, File]
    requests: list[Request]


@cache
def names() -> list[str]:
    """The names of the briefs in this project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def titles() -> dict[str, str]:
    """The title of each brief in this project. It imports no checks."""
    return {name: tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["title"] for name in names()}


@cache
def load(name: str) -> Brief:
    """Read a brief of this project, or the TOML file of another one.

    Args:
        name: one of `names()`, or the path of a file.

    Raises:
        FileNotFoundError: there is no such brief.
        ValueError: the file is not a brief. The message says where it is wrong.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"There is no brief '{name}'. There are {', '.join(names())}, or name a TOML file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a TOML file: {error}") from error
    return read(path.stem, content)


def read(name: str, content: dict) -> Brief:
    """Turn the content of a TOML file into a brief.

    Raises:
        ValueError: something in it is unknown, missing or of a wrong type.
    """
    where = f"brief {name}"
    top = _take(where, content, {"title": str}, {
        "instead_of": list, "signs": list, "against": list, "template": list, "template_code": list, "files": dict,
        "ask": list,
    })  # fmt: skip
    for key in ("signs", "against", "template_code"):
        _regular(f"{where}, {key}", top[key])
    top["files"] = {role: _file(f"{where}, files.{role}", role, entry) for role, entry in top["files"].items()}
    requests = [_request(f"{where}, ask {n}", entry, top["files"]) for n, entry in enumerate(top.pop("ask"), start=1)]
    if not requests:
        raise ValueError(f"{where}: it asks for nothing. Add an [[ask]]")
    twice = {r.asks for r in requests if [q.asks for q in requests].count(r.asks) > 1}
    if twice:
        raise ValueError(f"{where}: it asks twice for '{twice.pop()}'")
    return Brief(name, **top, requests=requests)


def _take(where: str, entry: object, needed: dict[str, type], further: dict[str, type]) -> dict:
    """The entry with an empty value for each missing key of `further`.

    Raises:
        ValueError: a key is missing or unknown, or a value has a wrong type.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: a table is needed")
    for key in needed:
        if key not in entry:
            raise ValueError(f"{where}: '{key}' is missing")
    allowed = needed | further
    for key, value in entry.items():
        if key not in allowed:
            raise ValueError(f"{where}: '{key}' is unknown; there are {', '.join(allowed)}")
        if not isinstance(value, allowed[key]):
            raise ValueError(f"{where}: '{key}' must be of type {allowed[key].__name__}")
        kinds = (dict,) if key == "ask" else (str, int)
        if isinstance(value, list) and not all(isinstance(v, kinds) for v in value):
            raise ValueError(f"{where}: '{key}' must hold {'tables' if key == 'ask' else 'texts or numbers'}")
    return {key: entry.get(key, kind()) for key, kind in allowed.items()}


def _regular(where: str, patterns: list[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{where}: '{pattern}' is not a regular expression: {error}") from error


def _file(where: str, role: str, entry: object) -> File:
    taken = _take(where, entry, {"kind": str, "names": list}, {"name_words": list, "signs": list})
    if taken["kind"] not in KINDS:
        raise ValueError(f"{where}: kind '{taken['kind']}' is unknown; there are {', '.join(KINDS)}")
    if not taken["names"]:
        raise ValueError(f"{where}: 'names' is empty")
    _regular(f"{where}, signs", taken["signs"])
    return File(role, **taken)


def _request(where: str, entry: object, files: dict[str, File]) -> Request:
    from utils.handin import checks  # noqa: F401  it fills CHECKS

    if not isinstance(entry, dict) or entry.get("check") not in CHECKS:
        raise ValueError(f"{where}: 'check' must be one of {', '.join(sorted(CHECKS))}")
    parameters = list(inspect.signature(CHECKS[entry["check"]]).parameters.values())[2:]
    further = {p.name: _type(p) for p in parameters}
    open_ones = {p.name: _type(p) for p in parameters if p.default is p.empty}
    common = {"asks": str, "check": str}
    taken = _take(where, entry, common | open_ones, {"of": str, "kind": str, "quote": str, "advice": str} | further)
    kind = taken["kind"] or "fault"
    if kind not in ("fault", "remark"):
        raise ValueError(f"{where}: kind '{kind}' must be fault or remark")
    if kind == "fault" and not taken["quote"]:
        raise ValueError(f"{where}: a fault needs the brief's own words as 'quote'")
    if taken["of"] and taken["of"] not in files:
        raise ValueError(f"{where}: there are no files.{taken['of']}")
    arguments = {p.name: entry[p.name] for p in parameters if p.name in entry}
    for key, value in arguments.items():
        if isinstance(value, list):
            _regular(f"{where}, {key}", [str(v).partition(":")[2].strip() for v in value])
    return Request(taken["asks"], taken["check"], taken["of"], kind, taken["quote"], taken["advice"], arguments)


def _type(parameter: inspect.Parameter) -> type:
    """The type of a check's argument: the first word of its annotation."""
    return {"int": int, "str": str, "list": list, "float": float, "dict": dict}[
        str(parameter.annotation).partition("[")[0]
    ]
