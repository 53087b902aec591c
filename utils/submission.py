"""The hand-in: `python -m utils.submission check` says what is missing, `rename` gives it your name,
`export` puts together what a brief asks for, `colab` lets the notebooks' links lead to your copy.

Nothing in a hand-in that is checked is run, unpickled or followed out of its folder.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import NamedTuple

from utils import checks, exporting, inspection, renaming, runs
from utils.briefs import BRIEFS, REQUIREMENTS, SIGNS

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


def run_check(options: argparse.Namespace) -> int:
    """The command `check`; its exit code."""
    action = report_all if options.all else report
    return 0 if action(options.folder, [options.brief] if options.brief else None, options.json) else 1


def run_rename(options: argparse.Namespace) -> int:
    """The command `rename`; its exit code."""
    if renaming.undo(options.folder):
        print("An earlier renaming was not finished; it has been undone first.")
    action = renaming.plan if options.dry_run else renaming.rename
    steps = action(options.folder, options.username, options.name, options.cid)
    for source, target in steps.moves[:5]:
        print(f"  {source} -> {target}")
    if len(steps.moves) > 5:
        print(f"  ... and {len(steps.moves) - 5} more")
    done = "would change" if options.dry_run else "changed"
    print(f"{done}: {len(steps.moves)} names, texts in {len(steps.texts)} files")
    return 0


def run_colab(options: argparse.Namespace) -> int:
    """The command `colab`; its exit code."""
    changed = renaming.point_to(options.folder, options.repository)
    print(f"changed the links in {len(changed)} files: {', '.join(changed) or 'all led there already'}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """The command `export`; its exit code is that of the new folder's own check."""
    exporting.export(options.folder, options.brief, options.out, options.model)
    print(f"{options.out}: {len(inspection.listing(options.out))} files")
    return 0 if report(options.out, [options.brief], as_json=False) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.submission", description=__doc__)
    commands = parser.add_subparsers(required=True)
    checking = commands.add_parser("check", help="compare a hand-in with what its brief asks for")
    checking.add_argument("folder", type=Path, nargs="?", default=runs.PROJECT, help="default: this repository")
    checking.add_argument("--brief", choices=BRIEFS, help="default: all that the folder looks like")
    checking.add_argument("--all", action="store_true", help="FOLDER holds one hand-in a sub-folder: a line for each")
    checking.add_argument("--json", action="store_true", help="for programs")
    checking.set_defaults(run=run_check)
    naming = commands.add_parser("rename", help="give notebooks, CSV, JPEGs and the texts that name them your username")
    naming.add_argument("username", help="2 to 20 small letters and digits")
    naming.add_argument("--name", help="your full name, for the notebooks' first cells")
    naming.add_argument("--cid", help="your CID, 8 digits, likewise")
    naming.add_argument("--folder", type=Path, default=runs.PROJECT, help="default: this repository")
    naming.add_argument("--dry-run", action="store_true", help="only say what would be changed")
    naming.set_defaults(run=run_rename)
    linking = commands.add_parser("colab", help="let the 'Open in Colab' links lead to your copy on GitHub")
    linking.add_argument("repository", help="OWNER/NAME")
    linking.add_argument("--folder", type=Path, default=runs.PROJECT, help="default: this repository")
    linking.set_defaults(run=run_colab)
    making = commands.add_parser("export", help="put together a folder that can be handed in as it is")
    making.add_argument("brief", choices=exporting.LAYOUTS)
    making.add_argument("out", type=Path, help="a new folder")
    making.add_argument("--model", choices=["GAN", "VAE"], default="GAN", help="whose hands coursework 1 hands in")
    making.add_argument("--folder", type=Path, default=runs.PROJECT, help="default: this repository")
    making.set_defaults(run=run_export)
    options = parser.parse_args()
    try:
        raise SystemExit(options.run(options))
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
