"""Everything that this project does from a terminal."""

from __future__ import annotations

import sys

from utils import OLDEST_PYTHON

if sys.version_info < OLDEST_PYTHON:  # before the imports, because an older Python may not read the other modules
    _oldest = ".".join(map(str, OLDEST_PYTHON))
    sys.exit(
        f"error: Python {_oldest} or newer is needed, but this is Python {sys.version.split()[0]}. Get a newer one "
        "from https://www.python.org/downloads/, or with 'uv python install 3.13', 'brew install python' or "
        f"'sudo apt install python{_oldest} python{_oldest}-venv'. Then start the same command with it, for example: "
        f"python{_oldest} -m utils run, or: make run PYTHON=python{_oldest}"
    )

import argparse
import errno
import os

from utils.commands import data, environment, fill, hand_in, report, sample, train
from utils.config import PROJECT
from utils.files import escape_unprintable_output


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands. Building it imports nothing that takes long."""
    parser = argparse.ArgumentParser(
        prog="python -m utils",
        description=__doc__,
        epilog="Start with: python -m utils run. It creates the environment .venv, which the other commands need: "
        ".venv/bin/python -m utils COMMAND (on Windows: .venv\\Scripts\\python). "
        "To see a command's options: python -m utils COMMAND --help",
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    for module in (environment, data, train, sample, fill, hand_in, report):
        module.register(commands)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one command.

    Raises:
        SystemExit: the exit code is 1 after an error or a failed check, 2 for wrong arguments, 130 after Ctrl-C.
    """
    escape_unprintable_output()
    parser = command_line()
    options = parser.parse_args(arguments)
    if "action" not in options:
        parser.print_help()
        parser.exit(2, "\nerror: a COMMAND is missing\n")
    try:
        code = options.action(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nStopped with Ctrl-C. Start the same command again to go on.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the program that reads the output has ended, as in `python -m utils check | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("utils"):
            raise
        code = (
            f"error: the package '{error.name}' is missing. Create the environment with 'python -m utils install', "
            "then use its Python: .venv/bin/python (on Windows: .venv\\Scripts\\python)"
        )
    except (OSError, ValueError, FloatingPointError) as error:
        code = f"error: {' '.join(str(error).split())}"
        refused = getattr(error, "errno", None) in (errno.EROFS, errno.EACCES, errno.EPERM)
        if refused and not os.access(PROJECT, os.W_OK):
            code += ". The project's folder is read-only: copy the project to a folder that you can write to."
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
