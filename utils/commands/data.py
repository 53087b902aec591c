"""`data`: fill the data folders with the course's images."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command, positive_integer
from utils.files import path_argument


def data(options: argparse.Namespace) -> None:
    """The command `data`."""
    from utils.data import sources

    network = not options.no_network
    if options.size is None:
        sources.obtain(source=options.source, network=network, stand_in=_sampled_hands)
    else:
        folder = sources.of_size(options.size, archive=options.source, network=network)
        print(f"{len(list(folder.iterdir()))} hands in {folder.name}/")


def _sampled_hands(count: int):
    from utils.models import shipped  # here, because this imports torch, and stand-ins are rarely needed

    return shipped.hands(count)


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    filling = add_command(
        commands, "data", data, "fill the data folders with the course's images, or with stand-ins",
        "--from hands_cw1.tar.gz", first="The course's archive hands_cw1.tar.gz must be here for the example.",
    )  # fmt: skip
    filling.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        type=path_argument,
        help="use only this folder or archive (.tar.gz, .zip)",
    )
    filling.add_argument("--no-network", action="store_true", help="do not download MedNIST (59 MB)")
    filling.add_argument(
        "--size",
        type=positive_integer,
        metavar="PIXELS",
        help="only put MedNIST's hands into hands_PIXELS/, at PIXELS x PIXELS pixels (--from: the archive of MedNIST)",
    )
