"""`sample`: new images from the weights that are shipped, in seconds and without training."""

from __future__ import annotations

import argparse

from utils.config import SHIPPED
from utils.files import path_argument


def sample(options: argparse.Namespace) -> None:
    """The command `sample`."""
    from utils.models import shipped

    written = shipped.write(options.model, options.count, options.seed, options.out, options.format)
    print(f"{options.count} images of '{options.model}': {written}")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    sampling = commands.add_parser("sample", help="make new images from the weights that are shipped")
    sampling.add_argument("model", choices=SHIPPED)
    sampling.add_argument("--count", type=int, default=300, help="how many; default: 300")
    sampling.add_argument("--seed", type=int, default=0, help="the same seed gives the same images; default: 0")
    sampling.add_argument(
        "--out", type=path_argument, required=True, help="a new folder, or a file .npy for one array of them all"
    )
    sampling.add_argument("--format", choices=["jpeg", "png"], default="jpeg", help="of files in a folder")
    sampling.set_defaults(action=sample)
