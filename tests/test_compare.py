"""Recognition, whole classes, damaged and hostile hand-ins, and the command."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from random import Random

import numpy as np
import pytest
from PIL import Image

from tests import made_hand_in as made
from tests.made_hand_in import USER, code, edit
from tests.test_checks import found
from utils import config
from utils.handin import classes, compare, inspection
from utils.handin.checks import samples

pytestmark = pytest.mark.xdist_group("compare")  # one process, because they share expensive fixtures


@pytest.fixture(autouse=True)
def no_training_images(monkeypatch):
    monkeypatch.setattr(samples, "training_images", lambda: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One hand-in for each of two courseworks."""
    root = tmp_path_factory.mktemp("whole")
    return made.cw1(root / "one"), made.cw2(root / "two")


def briefs_of(root, **chosen):
    return [result.brief for result in compare.check(root, None, chosen)]


# ---- recognition


def test_this_project_answers_four_briefs_and_has_no_fault():
    results = compare.check(config.PROJECT)
    assert [result.brief for result in results] == ["cw1", "cw2", "final", "mri"]
    assert [line for result in results for line in result.lines if line.kind == "fault"] == []


def test_a_hand_in_for_two_briefs_in_two_folders(whole, tmp_path):
    for root, name in zip(whole, ("dlmodule-cw1", "dlmodule-cw2")):
        shutil.copytree(root, tmp_path / "repository" / name)
    (tmp_path / "repository" / "README.md").write_text("# Both of my courseworks", encoding="utf-8")
    (tmp_path / "repository" / "dlmodule-cw1" / "real_hands.tar.gz").write_bytes(b"the course's")
    assert briefs_of(tmp_path) == ["cw1", "cw2"]
    assert found(tmp_path, "cw1") == {} and found(tmp_path, "cw2") == {}
    (tmp_path / "repository" / "dlmodule-cw2" / "references.md").unlink()
    assert found(tmp_path, "cw1") == {} and set(found(tmp_path, "cw2")) == {"references"}
    (tmp_path / "repository" / "dlmodule-cw1" / f"{USER}_DLcw1_clean.ipynb").unlink()
    assert set(found(tmp_path, "cw1")) == {"clean notebook"}


@pytest.mark.parametrize(
    ("names", "renamed"),
    [
        (("main.ipynb", "tuning.ipynb"), {"clean notebook: name", "hypertune notebook: name"}),
        (("final GAN.ipynb", "experiments.ipynb"), {"clean notebook: name", "hypertune notebook: name"}),
        (
            ("notebooks/a.ipynb", "notebooks/hyperparameters.ipynb"),
            {"clean notebook: name", "hypertune notebook: name"},
        ),
    ],
)
def test_renamed_notebooks_are_recognised_by_their_content(whole, tmp_path, names, renamed):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    (root / "notebooks").mkdir()
    (root / f"{USER}_DLcw1_clean.ipynb").rename(root / names[0])
    (root / f"{USER}_DLcw1_hypertune.ipynb").rename(root / names[1])
    assert briefs_of(root) == ["cw1"] and set(found(root)) == renamed


