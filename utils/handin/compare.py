"""Compares a hand-in with the briefs that it answers, and prints the result.

Nothing in a hand-in is executed or unpickled, and links in it are not followed.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.files import printable
from utils.handin import briefs
from utils.handin.inspection import Failed, Finding, HandIn, Unchecked
from utils.handin.recognise import Work

MARKS = {"ok": "ok    ", "fault": "FAULT ", "remark": "remark", "unchecked": "?     "}
WORST_FIRST = ("fault", "unchecked", "remark", "ok")
WIDTH, INDENT = 108, 9  # of the printed table; of what is below a line
MOST = 8  # findings of one line that are printed; --json has all


class Line(NamedTuple):
    """The result of one requirement. The kind is ok, fault, remark or unchecked."""

    requirement: str
    kind: str
    found: list[str]
    advice: str
    quote: str


class Result(NamedTuple):
    """A hand-in compared with one brief."""

    folder: str
    brief: str
    title: str
    lines: list[Line]
    work: Work | None


def recognised(handin: HandIn) -> list[Work]:
    """The hand-in as an answer to each brief that it seems to answer, by its notebooks, tables and arrays.

    If there are none of these, a report or images are enough.
    """
    works = [Work(handin, briefs.load(name)) for name in briefs.names()]
    found = [work for work in works if work.answers()] or [work for work in works if work.may_answer()]
    replaced = {name for work in found for name in work.brief.instead_of}
    return [work for work in found if work.brief.name not in replaced]


def check(path: Path, names: list[str] | None = None, chosen: dict[str, str] | None = None) -> list[Result]:
    """Compare a hand-in with briefs. Without `names`, those from `recognised` are used.

    Args:
        path: a folder or a zip file.
        names: names of briefs, or paths of TOML files.
        chosen: files for roles, where they cannot be recognised.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder or zip file.
        ValueError: it does not look like a hand-in for any brief, or `chosen` names an unknown role or file.
    """
    if not path.exists():
        raise NotADirectoryError(f"There is no folder '{path}'.")
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise NotADirectoryError(f"'{path}' is a file, but a folder or a zip file is needed.")
    try:
        handin = HandIn(path)
    except Failed as error:
        raise ValueError(f"'{path}': {error}") from error
    if names:
        works = [Work(handin, briefs.load(name), chosen) for name in names]
    else:
        works = recognised(handin)
        if chosen:
            known = [w for w in works if set(chosen) <= w.brief.files.keys()]
            works = [Work(handin, w.brief, chosen) for w in known] or works
            if not known:
                raise ValueError(f"no brief has the files {', '.join(chosen)}; name the brief with --brief")
    if not works:
        seen = ", ".join(handin.notebooks[:5]) or "no notebook"
        raise ValueError(
            f"'{path}' does not look like a hand-in for {', '.join(briefs.names())}: it holds {len(handin.names)} "
            f"files, {seen}. Name the brief with --brief, and files with --notebook ROLE=FILE"
        )
    return [compare(work) for work in works]


def compare(work: Work) -> Result:
    """Compare a hand-in with one brief."""
    lines = [line for request in work.brief.requests for line in answer(work, request)]
    return Result(str(work.handin.path), work.brief.name, work.brief.title, lines, work)


def answer(work: Work, request: briefs.Request) -> list[Line]:
    """The result of one requirement.

    If the file is missing, its other requirements are unchecked, so that one fault does not count twice.
    """
    problem = work.problem(request.of) if request.of and request.check != "present" else ""
    if problem:
        found = [Finding("unchecked", problem)]
    else:
        try:
            with np.errstate(all="ignore"):  # damaged arrays hold any numbers
                found = list(briefs.CHECKS[request.check](work, request.of, **request.arguments))
        except Failed as error:
            found = [Finding("fault", str(error))]
        except Unchecked as error:
            found = [Finding("unchecked", str(error))]
        except Exception as error:  # another person's files can be damaged in any way
            found = [Finding("unchecked", f"the check failed ({type(error).__name__}: {error}); look at it yourself")]
    if request.kind == "remark":
        found = [Finding("remark", f.text) if f.kind == "fault" else f for f in found]
    found = [Finding(f.kind, " ".join(printable(f.text).split())) for f in found]
    kinds = {f.kind for f in found} or {"ok"}
    worst = next(kind for kind in WORST_FIRST if kind in kinds)
    lines = [_line(request, worst, found, request.asks)]
    if worst in ("fault", "unchecked") and "remark" in kinds:
        lines.append(_line(request, "remark", found, f"{request.asks} (remarks)"))
    if worst == "fault" and "unchecked" in kinds:
        lines.append(_line(request, "unchecked", found, f"{request.asks} (not checked)"))
    return lines


def _line(request: briefs.Request, kind: str, found: list[Finding], asks: str) -> Line:
    wrong = kind == "fault"
    texts = [f.text for f in found if f.kind == kind]
    return Line(asks, kind, texts, request.advice if wrong else "", request.quote if wrong else "")


def counts(results: list[Result]) -> dict[str, int]:
    """The number of lines of each kind."""
    return {kind: sum(line.kind == kind for r in results for line in r.lines) for kind in MARKS}


def summary(results: list[Result]) -> str:
    """One line with the number of lines of each kind."""
    n = counts(results)
    return f"{n['ok']} right, {n['fault']} faults, {n['remark']} remarks, {n['unchecked']} could not be checked"


def as_json(results: list[Result]) -> list[dict]:
    """The results for programs: an object for each hand-in and brief."""
    return [
        {
            "folder": printable(result.folder),
            "brief": result.brief,
            "lines": [
                {
                    "requirement": line.requirement,
                    "kind": line.kind,
                    "found": line.found,
                    "advice": " ".join(filter(None, [line.advice, f'The brief: "{line.quote}"' if line.quote else ""])),
                }
                for line in result.lines
            ],
        }
        for result in results
    ]


def _wrapped(text: str, others: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * others)


def _shown(line: Line) -> list[str]:
    """One line of the table, with what is below it."""
    if line.kind == "ok":
        return [f"  {MARKS['ok']} {line.requirement}" + (f": {'; '.join(line.found)[:100]}" if line.found else "")]
    shown = [f"  {MARKS[line.kind]} {line.requirement}"]
    for text in line.found[:MOST]:
        shown += _wrapped(text, 11)
    if len(line.found) > MOST:
        shown.append(f"{' ' * INDENT}... and {len(line.found) - MOST} more")
    if line.quote:
        shown += _wrapped(f'the brief: "{line.quote}"', INDENT)
    if line.advice:
        shown += _wrapped(f"-> {line.advice}", 12)
    return shown


def table(results: list[Result]) -> str:
    """A table with one line for each requirement. Findings, advice and the brief's words are below their line."""
    shown = []
    for result in results:
        shown.append(f"\n{result.brief}: {result.title}")
        alike: Counter[str] = Counter()  # the number of lines that could not be checked, by their only reason
        for line in result.lines:
            reason = line.found[0] if line.kind == "unchecked" and len(line.found) == 1 else None
            if reason is not None:
                alike[reason] += 1
            if reason is None or alike[reason] == 1:
                shown += _shown(line)
        for reason, number in alike.items():
            if number > 1:
                text = f"{number - 1} further line{'s' * (number > 2)} could not be checked: {reason}"
                shown += _wrapped(text, 11)
    return "\n".join([*shown, "", summary(results)])
