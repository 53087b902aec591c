"""Checking one hand-in, a whole class, and hostile hand-ins."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest

from tests.made_hand_in import BROKEN, write_hand_in
from utils import config
from utils.handin import compare, inspection

pytestmark = pytest.mark.xdist_group("compare")  # one process, because they share an expensive fixture


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("hand-in") / "ab123"
    write_hand_in(root)
    return root


def test_hostile_hand_ins_cause_no_error(whole, tmp_path):
    root = tmp_path / "hostile"
    root.mkdir()
    secret = tmp_path / "secret.md"
    secret.write_text("- somebody else's", encoding="utf-8")
    (root / "references.md").symlink_to(secret)
    (root / "GAN_hands").symlink_to(whole / "GAN_hands")
    (root / "x_DLcw1_clean.ipynb").write_text("[" * 100_000, encoding="utf-8")
    (root / "x_DLcw1_hypertune.ipynb").write_text(
        json.dumps({"cells": [{"source": 3, "outputs": "no"}, 7]}), encoding="utf-8"
    )
    (root / "x_DLcw2_clean.ipynb").write_bytes(b"\xff\xfe")
    (root / "x_classified_hands.csv").write_bytes(pickle.dumps({"x": 1}))
    (root / "Assessment.ipynb").write_text("null", encoding="utf-8")
    with open(root / "test_set_nogaps.npy", "wb") as file:
        file.truncate(inspection.LARGEST_FILE + 1)  # needs no space on the disk
    results = {r.requirement: r for r in compare.check(root)}
    assert not any(r.status == "pass" for r in results.values() if "helper code" not in r.requirement)
    assert "there is no references.md" in results["references.md: sources listed"].found
    assert any("files over 60 MB" in r.found for r in results.values())


def test_the_command_checks_one_hand_in_or_a_whole_class(whole, tmp_path):
    for name in ("anna", "ben"):
        shutil.copytree(whole, tmp_path / "class" / name)
    (tmp_path / "class" / "ben" / "references.md").unlink()
    (tmp_path / "class" / "empty").mkdir()

    def run(*arguments):
        command = [sys.executable, "-m", "utils", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=config.PROJECT, env=environment, text=True, capture_output=True)

    done = run("check", "--all", str(tmp_path / "class"), "--brief", "cw2")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and [line.split()[0] for line in lines] == ["anna", "ben", "empty"]
    assert " 0 wrong" in lines[0] and "1 wrong" in lines[1] and "references.md" in lines[1]
    lines = run("check", "--all", str(tmp_path / "class")).stdout.splitlines()
    assert "1 wrong" in lines[2] and "first problem: one of the files *_DLcw1_clean.ipynb, " in lines[2]
    done = run("check", str(tmp_path / "class" / "anna"), "--brief", "cw2", "--json")
    assert done.returncode == 0 and {r["status"] for r in json.loads(done.stdout)} == {"pass"}
    for arguments, said in (
        (["nowhere"], "no folder"),
        (["README.md"], "is a file"),
        ([str(tmp_path)], "does not look like a hand-in"),
    ):
        done = run("check", *arguments)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_nothing_is_right_in_an_empty_folder(tmp_path):
    assert not [r for r in compare.check(tmp_path, ["cw1"]) if r.status == "pass"]


def test_advice_about_headings_shows_whole_words(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    notebook = next((tmp_path / "copy").glob("*_DLcw1_clean.ipynb"))
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("Saving", "End"), encoding="utf-8")
    (wrong,) = [r for r in compare.check(tmp_path / "copy", ["cw1"]) if r.status == "fail"]
    assert wrong.found == "there is no heading with 'saving'" and wrong.advice.endswith("training, generation, saving.")


def test_a_class_with_different_faults_gets_the_right_results(whole, tmp_path):
    harmed = dict(zip(range(0, 12, 2), BROKEN[:24:4]))  # every second hand-in is harmed
    for number in range(12):
        root = tmp_path / f"student{number:02d}"
        shutil.copytree(whole, root)
        if number in harmed:
            harmed[number][0](root)
    command = [sys.executable, "-m", "utils", "check", "--all", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=config.PROJECT, text=True, capture_output=True)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and len(found) == 12
    for number, results in enumerate(found.values()):
        wrong = [r for r in results if r["status"] == "fail" and r["brief"] != "mri"]
        assert bool(wrong) == (number in harmed)
        if wrong:
            assert any(harmed[number][2] in r["found"] for r in wrong)
