"""`check`, `rename`, `export` and `colab`: everything about the hand-in. Nothing of a checked hand-in is executed."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command
from utils.config import PROJECT
from utils.files import path_argument, printable
from utils.handin.briefs import BRIEFS

MAX_LINES = 5  # renamed files that are listed


def check(options: argparse.Namespace) -> int:
    """The command `check`; its exit code."""
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
    """The command `export`; its exit code is that of the check of the new folder."""
    from utils.handin import compare, inspection
    from utils.handin import export as exporting

    exporting.export(options.folder, options.brief, options.out, options.model)
    print(f"{options.out}: {len(inspection.listing(options.out))} files")
    return 0 if compare.report(options.out, [options.brief], as_json=False) else 1


def colab(options: argparse.Namespace) -> None:
    """The command `colab`."""
    from utils.notebooks import colab as links

    changed = links.point_to(options.folder, options.repository)
    print(f"changed the links in {len(changed)} files" + (f": {', '.join(changed)}" if changed else ""))


def register(commands: argparse._SubParsersAction) -> None:
    """Add the four commands to the command line."""
    briefs = ", ".join(f"{brief} ({title})" for brief, title in BRIEFS.items())
    checking = add_command(
        commands, "check", check, "compare a hand-in with what its brief asks for", "~/my_hand_in --brief cw1"
    )
    what = checking.add_mutually_exclusive_group()
    what.add_argument("folder", type=path_argument, nargs="?", default=PROJECT, help="default: this project")
    what.add_argument(
        "--all", type=path_argument, metavar="PARENT", help="check each folder in this one, and print a line for each"
    )
    checking.add_argument(
        "--brief", choices=BRIEFS, metavar="BRIEF", help=f"{briefs}; default: all that the folder has files of"
    )
    checking.add_argument("--json", action="store_true", help="print the results as JSON, for programs")

    naming = add_command(
        commands, "rename", rename, "put your username into the names of the files and into the texts that name them",
        'abc123 --name "Your Full Name" --cid 01234567',
    )  # fmt: skip
    naming.add_argument("username", help="2 to 20 small letters and digits")
    naming.add_argument("--name", help="your full name, for the first cells of the notebooks")
    naming.add_argument("--cid", help="your CID, 8 digits, for the first cells of the notebooks")
    naming.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this project")
    naming.add_argument("--dry-run", action="store_true", help="only say what would change")

    making = add_command(
        commands, "export", export, "make a folder that can be handed in as it is", "portfolio ~/hand_in"
    )
    making.add_argument("brief", choices=BRIEFS, metavar="BRIEF", help=briefs)
    making.add_argument("out", type=path_argument, help="a new folder")
    making.add_argument(
        "--model", choices=["GAN", "VAE"], default="GAN", help="whose hands are handed in for cw1; default: GAN"
    )
    making.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this project")

    linking = add_command(
        commands, "colab", colab, "make the 'Open in Colab' links lead to your copy on GitHub", "my-name/my-copy"
    )
    linking.add_argument("repository", help="OWNER/NAME")
    linking.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this project")
