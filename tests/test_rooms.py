"""The rooms of `utils`: modules import only from their own room and lower rooms, and no room is too large."""

import ast
import re

import pytest

import utils
from utils import config

ROOMS = ("data", "training", "models", "evaluation", "handin", "notebooks", "commands")  # from low to high
UTILS = config.PROJECT / "utils"
MODULES = sorted(path for path in UTILS.rglob("*.py") if path.name != "__init__.py")


def room(module: str) -> int:
    """The level of a module `utils.ROOM.NAME`: 0 for config and files, otherwise the place of its room in ROOMS."""
    parts = module.split(".")
    return 1 + ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else 0


def imported(path) -> set[str]:
    """The modules of `utils` that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("utils.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(UTILS).as_posix())
def test_a_module_imports_nothing_from_higher_rooms(path):
    own = room(".".join(path.relative_to(config.PROJECT).with_suffix("").parts))
    if path.name == "__main__.py":
        own = len(ROOMS) + 1
    upwards = sorted(name for name in imported(path) if room(name) > own)
    assert upwards == []
    if own == room("utils.handin"):  # a hand-in is checked without torch and without our models
        assert not [name for name in imported(path) if name.split(".")[1] in ("training", "models", "evaluation")]


@pytest.mark.parametrize("name", [*ROOMS, "models/heads", "handin/checks"])
def test_a_room_has_at_most_a_dozen_modules(name):
    most = 16 if name == "models" else 12  # the networks of five projects
    assert 1 <= len([path for path in (UTILS / name).glob("*.py") if path.name != "__init__.py"]) <= most


def test_the_map_of_the_package_names_each_module_in_its_room():
    found, room_name = set(), ""
    for line in utils.__doc__.splitlines():
        if header := re.match(r"([\w/]+)/ +\w", line):
            room_name = f"{header[1]}/"
        elif entry := re.match(r"  (\w+) +\S", line):
            found.add(f"{room_name}{entry[1]}.py")
        elif entry := re.match(r"(\w+)  +\w", line):
            found.add(f"{entry[1]}.py")
    assert found == {path.relative_to(UTILS).as_posix() for path in MODULES} - {"__main__.py"}
