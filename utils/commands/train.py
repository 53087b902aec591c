"""`train`: train one family of models on a folder of images, or on Fashion-MNIST; the same command resumes."""

from __future__ import annotations

import argparse

from utils.config import DATA_SETS, FAMILIES
from utils.files import path_argument


def train(options: argparse.Namespace) -> None:
    """The command `train`."""
    from utils.models import folder_training
    from utils.training import devices

    arguments = {name: value for name, value in vars(options).items() if name != "action"}
    folder_training.train(**arguments)
    accelerator = devices.accelerator()
    accelerator.wait_for_everyone()  # a process that leaves early takes the connection from under the others
    accelerator.end_training()


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    training = commands.add_parser("train", help="train one family of models on a folder of images; resumes")
    training.add_argument("family", choices=FAMILIES)
    training.add_argument("--images", required=True, help=f"a folder of images, or one of {', '.join(DATA_SETS)}")
    training.add_argument("--size", type=int, default=32, help="pixels a side that a folder's images are brought to")
    training.add_argument("--seen", type=int, required=True, help="images that training sees, over all processes")
    training.add_argument("--out", type=path_argument, required=True, help="folder for checkpoints, weights, samples")
    training.add_argument(
        "--cache", dest="file", type=path_argument, help="keep the decoded images in this file instead of in memory"
    )
    training.add_argument("--batch", type=int, help="images a step over all processes, instead of the committed number")
    training.add_argument("--lr-scale", type=float, default=1.0, help="factor on the committed learning rates")
    training.add_argument("--samples", type=int, default=100)
    training.add_argument("--seed", type=int, default=0)
    training.set_defaults(action=train)
