"""`data`: fill the data folders with the course's images."""

from __future__ import annotations

import argparse

from utils.files import path_argument


def data(options: argparse.Namespace) -> None:
    """The command `data`."""
    from utils.data import sources
    from utils.models import shipped

    if options.size:
        folder = sources.of_size(options.size, archive=options.source)
        print(f"{len(list(folder.iterdir()))} hands in {folder.name}/")
    else:
        sources.obtain(source=options.source, network=not options.no_network, stand_in=shipped.hands)


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    filling = commands.add_parser("data", help="fill the data folders with the course's images, or a stand-in")
    filling.add_argument(
        "--from", dest="source", type=path_argument, help="a folder or an archive (.tar.gz, .zip) to copy from"
    )
    filling.add_argument("--no-network", action="store_true", help="do not try to download MedNIST")
    filling.add_argument("--size", type=int, help="MedNIST's hands with so many pixels a side, into hands_SIZE/")
    filling.set_defaults(action=data)
