"""The environment `.venv`: how it is made, and the advice if it cannot be made."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils import OLDEST_PYTHON, config
from utils.commands import environment

NEWEST_PYTHON = (3, 14)  # the pins were resolved up to this version
FAKE_UV = """#!/bin/sh
(IFS="\t"; echo "$*") >> '{log}'
exit {code}
"""


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder for an environment, with a space in its path."""
    folder = tmp_path / "my own project"
    folder.mkdir()
    return folder / ".venv"


@pytest.fixture
def fake_uv(tmp_path, monkeypatch):
    """Put a fake program `uv` on the PATH. It logs its arguments. Returns a function that sets its exit code."""
    if os.name == "nt":
        pytest.skip("Windows does not run scripts with a first line #!")
    programs = tmp_path / "programs"
    programs.mkdir()

    def install(code: int = 0) -> Path:
        (programs / "uv").write_text(FAKE_UV.format(log=tmp_path / "log", code=code), encoding="utf-8")
        (programs / "uv").chmod(0o755)
        return tmp_path / "log"

    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return install


def test_uv_is_used_if_it_is_found_and_only_once(place, fake_uv, capsys):
    log = fake_uv()
    environment.make_environment(place)
    said = capsys.readouterr().out
    assert "downloads about 3.5 GB" in said and "once" in said
    python = str(environment.environment_python(place))
    wanted = ["pip", "install", "--quiet", "--python", python, "-r", "requirements.txt", "-c", "constraints.txt"]
    assert log.read_text(encoding="utf-8").split("\n") == ["\t".join(wanted), ""]
    assert subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True).stdout == (
        f"{place}\n"
    )
    environment.make_environment(place)
    assert log.read_text(encoding="utf-8").count("\n") == 1 and capsys.readouterr().out == ""


def test_a_failed_installation_is_tried_again_in_the_same_environment(place, fake_uv, capsys):
    fake_uv(code=3)
    with pytest.raises(SystemExit, match="error: the packages could not be installed"):
        environment.make_environment(place)
    (place / "kept").touch()  # a file like those of a first installation
    fake_uv()
    environment.make_environment(place)
    assert (place / "kept").exists() and "downloads" not in capsys.readouterr().out.split("Installing")[-1]


@pytest.mark.slow
def test_pip_installs_without_uv(place, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in environment.PIN_FILES:
        (place.parent / name).write_text("# nothing\n", encoding="utf-8")
    monkeypatch.setattr(environment, "PROJECT", place.parent)
    environment.make_environment(place)
    assert environment.is_usable(place) and (place / "installed.sha256").exists()
    shutil.rmtree(next((place / "lib").glob("python*")) / "site-packages" / "pip")  # as after an interruption
    assert not environment.is_usable(place)


def test_a_terminal_sees_the_progress_of_the_downloads(place, monkeypatch):
    assert "--quiet" in environment.installer(place)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "--quiet" not in environment.installer(place)


def refuse(number: int):
    """A function that fails like a system call, with this error number."""

    def call(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    return call


@pytest.mark.skipif(os.name == "nt", reason="on Windows, the environment has no links")
@pytest.mark.parametrize(
    ("function", "number", "said"),
    [
        ("symlink", errno.EPERM, "may not allow symbolic links"),
        ("symlink", errno.EOPNOTSUPP, "may not allow symbolic links"),
        ("makedirs", errno.EROFS, "the folder is read-only"),
        ("makedirs", errno.ENOSPC, "the disk is full"),
    ],
)
def test_advice_if_no_environment_can_be_made(place, monkeypatch, function, number, said):
    monkeypatch.setattr(os, function, refuse(number))
    with pytest.raises(OSError, match=said) as error:
        environment.make_environment(place)
    assert "Copy the project to" in str(error.value) or "Make room" in str(error.value)


def test_advice_in_a_folder_without_write_permission(place):
    place.parent.chmod(0o500)
    if os.access(place.parent, os.W_OK):
        pytest.skip("this user can write to every folder")
    with pytest.raises(OSError, match="the folder is read-only"):
        environment.make_environment(place)


@pytest.mark.parametrize(
    "folder",
    [
        "/Users/me/OneDrive - A University/course", "/Users/me/Library/Mobile Documents/com~apple~CloudDocs/course",
        "/Users/me/Dropbox/course", "/Users/me/Library/CloudStorage/Box-Box/course", "/content/drive/MyDrive/course",
        "C:/Users/me/iCloudDrive/course",
    ],
)  # fmt: skip
def test_synchronised_places_are_recognised_by_name(folder):
    assert environment.synchronised(Path(folder))
    assert not environment.synchronised(Path("/Users/me/course/my dropbox notes"))
    error = OSError(errno.EPERM, "Operation not permitted", folder)
    assert "synchronised place" in environment.advice(Path(folder), error)


def test_a_synchronised_place_gets_a_note_before_any_download(tmp_path, fake_uv, capsys):
    fake_uv()
    (tmp_path / "OneDrive - University").mkdir()
    environment.make_environment(tmp_path / "OneDrive - University" / ".venv")
    assert capsys.readouterr().out.startswith("Note: ")


@pytest.mark.slow
@pytest.mark.parametrize("minor", range(OLDEST_PYTHON[1], NEWEST_PYTHON[1] + 1))
def test_the_pins_can_be_installed_on_every_supported_python(minor):
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else [shutil.which("uv")]
    if uv == [None]:
        pytest.skip("uv is not installed (pip install uv), and pip can resolve only for its own Python")
    command = [*uv, "pip", "compile", "--quiet", "--python-version", f"3.{minor}", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, *("requirements.txt", "-c", "constraints.txt")], cwd=config.PROJECT, capture_output=True, text=True
    )
    if "No solution found" not in done.stderr and done.returncode:
        pytest.skip(f"the package registry does not answer: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
