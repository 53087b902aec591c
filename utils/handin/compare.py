"""Checks a hand-in against the requirements of its brief, and prints the results.

Nothing in a hand-in is executed or unpickled, and links in it are not followed.
"""

from __future__ import annotations

import importlib
import json
import textwrap
from pathlib import Path
from typing import NamedTuple

from utils.handin import inspection
from utils.handin.briefs import BRIEFS, REQUIREMENTS, SIGNS, Requirement

MARKS = {"pass": "ok  ", "fail": "FAIL", "unchecked": "?   "}
NO_HAND_IN = f"one of the files {', '.join(signs[0] for signs in SIGNS.values())}"


class Result(NamedTuple):
    """The result of checking one requirement. The status is pass, fail or unchecked."""

    brief: str
    requirement: str
    status: str
    found: str
    advice: str


def applying(folder: Path) -> list[str]:
    """The briefs that a folder seems to be a hand-in for. It holds one of the files in `SIGNS` for each of them."""
    return [brief for brief, signs in SIGNS.items() if any(any(folder.glob(sign)) for sign in signs)]


def check(folder: Path, briefs: list[str] | None = None) -> list[Result]:
    """Check a hand-in against the requirements of the briefs. Without `briefs`, those from `applying` are used.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: the folder does not look like a hand-in for any brief.
    """
    _need_folder(folder)
    briefs = briefs or applying(folder)
    if not briefs:
        wanted = "; ".join(f"{brief}: {', '.join(signs)}" for brief, signs in SIGNS.items())
        raise ValueError(f"'{folder}' does not look like a hand-in: it holds none of these files. {wanted}")
    inspection.forget()
    return [check_one(folder, requirement) for requirement in REQUIREMENTS if requirement.brief in briefs]


def _need_folder(folder: Path) -> None:
    if not folder.exists():
        raise NotADirectoryError(f"There is no folder '{folder}'.")
    if not folder.is_dir():
        raise NotADirectoryError(f"'{folder}' is a file, but a folder is needed.")


def check_one(folder: Path, requirement: Requirement) -> Result:
    """Check one requirement. It fails if a file cannot be read, and the other checks continue."""
    module, function = requirement.check.split(".")
    check = getattr(importlib.import_module(f"utils.handin.{module}"), function)
    advice = ""
    try:
        status, found = "pass", check(folder, **requirement.arguments)
    except inspection.Unchecked as error:
        status, found = "unchecked", str(error)
    except inspection.Failed as error:
        status, found, advice = "fail", str(error), requirement.advice
    except Exception as error:  # another person's files can be damaged in any way
        status, found, advice = "fail", f"could not be read ({type(error).__name__}: {error})", requirement.advice
    return Result(requirement.brief, requirement.wording, status, found, advice)


def counts(results: list[Result]) -> str:
    """One line with the numbers of requirements that are right, wrong and unchecked."""
    number = {status: sum(r.status == status for r in results) for status in MARKS}
    return f"{number['pass']} right, {number['fail']} wrong, {number['unchecked']} could not be checked"


def table(results: list[Result]) -> str:
    """A table with the results by brief: one line for each requirement. Problems and advice are below their line."""
    lines = []
    for brief in dict.fromkeys(r.brief for r in results):
        lines.append(f"\n{brief}: {BRIEFS[brief]}")
        for result in (r for r in results if r.brief == brief):
            lines.append(f"  {MARKS[result.status]} {result.requirement}")
            if result.status != "pass":
                lines += textwrap.wrap(result.found, 100, initial_indent=" " * 9, subsequent_indent=" " * 9)
            if result.advice:
                lines += textwrap.wrap(f"-> {result.advice}", 100, initial_indent=" " * 9, subsequent_indent=" " * 12)
    return "\n".join([*lines, "", counts(results)])


def report(folder: Path, briefs: list[str] | None, as_json: bool) -> bool:
    """Check one hand-in and print the results. Returns False if a requirement failed."""
    results = check(folder, briefs)
    print(json.dumps([r._asdict() for r in results], indent=1) if as_json else table(results))
    return not any(r.status == "fail" for r in results)


def report_all(parent: Path, briefs: list[str] | None, as_json: bool) -> bool:
    """Check every folder in `parent` and print one line for each. Returns False if a requirement failed.

    Raises:
        NotADirectoryError: there is no folder `parent`.
    """
    _need_folder(parent)
    every = {}
    for folder in sorted(p for p in parent.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != "."):
        try:
            every[folder.name] = check(folder, briefs)
        except ValueError as error:
            every[folder.name] = [Result("none", NO_HAND_IN, "fail", str(error), "")]
    if as_json:
        print(json.dumps({name: [r._asdict() for r in results] for name, results in every.items()}, indent=1))
    else:
        width = max(map(len, every), default=0)
        for name, results in every.items():
            first = next((f"; first problem: {r.requirement}" for r in results if r.status == "fail"), "")
            print(f"{name:<{width}}  {counts(results)}{first}")
    return not any(r.status == "fail" for results in every.values() for r in results)