def test_what_cannot_be_guessed_can_be_said(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    (root / f"{USER}_DLcw1_clean.ipynb").rename(root / "tuning_1.ipynb")
    (root / f"{USER}_DLcw1_hypertune.ipynb").rename(root / "main.ipynb")
    faults = found(root, clean="tuning_1.ipynb", hypertune="main.ipynb")
    assert set(faults) == {"clean notebook: name", "hypertune notebook: name"}
    with pytest.raises(ValueError, match="'cleen' is not a file of cw1; there are clean, hypertune, samples"):
        compare.check(root, ["cw1"], {"cleen": "main.ipynb"})
    with pytest.raises(ValueError, match="there is no 'nowhere.ipynb'"):
        compare.check(root, ["cw1"], {"clean": "nowhere.ipynb"})
    assert briefs_of(root, clean="tuning_1.ipynb")[0] == "cw1"


def test_a_zip_file_is_checked_in_memory(whole, tmp_path):
    archive = shutil.make_archive(tmp_path / "student", "zip", whole[0].parent, "one")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/one/._x_DLcw1_clean.ipynb", b"x")
        file.writestr("../../outside_DLcw1_clean.ipynb", b"{}")
    path = config.Path(archive)
    assert briefs_of(path) == ["cw1"] and found(path) == {}
    assert [p.name for p in tmp_path.iterdir()] == ["student.zip"]


def test_a_folder_that_is_no_hand_in_says_what_it_holds(tmp_path):
    (tmp_path / "notes.ipynb").write_text('{"cells": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="does not look like a hand-in .* 1 files, notes.ipynb. Name the brief"):
        compare.check(tmp_path)
    assert {line.kind for line in compare.check(tmp_path, ["cw1"])[0].lines} == {"fault", "unchecked"}


# ---- damaged and hostile files


def test_hostile_hand_ins_cause_no_error(whole, tmp_path):
    root = tmp_path / "hostile"
    root.mkdir()
    secret = tmp_path / "secret.md"
    secret.write_text("- somebody else's", encoding="utf-8")
    (root / "references.md").symlink_to(secret)
    (root / "GAN_hands").symlink_to(whole[0] / "GAN_hands")
    (root / "loop").symlink_to(root)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe_classified_hands.csv")
    (root / "x_DLcw1_clean.ipynb").write_text("[" * 100_000, encoding="utf-8")
    (root / "x_DLcw1_hypertune.ipynb").write_text('{"cells": [{"source": 3, "outputs": "no"}, 7]}', encoding="utf-8")
    (root / "x_DLcw2_clean.ipynb").write_bytes(b"\xff\xfe")
    (root / "x_classified_hands.csv").write_bytes(pickle.dumps({"x": 1}))
    (root / "Assessment.ipynb").write_text("null", encoding="utf-8")
    (root / "a.zip").write_bytes(b"PK\3\4 damaged")
    with open(root / "test_set_nogaps.npy", "wb") as file:
        file.truncate(inspection.LARGEST_FILE + 1)  # needs no space on the disk
    results = compare.check(root, ["cw1", "cw2", "mri"])
    lines = [line for result in results for line in result.lines]
    assert not [line for line in lines if line.kind == "ok" and not line.requirement.startswith("table of labels")]
    assert not [text for line in lines for text in line.found if "check failed" in text]
    assert any("larger than 200 MB" in text for line in lines for text in line.found)
    assert "somebody else" not in json.dumps(compare.as_json(results))


ODD = [None, True, -1, 1e308, "", "\ud800", [], {}, [1], {"a": 1}, "# a", "image/png", {"image/png": ["a", 2]}]


def damaged(value, random):
    """A copy of a JSON value in which a few parts are missing or replaced by something odd."""
    if random.random() < 0.03:
        return random.choice(ODD)
    if isinstance(value, dict):
        return {key: damaged(part, random) for key, part in value.items() if random.random() > 0.01}
    return [damaged(part, random) for part in value] if isinstance(value, list) else value


def damaged_bytes(content, random):
    """Bytes of which a part is missing, changed or doubled."""
    start = random.randrange(len(content))
    part = content[start : start + random.randrange(1, 200)]
    return (
        content[:start] + random.choice([b"", part * 2, part[::-1], random.randbytes(9)]) + content[start + len(part) :]
    )


@pytest.mark.parametrize("make", [made.cw1, made.cw2, made.mri, made.final], ids=lambda make: make.__name__)
def test_damaged_hand_ins_cause_no_error(tmp_path, make):
    """All files are damaged at random, 25 times. Each check gives a result, and none of them fails by itself."""
    random = Random(0)
    shutil.copytree(make(tmp_path / "whole"), tmp_path / "copy", ignore=shutil.ignore_patterns("*.jpeg"))
    contents = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    for _ in range(25):
        for path, content in contents.items():
            if path.suffix == ".ipynb" and random.random() < 0.8:
                path.write_text(json.dumps(damaged(json.loads(content), random)), encoding="utf-8")
            elif random.random() < 0.7:
                path.write_bytes(damaged_bytes(content, random))
        (result,) = compare.check(tmp_path / "copy", [make.__name__])
        assert not [line for line in result.lines for text in line.found if "check failed" in text]
        assert compare.table([result]) and compare.as_json([result])
        classes.examine(tmp_path / "copy", None)


def test_other_encodings_and_formats_of_notebooks(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    path = root / f"{USER}_DLcw1_hypertune.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    old = []
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            outputs = [{"output_type": "pyout", "text": ["3"]} for _ in cell["outputs"]]
            old.append({"cell_type": "code", "input": cell["source"], "prompt_number": 1, "outputs": outputs})
        else:
            old.append(cell)
    path.write_text(json.dumps({"nbformat": 3, "worksheets": [{"cells": old}]}), encoding="utf-8")
    assert found(root) == {}


def test_a_git_lfs_pointer_is_named(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (root / f"{USER}_DLcw1_clean.ipynb").write_text(pointer, encoding="utf-8")
    assert found(root) == {} and "Git LFS pointer" in found(root, kind="unchecked")["clean notebook"][0]


def test_an_archive_that_cannot_be_opened_is_no_fault(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    shutil.rmtree(root / "GAN_hands")
    (root / "GAN_hands.7z").write_bytes(b"7z")
    assert found(root) == {} and "unpack it" in found(root, kind="unchecked")["samples"][0]


def test_a_notebook_with_large_pictures_is_read_quickly(whole, tmp_path):
    root = shutil.copytree(whole[0], tmp_path / "copy")
    large = made.picture()
    large["data"]["image/png"] += "A" * 30_000_000
    edit(
        root / f"{USER}_DLcw1_clean.ipynb", lambda cells, _: cells.append(code("plt.imshow(x)", large, large, count=9))
    )
    handin = inspection.HandIn(root)
    cells = handin.cells(f"{USER}_DLcw1_clean.ipynb")
    assert cells[-1].pictures() and len(str(cells[-1].outputs)) < 1000 and found(root) == {}


# ---- classes


@pytest.fixture(scope="module")
def school(whole, tmp_path_factory):
    """Five hand-ins: two are copies of each other but for the labels of a few files, and one has an odd name."""
    parent = tmp_path_factory.mktemp("class")
    for name in ("anna", "ben", "chloé"):
        shutil.copytree(whole[1], parent / name)
        path = parent / name / f"{USER}_classified_hands.csv"
        labels = np.random.default_rng(len(name)).integers(0, 3, 8434)
        rows = [f"test_hand_{i:04d}.jpeg, {label}" for i, label in enumerate(labels, start=1)]
        path.write_text("\n".join(rows), encoding="utf-8")
    shutil.copy(parent / "anna" / f"{USER}_classified_hands.csv", parent / "chloé")
    (parent / "ben" / "references.md").unlink()
    (parent / "empty").mkdir()
    shutil.make_archive(parent / "dora", "zip", whole[0])
    if os.name != "nt":
        shutil.copytree(os.fsencode(whole[0]), os.fsencode(parent) + b"/odd\xff")
    return parent


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "utils", "check", *map(str, arguments)], cwd=config.PROJECT, capture_output=True,
        text=True, encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def test_a_class_is_a_table_with_what_is_particular(school):
    done = command("--all", school, PYTHONIOENCODING="cp1252")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and done.stderr == ""
    names = [line.split()[0] for line in lines[1:7]]
    assert names[:5] == ["anna", "ben", "chloé", "dora.zip", "empty"] and names[5].startswith("odd")
    assert "references (there is no references.md)" in lines[2] and "no fault" in lines[1]
    assert "not recognised" in lines[5]
    assert "anna and chloé: labels 100.0%" in done.stdout and "anna and ben" not in done.stdout
    assert "dora.zip and odd" in done.stdout and "images 300" in done.stdout


def test_copies_are_found_and_common_code_is_none(school):
    students = [classes.examine(path, None) for path in classes.folders(school)]
    pairs = {(a, b): shared for a, b, shared in classes.copies(students)}
    assert pairs["anna", "chloé"] == {"labels": "100.0%"} and ("anna", "ben") not in pairs
    assert pairs["dora.zip", students[-1].name]["images"] == "300"
    drawn = classes.matrix(classes.copies(students))
    assert drawn.splitlines()[0].startswith("Shared by two students")


def test_images_that_were_saved_again_are_copies(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "first")
    for path in (shutil.copytree(whole[0], tmp_path / "second") / "GAN_hands").iterdir():
        Image.open(path).convert("L").save(path, "JPEG", quality=60)
    other = shutil.copytree(whole[0], tmp_path / "third")
    made.save_hands(other / "GAN_hands", made.hands("GAN")[:, ::-1])
    pairs = {(a, b): s for a, b, s in classes.copies([classes.examine(p, None) for p in classes.folders(tmp_path)])}
    assert int(pairs["first", "second"]["images"]) > 290
    assert "images" not in pairs.get(("first", "third"), {})


def test_json_and_csv_have_the_documented_form(school):
    found = json.loads(command("--all", school, "--json").stdout)
    assert {entry["brief"] for entry in found} == {"cw1", "cw2", "none"}
    assert {"anna", "ben", "dora.zip"} <= {entry["folder"] for entry in found}
    for entry in found:
        assert set(entry) == {"folder", "brief", "lines"}
        for line in entry["lines"]:
            assert set(line) == {"requirement", "kind", "found", "advice"} and isinstance(line["found"], list)
            assert line["kind"] in ("ok", "fault", "remark", "unchecked")
    (alone,) = json.loads(command(school / "ben", "--json").stdout)
    (wrong,) = [line for line in alone["lines"] if line["kind"] == "fault"]
    assert wrong["requirement"] == "references" and 'The brief: "`references.md`' in wrong["advice"]
    rows = command("--all", school, "--csv").stdout.splitlines()
    assert rows[0] == "folder,brief,requirement,kind,found,advice" and any("references,fault" in row for row in rows)


def test_tables_and_arrays_are_scored_against_a_truth(school, tmp_path):
    truth = tmp_path / "truth.csv"
    shutil.copy(school / "ben" / f"{USER}_classified_hands.csv", truth)
    done = command("--all", school, "--truth", truth)
    assert "accuracy 1.0000, macro F1 1.0000" in done.stdout.splitlines()[2]
    assert "accuracy 0.3" in done.stdout.splitlines()[1]
    made.mri(tmp_path / "class" / "eve")
    np.save(tmp_path / "truth.npy", made.student_heads() + 0.1)
    done = command("--all", tmp_path / "class", "--truth", tmp_path / "truth.npy")
    assert "PSNR 20.00 dB, mean error 0.1000" in done.stdout


def test_the_command_quotes_the_brief_and_explains_errors(school, tmp_path):
    done = command(school / "ben")
    assert (
        done.returncode == 1 and "FAULT  references\n" in done.stdout and 'the brief: "`references.md`' in done.stdout
    )
    assert "1 faults" in done.stdout
    assert command(school / "anna", "--brief", "cw2").returncode == 0
    for arguments, said in (
        (["nowhere"], "no folder"),
        (["README.md"], "is a file"),
        ([tmp_path], "does not look like a hand-in"),
        ([school / "anna", "--brief", "cw9"], "There is no brief 'cw9'"),
        (["--all", school, "--truth", "nowhere.csv"], "no file 'nowhere.csv'"),
        (["--all", school, "--notebook", "clean=a.ipynb"], "cannot be used with --all"),
        (["--all", tmp_path], "holds no hand-ins"),
    ):
        done = command(*arguments)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert command(school / "anna", "--notebook", "clean").returncode == 2


def test_everything_is_checked_without_torch(school):
    program = "import sys; from utils.__main__ import main\ntry: main(sys.argv[1:])"
    program += "\nexcept SystemExit: print('torch' in sys.modules)"
    arguments = [sys.executable, "-c", program, "check", "--all", str(school)]
    done = subprocess.run(arguments, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
