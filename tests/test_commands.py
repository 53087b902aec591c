"""`python -m utils`: it starts fast, its help is right, and every error is one sentence."""

import argparse
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import OLDEST_PYTHON, config
from utils.__main__ import command_line, main
from utils.commands import hand_in

PAGES = ("README.md", "docs/*.md", "brain_mri/*.md", "fashion_mnist/*.md", "**/*.ipynb", "Makefile", ".github/**/*.yml")
NAMES = [
    "install",
    "run",
    "test",
    "notebooks",
    "data",
    "train",
    "sample",
    "fill",
    "check",
    "rename",
    "export",
    "colab",
    "report",
    "pictures",
]


def start(*arguments: str, python: str = sys.executable, **variables: str) -> subprocess.CompletedProcess:
    """The result of `python -m utils ...` in the project's folder."""
    command = [python, "-m", "utils", *arguments]
    return subprocess.run(
        command, cwd=config.PROJECT, env=os.environ | variables, capture_output=True, text=True, errors="replace"
    )


def loaded(program: str) -> set[str]:
    """The names of all imported modules at the end of a program."""
    command = [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules, file=sys.stderr)"]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    (commands,) = [a for a in command_line()._actions if isinstance(a, argparse._SubParsersAction)]
    return commands.choices


def test_the_command_line_imports_only_the_standard_library():
    before = loaded("pass")  # modules that are always imported, for example by an editable installation
    after = loaded("from utils.__main__ import command_line; command_line()")
    own = {name for name in after - before if name.split(".")[0] not in sys.stdlib_module_names}
    assert own and {name.split(".")[0] for name in own} == {"utils"}


def test_a_check_of_this_project_imports_no_models():
    after = loaded("from utils.__main__ import main\ntry: main(['check'])\nexcept SystemExit: pass")
    rooms = {".".join(name.split(".")[:2]) for name in after if name.startswith("utils.")}
    assert "utils.handin" in rooms and not rooms & {"utils.models", "utils.training", "utils.evaluation"}
    assert not after & {"torch", "scipy", "sklearn", "pandas", "matplotlib", "nbformat"}


def test_all_commands_are_there_and_their_examples_are_right():
    assert sorted(parsers()) == sorted(NAMES)
    for name, parser in parsers().items():
        example = re.search(r"Example: python -m utils (.+)", parser.epilog)[1]
        words = shlex.split(example)
        assert words[0] == name and command_line().parse_args(words).action
        assert parser.description[0].isupper() and parser.description.endswith(".")
        assert all(action.help for action in parser._actions), name


