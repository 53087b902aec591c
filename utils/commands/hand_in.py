"""`check`, `rename`, `export` and `colab`: the commands for a hand-in. `check` executes nothing from the hand-in."""

from __future__ import annotations

import argparse
import json

from utils.commands.arguments import add_command
from utils.config import PROJECT
from utils.files import path_argument, printable
from utils.handin import briefs

MAX_LINES = 5  # number of renamed files that are printed


def check(options: argparse.Namespace) -> int:
    """The command `check`. Returns the exit code."""
    from utils.handin import classes, compare

    names = [options.brief] if options.brief else None
    if options.all and options.notebook:
        raise ValueError("--notebook names a file of one hand-in, so it cannot be used with --all")
    if options.all:
        form = "json" if options.json else "csv" if options.csv else "table"
        return 0 if classes.report_all(options.all, names, form, options.truth) else 1
    results = compare.check(options.folder, names, dict(options.notebook or ()))
    if options.json:
        print(json.dumps(compare.as_json(results), indent=1))
    elif options.csv:
        print(classes.as_csv(results), end="")
    else:
        print(compare.table(results))
        for result in results if options.truth else ():
            print(classes.score(result.work, options.truth) or f"{result.brief}: nothing to score")
    return 1 if compare.counts(results)["fault"] else 0


def chosen(text: str) -> tuple[str, str]:
    """Read ROLE=FILE.

    Raises:
        argparse.ArgumentTypeError: there is no `=` in it.
    """
    role, equals, name = text.partition("=")
    if not equals or not role or not name:
        raise argparse.ArgumentTypeError(f"'{text}' must be ROLE=FILE, such as clean=my_notebook.ipynb")
    return role, name


def rename(options: argparse.Namespace) -> int:
    """The command `rename`. Returns the exit code."""
    from utils.handin import rename as renaming

    if options.dry_run and renaming.unfinished(options.folder):
        print("An earlier renaming did not finish. The next one, without --dry-run, undoes it first.")
        return 1
    if not options.dry_run and renaming.undo(options.folder):
        print("An earlier renaming did not finish. It was undone first.")
    action = renaming.plan if options.dry_run else renaming.rename
    steps = action(options.folder, options.username, options.name, options.cid)
    for source, target in steps.moves[:MAX_LINES]:
        print(f"  {printable(source)} -> {printable(target)}")
    if len(steps.moves) > MAX_LINES:
        print(f"  ... and {len(steps.moves) - MAX_LINES} more")
    done = "would change" if options.dry_run else "changed"
    print(f"{done}: {len(steps.moves)} names, texts in {len(steps.texts)} files")
    for place in steps.left:
        print(f"  left as it is: {printable(place)}")
    return 0


def export(options: argparse.Namespace) -> int:
    """The command `export`. The new folder is checked, and the exit code is 1 if the check fails."""
    from utils.handin import compare, inspection
    from utils.handin import export as exporting

    exporting.export(options.folder, options.brief, options.out, options.model)
    print(f"{options.out}: {len(inspection.listing(options.out))} files")
    results = compare.check(options.out, [options.brief])
    print(compare.table(results))
    return 1 if compare.counts(results)["fault"] else 0


def colab(options: argparse.Namespace) -> None:
    """The command `colab`."""
    from utils.notebooks import colab as links

    changed = links.point_to(options.folder, options.repository)
    print(f"changed the address in {len(changed)} files" + (f": {', '.join(changed)}" if changed else ""))


def register(commands: argparse._SubParsersAction) -> None:
    """Add the four commands to the command line."""
    titles = briefs.titles()
    listed = ", ".join(f"{brief} ({title})" for brief, title in titles.items())
    checking = add_command(
        commands, "check", check, "check a hand-in against the requirements of its brief", "~/my_hand_in --brief cw1",
        first="First make a hand-in: python -m utils export cw1 ~/my_hand_in.",
    )  # fmt: skip
    what = checking.add_mutually_exclusive_group()
    what.add_argument(
        "folder",
        type=path_argument,
        nargs="?",
        default=PROJECT,
        help="the hand-in, a folder or zip file; default: this project",
    )
    what.add_argument(
        "--all", type=path_argument, metavar="PARENT", help="check each folder and zip file in PARENT, a line for each"
    )
    checking.add_argument(
        "--brief", metavar="BRIEF", help=f"{listed}, or a TOML file; default: all briefs that the folder answers"
    )
    checking.add_argument(
        "--notebook", type=chosen, action="append", metavar="ROLE=FILE",
        help="say which file has a role, if it was not recognised, such as clean=my_notebook.ipynb; roles: clean, "
        "hypertune, notebook, labels, array, report ...",
    )  # fmt: skip
    checking.add_argument(
        "--truth",
        type=path_argument,
        metavar="FILE",
        help="score with a CSV of the true labels, or a .npy of whole heads",
    )
    checking.add_argument("--json", action="store_true", help="print the results as JSON, for programs")
    checking.add_argument("--csv", action="store_true", help="print the results as CSV, for a spreadsheet")

    naming = add_command(
        commands, "rename", rename, "put your username into file names and texts",
        'abc123 --name "Your Full Name" --cid 01234567',
    )  # fmt: skip
    naming.add_argument(
        "username", help="such as ab1223, acse-ab1223 or edsml_ab123; 'username' takes your name out again"
    )
    naming.add_argument("--name", help="your full name, in any script, for the first cells of the notebooks")
    naming.add_argument("--cid", help="your CID, 8 digits, for the first cells of the notebooks")
    naming.add_argument("--folder", type=path_argument, default=PROJECT, help="the hand-in; default: this project")
    naming.add_argument("--dry-run", action="store_true", help="only print what would change; nothing is written")

    making = add_command(
        commands, "export", export, "make a folder that is ready to be handed in", "portfolio ~/hand_in"
    )
    making.add_argument("brief", choices=titles, metavar="BRIEF", help=listed)
    making.add_argument("out", type=path_argument, help="a new folder")
    making.add_argument(
        "--model", choices=["GAN", "VAE"], default="GAN", help="the model for the hands of cw1; default: GAN"
    )
    making.add_argument(
        "--folder", type=path_argument, default=PROJECT, help="a copy of this project; default: this one"
    )

    linking = add_command(
        commands,
        "colab",
        colab,
        "write the address of your copy on GitHub into the 'Open in Colab' links and the notebooks",
        "my-name/my-copy",
    )
    linking.add_argument("repository", help="OWNER/NAME")
    linking.add_argument(
        "--folder", type=path_argument, default=PROJECT, help="a copy of this project; default: this one"
    )
