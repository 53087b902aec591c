"""`python -m utils COMMAND`: everything that this project does from a terminal."""

from __future__ import annotations

import argparse
import sys

from utils.commands import data, environment, fill, hand_in, report, sample, train


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands; it imports nothing that is heavy."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (environment, data, train, sample, fill, hand_in, report):
        module.register(commands)
    return parser


def main() -> None:
    options = command_line().parse_args()
    try:
        code = options.action(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("utils"):
            raise
        sys.exit(
            f"error: the package '{error.name}' is missing. Make the environment with 'python -m utils run', "
            "then use its Python: .venv/bin/python (on Windows .venv\\Scripts\\python)"
        )
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