def test_help_has_exit_code_0(capsys):
    for arguments in (["--help"], *([name, "--help"] for name in NAMES)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code and "usage: python -m utils" in capsys.readouterr().out


TRAIN = ["train", "VAE", "--images", "x", "--images-seen", "9", "--out", "y"]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["paint"], ["sample", "cats", "--out", "x"], ["sample", "heads", "--out", "x", "--count", "0"],
        ["check", "x", "--all", "y"], ["export", "cw9", "x"], ["data", "--size", "0"], [*TRAIN, "--batch", "0"],
        [*TRAIN, "--samples", "0"], [*TRAIN, "--samples", "-1"], [*TRAIN, "--size", "0"],
        [*TRAIN, "--images-seen", "0"], [*TRAIN, "--lr-scale", "0"], [*TRAIN, "--lr-scale", "nan"],
        [*TRAIN, "--batch", "3.5"], [*TRAIN, "--seed", "-1"], ["sample", "heads", "--out", "x", "--seed", "4294967296"],
    ],
)  # fmt: skip
def test_wrong_options_are_refused_immediately(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err


def test_an_error_is_one_line(tmp_path):
    for arguments in (
        ["data", "--from", "no\nwhere"],
        ["check", str(tmp_path)],
        ["run", "--task", "mri", "--from", "x"],
    ):
        done = start(*arguments)
        assert done.returncode == 1 and re.fullmatch("error: [^\n]+\n", done.stderr), done.stderr


def test_ctrl_c_ends_with_a_sentence(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(hand_in, "check", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert ended.value.code == 130 and "Start the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_project_gets_advice(monkeypatch, number):
    def fails(_):
        raise OSError(number, os.strerror(number), "runs/quick")

    monkeypatch.setattr(hand_in, "check", fails)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SystemExit, match="^error: .*runs/quick.*copy the project to a folder that you can write to"):
        main(["check"])


CALLS = """
import sys
from pathlib import Path
from utils import __main__
from utils.commands import environment, hand_in

environment.environment_python = lambda _: Path(sys.executable)
hand_in.check = lambda _: environment.call("-c", sys.argv[1], sys.argv[2])
__main__.main(["check"])
"""
SAVES = """
import sys, time
from pathlib import Path

print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.6)
    Path(sys.argv[1]).touch()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to a process group")
def test_ctrl_c_waits_until_the_program_has_saved_its_work(tmp_path):
    command = [sys.executable, "-c", CALLS, SAVES, str(tmp_path / "saved")]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    program = subprocess.Popen(command, cwd=config.PROJECT, **options)
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.1)  # until the other program is inside its `try`
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130 and "Stopped with Ctrl-C" in said and "Traceback" not in said
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes")
def test_a_closed_pipe_is_not_reported_as_an_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "utils", "check", "--json", "--brief", "cw2"]
    done = subprocess.run(command, cwd=config.PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_a_missing_package_is_named_with_advice():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "utils", "report"], cwd=config.PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 1 and re.fullmatch(r"error: the package '\w+' is missing.*\n", done.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_console_can_print_the_results(tmp_path, encoding):
    for name in ("手", "é"):
        (tmp_path / f"{name}_DLcw1_clean.ipynb").touch()
    done = start("check", str(tmp_path), PYTHONIOENCODING=encoding)
    assert done.returncode == 1 and r"\u624b_DLcw1" in done.stdout and done.stderr == ""


def old_pythons() -> list[str]:
    """Python interpreters on this machine that are too old for the project."""
    minors = [f"{major}.{minor}" for major, minor in ((3, 8), (3, 9), (3, 10))]
    found = [shutil.which(f"python{version}") for version in minors]
    found += [str(p) for v in minors for p in Path.home().glob(f".pyenv/versions/{v}.*/bin/python")]
    working = [path for path in found if path and subprocess.run([path, "-V"], capture_output=True).returncode == 0]
    return sorted(set(working))


@pytest.mark.parametrize("arguments", [["run"], ["--help"], ["check", "--help"]])
def test_an_older_python_gets_one_sentence(arguments):
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python 3.8, 3.9 or 3.10 on this machine")
    for python in pythons:
        done = start(*arguments, python=python)
        assert done.returncode == 1 and done.stdout == ""
        assert re.fullmatch(r"error: Python 3\.11 or newer is needed, but this is Python 3\.\d+\..*\n", done.stderr)


def test_the_oldest_python_is_the_same_everywhere():
    oldest = ".".join(map(str, OLDEST_PYTHON))
    readme = (config.PROJECT / "README.md").read_text(encoding="utf-8")
    assert f"Python {oldest} or newer" in readme
    settings = (config.PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'target-version = "py{oldest.replace(".", "")}"' in settings


def mentioned() -> list[tuple[str, str, str]]:
    """Each use of the command line on a page or in a notebook: the page, the module, and the word after it."""
    found = []
    for path in sorted({path for pattern in PAGES for path in config.PROJECT.glob(pattern)}):
        page = path.relative_to(config.PROJECT).as_posix()
        if page.split("/")[0] not in ("runs", "site", ".venv"):
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
            found += [(page, *words) for words in re.findall(r"-m (utils[.\w]*)(?: ([\w-]+))?", text)]
    return found


def test_pages_and_notebooks_name_only_commands_that_exist():
    uses = mentioned()
    assert len(uses) > 20
    for page, module, command in uses:
        assert module.rstrip(".") == "utils", (page, module)  # older commands were utils.train and so on
        assert command in [*NAMES, "COMMAND", "--help", ""], (page, command)
