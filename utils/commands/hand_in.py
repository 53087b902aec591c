"""`check`, `rename`, `export` and `colab`: the commands for a hand-in. `check` executes nothing from the hand-in."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command
from utils.config import PROJECT
from utils.files import path_argument, printable
from utils.handin.briefs import BRIEFS

MAX_LINES = 5  # number of renamed files that are printed


def check(options: argparse.Namespace) -> int:
    """The command `check`. Returns the exit code."""
    from utils.handin import compare

    briefs = [options.brief] if options.brief else None
    if options.all:
        return 0 if compare.report_all(options.all, briefs, options.json) else 1
    return 0 if compare.report(options.folder, briefs, options.json) else 1


def rename(options: argparse.Namespace) -> None:
    """The command `rename`."""
    from utils.handin import rename as renaming

    if renaming.undo(options.folder):
        print("An earlier renaming did not finish. It was undone first.")
    action = renaming.plan if options.dry_run else renaming.rename
    steps = action(options.folder, options.username, options.name, options.cid)
    for source, target in steps.moves[:MAX_LINES]:
        print(f"  {printable(source)} -> {printable(target)}")
    if len(steps.moves) > MAX_LINES:
        print(f"  ... and {len(steps.moves) - MAX_LINES} more")
    done = "would change" if options.dry_run else "changed"
    print(f"{done}: {len(steps.moves)} names, texts in {len(steps.texts)} files")


def export(options: argparse.Namespace) -> int:
    """The command `export`. The new folder is checked, and the exit code is 1 if the check fails."""
    from utils.handin import compare, inspection
    from utils.handin import export as exporting

    exporting.export(options.folder, options.brief, options.out, options.model)
    print(f"{options.out}: {len(inspection.listing(options.out))} files")
    return 0 if compare.report(options.out, [options.brief], as_json=False) else 1


def colab(options: argparse.Namespace) -> None:
    """The command `colab`."""
    from utils.notebooks import colab as links

    changed = links.point_to(options.folder, options.repository)
    print(f"changed the address in {len(changed)} files" + (f": {', '.join(changed)}" if changed else ""))


def register(commands: argparse._SubParsersAction) -> None:
    """Add the four commands to the command line."""
    briefs = ", ".join(f"{brief} ({title})" for brief, title in BRIEFS.items())
    checking = add_command(
        commands, "check", check, "check a hand-in against the requirements of its brief", "~/my_hand_in --brief cw1",
        first="First make a hand-in: python -m utils export cw1 ~/my_hand_in.",
    )  # fmt: skip
    what = checking.add_mutually_exclusive_group()
    what.add_argument(
        "folder", type=path_argument, nargs="?", default=PROJECT, help="the hand-in; default: this project"
    )
    what.add_argument(
        "--all", type=path_argument, metavar="PARENT", help="check each folder in PARENT, and print one line for each"
    )
    checking.add_argument(
        "--brief", choices=BRIEFS, metavar="BRIEF", help=f"{briefs}; default: all briefs whose files are in the folder"
    )
    checking.add_argument("--json", action="store_true", help="print the results as JSON, for programs")

    naming = add_command(
        commands, "rename", rename, "put your username into file names and texts",
        'abc123 --name "Your Full Name" --cid 01234567',
    )  # fmt: skip
    naming.add_argument("username", help="2 to 20 small letters and digits")
    naming.add_argument("--name", help="your full name, for the first cells of the notebooks")
    naming.add_argument("--cid", help="your CID, 8 digits, for the first cells of the notebooks")
    naming.add_argument("--folder", type=path_argument, default=PROJECT, help="the hand-in; default: this project")
    naming.add_argument("--dry-run", action="store_true", help="only print what would change")

    making = add_command(
        commands, "export", export, "make a folder that is ready to be handed in", "portfolio ~/hand_in"
    )
    making.add_argument("brief", choices=BRIEFS, metavar="BRIEF", help=briefs)
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
