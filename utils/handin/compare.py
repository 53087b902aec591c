"""Compares a hand-in with what its brief asks for, and prints the outcome.

Nothing in a hand-in is run, unpickled or followed out of its folder.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import NamedTuple

from utils.handin import checks, inspection
from utils.handin.briefs import BRIEFS, REQUIREMENTS, SIGNS

MARKS = {"pass": "ok  ", "fail": "FAIL", "unchecked": "?   "}


class Result(NamedTuple):
    """What became of one requirement; `status` is pass, fail or unchecked."""

    brief: str
    requirement: str
    status: str
    found: str
    advice: str


def applying(folder: Path) -> list[str]:
    """The briefs that a folder looks like a hand-in for."""
    return [brief for brief, signs in SIGNS.items() if any(any(folder.glob(sign)) for sign in signs)]


def check(folder: Path, briefs: list[str] | None = None) -> list[Result]:
    """Compare a hand-in with what the briefs ask for; without `briefs`, with those that apply.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it looks like a hand-in to none of the briefs.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder '{folder}'.")
    briefs = briefs or applying(folder)
    if not briefs:
        wanted = "; ".join(f"{brief}: {', '.join(signs)}" for brief, signs in SIGNS.items())
        raise ValueError(f"'{folder}' looks like no hand-in: it holds none of these files. {wanted}")
    inspection.forget()
    results = []
    for brief, wording, name, arguments, advice in REQUIREMENTS:
        if brief not in briefs:
            continue
        try:
            status, found = "pass", getattr(checks, name)(folder, **arguments)
        except inspection.Failed as error:
            status, found = "fail", str(error)
        except inspection.Unchecked as error:
            status, found = "unchecked", str(error)
        except Exception as error:  # somebody else's files: one odd file must not end the check of a whole class
            status, found = "fail", f"could not be read ({type(error).__name__}: {error})"
        results.append(Result(brief, wording, status, found, advice if status == "fail" else ""))
    return results


def counts(results: list[Result]) -> str:
    """One line: how many of each."""
    number = {status: sum(r.status == status for r in results) for status in MARKS}
    return f"{number['pass']} right, {number['fail']} wrong, {number['unchecked']} could not be checked"


def table(results: list[Result]) -> str:
    """The results by brief, one requirement a line, with what was found below where it is not right."""
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
    """Check one hand-in and print the outcome; is everything right that could be checked?"""
    results = check(folder, briefs)
    print(json.dumps([r._asdict() for r in results], indent=1) if as_json else table(results))
    return not any(r.status == "fail" for r in results)


def report_all(parent: Path, briefs: list[str] | None, as_json: bool) -> bool:
    """Check every folder in `parent`, a line each."""
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
