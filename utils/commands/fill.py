"""`fill`: fill the missing stripes of head images."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command
from utils.files import path_argument


def fill(options: argparse.Namespace) -> None:
    """The command `fill`."""
    from utils.data import head_images
    from utils.models.imputer import Imputer, fill_zeros

    images = head_images.read(options.input)
    models = [Imputer.from_weights(path) for path in options.weights or head_images.IMPUTERS]
    filled, deviation = fill_zeros(images, models)
    head_images.write(filled, options.output)
    if options.deviation:
        head_images.write(deviation, options.deviation)
    print(f"{len(images)} images filled: {options.output}")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    filling = add_command(
        commands, "fill", fill, "fill the missing stripes of head images in a .npy file",
        "test_set.npy filled.npy --deviation deviation.npy",
    )  # fmt: skip
    filling.add_argument(
        "input", type=path_argument, metavar="IN.npy", help="floats (N, 1, 64, 64) in [0, 1]; missing pixels are 0"
    )
    filling.add_argument(
        "output", type=path_argument, metavar="OUT.npy", help="float32, the same shape, nothing missing"
    )
    filling.add_argument("--weights", type=path_argument, nargs="+", help="default: those that are shipped")
    filling.add_argument(
        "--deviation", type=path_argument, metavar="FILE", help="write each pixel's standard deviation to this .npy"
    )
