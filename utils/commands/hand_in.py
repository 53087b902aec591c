"""`check`, `rename`, `colab` and `export`: everything about the hand-in. Nothing of a hand-in that is checked is run."""

from __future__ import annotations

import argparse

from utils.config import PROJECT
from utils.files import path_argument
from utils.handin.briefs import BRIEFS


def check(options: argparse.Namespace) -> int:
    """The command `check`; its exit code."""
    from utils.handin import compare

    action = compare.report_all if options.all else compare.report
    return 0 if action(options.folder, [options.brief] if options.brief else None, options.json) else 1


def rename(options: argparse.Namespace) -> int:
    """The command `rename`; its exit code."""
    from utils.handin import rename as renaming

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


def colab(options: argparse.Namespace) -> int:
    """The command `colab`; its exit code."""
    from utils.notebooks import colab as links

    changed = links.point_to(options.folder, options.repository)
    print(f"changed the links in {len(changed)} files: {', '.join(changed) or 'all led there already'}")
    return 0


def export(options: argparse.Namespace) -> int:
    """The command `export`; its exit code is that of the new folder's own check."""
    from utils.handin import compare, inspection
    from utils.handin import export as exporting

    exporting.export(options.folder, options.brief, options.out, options.model)
    print(f"{options.out}: {len(inspection.listing(options.out))} files")
    return 0 if compare.report(options.out, [options.brief], as_json=False) else 1


def register(commands: argparse._SubParsersAction) -> None:
    """Add the four commands to the command line."""
    checking = commands.add_parser("check", help="compare a hand-in with what its brief asks for")
    checking.add_argument("folder", type=path_argument, nargs="?", default=PROJECT, help="default: this repository")
    checking.add_argument("--brief", choices=BRIEFS, help="default: all that the folder looks like")
    checking.add_argument("--all", action="store_true", help="FOLDER holds one hand-in a sub-folder: a line for each")
    checking.add_argument("--json", action="store_true", help="for programs")
    checking.set_defaults(action=check)
    naming = commands.add_parser("rename", help="give notebooks, CSV, JPEGs and the texts that name them your username")
    naming.add_argument("username", help="2 to 20 small letters and digits")
    naming.add_argument("--name", help="your full name, for the notebooks' first cells")
    naming.add_argument("--cid", help="your CID, 8 digits, likewise")
    naming.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this repository")
    naming.add_argument("--dry-run", action="store_true", help="only say what would be changed")
    naming.set_defaults(action=rename)
    linking = commands.add_parser("colab", help="let the 'Open in Colab' links lead to your copy on GitHub")
    linking.add_argument("repository", help="OWNER/NAME")
    linking.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this repository")
    linking.set_defaults(action=colab)
    making = commands.add_parser("export", help="put together a folder that can be handed in as it is")
    making.add_argument("brief", choices=BRIEFS)
    making.add_argument("out", type=path_argument, help="a new folder")
    making.add_argument("--model", choices=["GAN", "VAE"], default="GAN", help="whose hands coursework 1 hands in")
    making.add_argument("--folder", type=path_argument, default=PROJECT, help="default: this repository")
    making.set_defaults(action=export)
