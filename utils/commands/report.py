"""`report` and `pictures`: show the committed results as a static site, and in the README."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command
from utils.config import PROJECT
from utils.files import path_argument


def report(options: argparse.Namespace) -> None:
    """The command `report`."""
    from utils.notebooks import site

    pages = site.build(PROJECT, options.out)
    print(f"{len(pages)} pages: open {options.out / 'index.html'}")


def pictures(options: argparse.Namespace) -> None:
    """The command `pictures`."""
    from utils.notebooks import pictures

    for path in pictures.draw(PROJECT):
        print(path.relative_to(PROJECT).as_posix())


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the command line."""
    making = add_command(commands, "report", report, "make one static site from the executed notebooks", "~/site")
    making.add_argument(
        "out", type=path_argument, nargs="?", default=PROJECT / "site", help="folder of the site; default: site/"
    )
    add_command(
        commands, "pictures", pictures, "draw the pictures of the README from the committed results", "",
        first="The course's images of hands must be here.",
    )  # fmt: skip
