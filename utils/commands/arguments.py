"""What the commands share: how one is added to the command line, and the types of their numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_command(
    commands: argparse._SubParsersAction, name: str, action: Callable, summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command to the command line; returns its parser, to which arguments can be added.

    Args:
        commands: the commands of the main parser.
        name: the word after `python -m utils`.
        action: what the command does. It gets the parsed options and returns an exit code, or None for success.
        summary: what the command does, in one line.
        example: arguments that make a good example.
    """
    description = summary[0].upper() + summary[1:] + "."
    parser = commands.add_parser(
        name, help=summary, description=description, epilog=f"Example: python -m utils {name} {example}".rstrip()
    )
    parser.set_defaults(action=action)
    return parser


def positive_integer(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    """A number greater than 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number greater than 0")
    return number
