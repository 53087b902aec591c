"""Checks of style that ruff cannot make, because it does not know which variables are paths."""

import ast
import json
import re

import pytest

from utils import config

FOLDERS = ("utils", "tests", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (config.PROJECT / folder).rglob("*.py"))
NOTEBOOKS = sorted(config.PROJECT / name for names in config.TASKS.values() for name in names)


def without_encoding(source: str) -> list[int]:
    """The numbers of the lines that read or write text without `encoding=`."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("read_text", "write_text")
        and not any(keyword.arg == "encoding" for keyword in call.keywords)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_text_files_are_read_and_written_with_an_encoding(folder):
    paths = [path for path in SOURCES if path.is_relative_to(config.PROJECT / folder)]
    lines = {path.name: without_encoding(path.read_text(encoding="utf-8")) for path in paths}
    assert lines and not any(lines.values()), {name: found for name, found in lines.items() if found}


def test_notebooks_read_and_write_text_files_with_an_encoding():
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                code = re.sub(r"^( *)[%!].*", r"\1pass", "".join(cell["source"]), flags=re.M)  # IPython commands
                assert not without_encoding(code), (path.name, code)
