"""Functions that all commands use: they add a command to the command line, and read numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable

LARGEST_SEED = 2**32 - 1  # NumPy takes no larger one


def add_command(
    commands: argparse._SubParsersAction, name: str, action: Callable, summary: str, example: str, first: str = ""
) -> argparse.ArgumentParser:
    """Add a command to the command line. Returns its parser, so that arguments can be added.

    Args:
        commands: the commands of the main parser.
        name: the word after `python -m utils`.
        action: the function to call. It gets the parsed options and returns an exit code, or None for success.
        summary: one line that says what the command does.
        example: the arguments of the example in the help text.
        first: a sentence that says what must be there before the example works, in a new copy of the project.
    """
    description = summary[0].upper() + summary[1:] + "."
    epilog = f"{first} Example: python -m utils {name} {example}".strip()
    parser = commands.add_parser(name, help=summary, description=description, epilog=epilog)
    parser.set_defaults(action=action)
    return parser


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: the text is not such a number.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """Read a seed, a whole number from 0 to LARGEST_SEED.

    Raises:
        argparse.ArgumentTypeError: the text is not such a number.
    """
    if not text.isascii() or not text.isdigit() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed: use a whole number from 0 to {LARGEST_SEED}")
    return int(text)


def positive_number(text: str) -> float:
    """Read a number greater than 0.

    Raises:
        argparse.ArgumentTypeError: the text is not such a number.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number greater than 0")
    return number
