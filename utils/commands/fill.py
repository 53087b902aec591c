"""`fill`: fill the missing stripes of head images."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from utils.commands.arguments import add_command
from utils.files import could_not_write, path_argument, printable


def check_outputs(source: Path, outputs: list[Path]) -> None:
    """Check that every output can be written, before the images are filled. Missing folders are created.

    Raises:
        ValueError: two paths are the same file, or the name of an output does not end in .npy.
        FileExistsError: an output already exists.
        OSError: a folder cannot be written to.
    """
    paths = [path.resolve() for path in (source, *outputs)]
    if len(set(paths)) < len(paths):
        raise ValueError("the input and the outputs must be different files: the input is never overwritten")
    for path in outputs:
        if path.is_dir():
            raise ValueError(f"'{printable(path)}' is a folder: name a file in it, for example out.npy")
        if path.suffix != ".npy":
            raise ValueError(f"'{printable(path)}' does not end in .npy, but the result is a .npy file")
        if path.exists():
            raise FileExistsError(f"'{printable(path)}' already exists. Choose a new name, or remove it.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise could_not_write(path, error) from error


def fill(options: argparse.Namespace) -> None:
    """The command `fill`."""
    from utils.data import head_images

    images = head_images.read(options.input)
    check_outputs(options.input, [path for path in (options.output, options.deviation) if path])

    from utils.models.heads.imputer import Imputer, fill_zeros

    models = [Imputer.from_weights(path) for path in options.weights or head_images.IMPUTERS]
    filled, deviation = fill_zeros(images, models)
    head_images.write(filled, options.output)
    if options.deviation:
        head_images.write(deviation, options.deviation)
    print(f"{len(images)} images filled, shape {filled.shape}: {printable(options.output)}")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    filling = add_command(
        commands, "fill", fill, "fill the missing stripes of head images in a .npy file",
        "test_set.npy filled.npy --deviation deviation.npy",
        first="First get the course's test_set.npy, or another file with images that have the same gaps.",
    )  # fmt: skip
    filling.add_argument(
        "input", type=path_argument, metavar="IN.npy", help="floats (N, 1, 64, 64) in [0, 1]; missing pixels are 0"
    )
    filling.add_argument(
        "output", type=path_argument, metavar="OUT.npy",
        help="a new file: float32 (N, 1, 64, 64) in [0, 1]; no pixel is missing",
    )  # fmt: skip
    filling.add_argument(
        "--weights", type=path_argument, nargs="+", help="files with weights; default: the weights in this project"
    )
    filling.add_argument(
        "--deviation", type=path_argument, metavar="FILE.npy",
        help="a new file for the standard deviation of the predicted value of each filled pixel",
    )  # fmt: skip
