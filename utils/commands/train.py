"""`train`: train one family of models on a folder of images or on a public data set."""

from __future__ import annotations

import argparse

from utils.commands.arguments import add_command, positive_integer, positive_number, seed
from utils.config import DATA_SETS, FAMILIES
from utils.files import path_argument


def train(options: argparse.Namespace) -> None:
    """The command `train`."""
    from utils.models import zoo
    from utils.training import devices

    arguments = {name: value for name, value in vars(options).items() if name != "action"}
    zoo.train_on_folder(**arguments)
    accelerator = devices.accelerator()
    accelerator.wait_for_everyone()  # if one process ends early, the others lose their connection
    accelerator.end_training()


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    training = add_command(
        commands, "train", train, "train one family of models; after an interruption, the same command continues",
        "VAE --images real_hands --images-seen 20000 --out runs/my_vae",
        first="First fill real_hands/: python -m utils data.",
    )  # fmt: skip
    training.add_argument("family", choices=FAMILIES, help="one of: %(choices)s", metavar="FAMILY")
    training.add_argument("--images", required=True, help=f"a folder of images, or one of: {', '.join(DATA_SETS)}")
    training.add_argument(
        "--size", type=positive_integer, default=32,
        help="images from a folder are resized to this height and width in pixels; default: 32",
    )  # fmt: skip
    training.add_argument(
        "--images-seen", type=positive_integer, required=True,
        help="number of images to train on, at least one batch, for all processes together; repeated images count "
        "each time",
    )  # fmt: skip
    training.add_argument(
        "--out", type=path_argument, required=True, help="folder for checkpoints, weights and samples"
    )
    training.add_argument(
        "--cache", dest="file", type=path_argument, metavar="FILE",
        help="keep the decoded images in this file instead of in memory",
    )  # fmt: skip
    training.add_argument(
        "--batch", type=positive_integer, help="images in a step, for all processes together; default: the tuned number"
    )
    training.add_argument(
        "--lr-scale", type=positive_number, default=1.0, help="factor for the tuned learning rates; default: 1"
    )
    training.add_argument(
        "--samples", type=positive_integer, default=100, help="number of images to sample at the end; default: 100"
    )
    training.add_argument("--fresh", action="store_true", help="start again from step 0; old checkpoints are renamed")
    training.add_argument(
        "--seed", type=seed, default=0, help="seed of the weights and of the order of the images; default: 0"
    )
