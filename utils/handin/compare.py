"""Compares a hand-in with what its brief asks for, and prints the results.

Nothing of a hand-in is executed or unpickled, and no link in it is followed.
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


class Result(NamedTuple):
    """The result of one requirement; `status` is pass, fail or unchecked."""

    brief: str
    requirement: str
    status: str
    found: str
    advice: str


def applying(folder: Path) -> list[str]:
    """The briefs that a folder looks like a hand-in for: a file of theirs is there."""
    return [brief for brief, signs in SIGNS.items() if any(any(folder.glob(sign)) for sign in signs)]


def check(folder: Path, briefs: list[str] | None = None) -> list[Result]:
    """Compare a hand-in with what the briefs ask for; without `briefs`, with those that apply.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: the folder looks like a hand-in for none of the briefs.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder '{folder}'.")
    briefs = briefs or applying(folder)
    if not briefs:
        wanted = "; ".join(f"{brief}: {', '.join(signs)}" for brief, signs in SIGNS.items())
        raise ValueError(f"'{folder}' does not look like a hand-in: it holds none of these files. {wanted}")
    inspection.forget()
    return [check_one(folder, requirement) for requirement in REQUIREMENTS if requirement.brief in briefs]


def check_one(folder: Path, requirement: Requirement) -> Result:
    """Check one requirement. A file that cannot be read makes it fail, and never ends the check of a whole class."""
    module, function = requirement.check.split(".")
    check = getattr(importlib.import_module(f"utils.handin.{module}"), function)
    advice = ""
    try:
        status, found = "pass", check(folder, **requirement.arguments)
    except inspection.Unchecked as error:
        status, found = "unchecked", str(error)
    except inspection.Failed as error:
        status, found, advice = "fail", str(error), requirement.advice
    except Exception as error:  # somebody else's files can be damaged in any way
        status, found, advice = "fail", f"could not be read ({type(error).__name__}: {error})", requirement.advice
    return Result(requirement.brief, requirement.wording, status, found, advice)


def counts(results: list[Result]) -> str:
    """One line: how many requirements are right, wrong and unchecked."""
    number = {status: sum(r.status == status for r in results) for status in MARKS}
    return f"{number['pass']} right, {number['fail']} wrong, {number['unchecked']} could not be checked"


def table(results: list[Result]) -> str:
    """The results by brief, a line for each requirement. Below those that are not right: what was found, and advice."""
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
    """Check one hand-in and print the results. Returns whether no requirement failed."""
    results = check(folder, briefs)
    print(json.dumps([r._asdict() for r in results], indent=1) if as_json else table(results))
    return not any(r.status == "fail" for r in results)


def report_all(parent: Path, briefs: list[str] | None, as_json: bool) -> bool:
    """Check every folder in `parent` and print a line for each. Returns whether no requirement failed.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    if not parent.is_dir():
        raise NotADirectoryError(f"There is no folder '{parent}'.")
    every = {}
    for folder in sorted(p for p in parent.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != "."):
        try:
            every[folder.name] = check(folder, briefs)
        except ValueError as error:
            every[folder.name] = [Result("none", "a hand-in", "fail", str(error), "")]
    if as_json:
        print(json.dumps({name: [r._asdict() for r in results] for name, results in every.items()}, indent=1))
    else:
        width = max(map(len, every), default=0)
        for name, results in every.items():
            first = next((f"; first: {r.requirement}" for r in results if r.status == "fail"), "")
            print(f"{name:<{width}}  {counts(results)}{first}")
    return not any(r.status == "fail" for results in every.values() for r in results)
