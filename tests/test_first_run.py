"""What `run` shows: hands within a second, how far it is, and lines as in the README."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from utils import config
from utils.commands import environment
from utils.notebooks import execute, results

README = (config.PROJECT / "README.md").read_text(encoding="utf-8")
NO_PACKAGES = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; "


def run(monkeypatch, task: str) -> list[str]:
    """What the command `run` does for a task, step by step, with nothing installed or executed."""
    steps = []
    monkeypatch.setattr(environment, "make_environment", lambda: steps.append("environment"))
    monkeypatch.setattr(environment, "show_shipped_hands", lambda: steps.append("hands"))
    monkeypatch.setattr(environment, "call", lambda *words, **_: steps.append(words[2]))
    environment.run(argparse.Namespace(task=task, source=None, profile="smoke", fresh=False))
    return steps


def test_hands_are_shown_before_anything_is_installed_or_trained(monkeypatch):
    monkeypatch.setenv("PROFILE", "smoke")
    assert run(monkeypatch, "hands") == ["hands", "environment", "data", "notebooks"]
    assert run(monkeypatch, "mri") == ["environment", "notebooks"]


def test_the_page_with_shipped_hands_needs_no_package_and_says_what_it_is(tmp_path):
    program = f"{NO_PACKAGES}from utils.commands import environment; environment.show_shipped_hands()"
    settings = os.environ | {"PROFILE": "smoke", "RUNS_FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=config.PROJECT, env=settings, capture_output=True, text=True, check=True
    )
    out = tmp_path / "smoke" / "shipped_hands.html"
    assert done.stdout.strip().endswith(f"Open {out}")
    page = out.read_text(encoding="utf-8")
    assert page.count("<img") == 300 and "not by this run" in page and "CC BY-SA 4.0" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|https://creativecommons)", page)
    said = re.escape(done.stdout.strip()).replace(re.escape(str(tmp_path / "smoke")), r"\.\.\./runs/quick")
    assert re.search(f"^{said}$", README, re.M), "README.md shows another first line of make run"


def test_the_lines_of_the_readme_are_those_that_are_printed(monkeypatch):
    monkeypatch.setenv("PROFILE", "quick")
    block = README.split("```text\n")[1].split("```")[0]
    sections = execute.headings(nbformat.read(config.PROJECT / config.HANDS[0], as_version=4))
    takes = execute.clock(sum(execute.known_durations(config.HANDS[0], sections)))
    for line in (
        f"Notebook 1 of {len(config.HANDS)}: {config.HANDS[0]}, profile quick, about {takes} minutes on two cores",
        f"   0:00  {sections[0]} (cell 1 of {len(sections)}, about {takes} left)",
    ):
        assert line in block, f"README.md, 'The two commands': make run prints now: {line}"
    assert "Done in " in block and "The results:" in block
    assert "300 new hands by the GAN: " in block and "all on one sheet: " in block
    assert "{kind}_hands.png" in Path(results.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", config.HANDS)
def test_the_time_of_most_sections_is_known_in_quick(name, monkeypatch):
    monkeypatch.setenv("PROFILE", "quick")
    notebook = nbformat.read(config.PROJECT / name, as_version=4)
    known = execute.known_durations(name, execute.headings(notebook))
    assert sum(known) > 30, "copy runs/quick/durations.json to utils/notebooks/durations_quick.json after: make run"


@pytest.fixture
def clock(monkeypatch):
    """A clock over two sections of three cells, at a time that the test sets."""
    now = [0.0]
    monkeypatch.setattr(execute.time, "monotonic", lambda: now[0])
    return execute.Clock(["1. Data", "1. Data", "2. Training"], [10.0, 20.0, 60.0]), now


def test_a_section_is_announced_once_with_the_time_that_is_left(clock, capsys):
    progress, now = clock
    progress.begin(0)
    now[0] = 10.0
    progress.end()
    progress.begin(1)
    now[0] = 30.0
    progress.end()
    progress.begin(2)
    assert capsys.readouterr().out.splitlines() == [
        "   0:00  1. Data (cell 1 of 3, about 1:30 left)",
        "   0:30  2. Training (cell 3 of 3, about 1:00 left)",
    ]


def test_a_long_cell_is_not_silent_in_a_log(clock, capsys):
    progress, now = clock
    progress.begin(0)
    capsys.readouterr()
    for second in range(1, 200):
        now[0] = float(second)
        progress.tick()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("(")[0] for line in lines] == [f"   {m}:0{m}  still in: 1. Data " for m in (1, 2, 3)]
    assert "left" in lines[0] and "longer than expected" in lines[-1]
    assert 0 < progress.bar.n < 0.2  # the bar waits at the end of the cell


def test_without_known_durations_the_cells_are_counted(monkeypatch):
    progress = execute.Clock(["1. Data", "2. Training"], [])
    progress.end()
    progress.tick()
    assert progress.left() == "cell 2 of 2" and progress.bar.n == 0.5
    progress.end()
    progress.tick()
    assert progress.left() == "cell 2 of 2" and progress.bar.n == 1
