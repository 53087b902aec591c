"""`sample`: make new images with the weights in this project, in seconds and without training."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command, positive_integer, seed
from utils.config import SHIPPED
from utils.files import path_argument


def sample(options: argparse.Namespace) -> None:
    """The command `sample`."""
    from utils.models import shipped

    written = shipped.write(options.model, options.count, options.seed, options.out, options.format)
    print(f"{options.count} images of '{options.model}': {written}")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    sampling = add_command(
        commands, "sample", sample, "make new images with the weights in this project, without training",
        "hands-gan --count 300 --out new_hands",
    )  # fmt: skip
    sampling.add_argument("model", choices=SHIPPED, help="one of: %(choices)s", metavar="MODEL")
    sampling.add_argument("--count", type=positive_integer, default=300, help="number of images; default: 300")
    sampling.add_argument(
        "--seed", type=seed, default=1,
        help="the same seed gives the same images; default: 1. Seed 0 gives the hands of GAN_hands/ again.",
    )  # fmt: skip
    sampling.add_argument(
        "--out", type=path_argument, required=True, help="a new folder for image files, or a new .npy file"
    )
    sampling.add_argument(
        "--format", choices=["jpeg", "png"], help="format of the image files in a folder; default: jpeg"
    )
