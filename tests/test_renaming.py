"""A renaming changes everything or nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import made_hand_in as made
from utils import config
from utils.data import hand_images
from utils.handin import compare, rename
from utils.handin.checks import samples
from utils.notebooks import colab


@pytest.fixture
def folder(tmp_path):
    """A small hand-in, as this repository names it."""
    root = tmp_path / "my hand-in"
    (root / "GAN_hands").mkdir(parents=True)
    for number in (1, 2):
        (root / "GAN_hands" / f"someone_{number:03d}.jpeg").write_bytes(bytes([number]))
    (root / "GAN_hands" / "GAN_hand_001.jpeg").write_bytes(b"course")
    (root / "someone_DLcw1_clean.ipynb").write_text(
        '{"cells": ["**Username:** someone **CID:**", "USERNAME = \\"someone\\"", "someone_001.jpeg"]}',
        encoding="utf-8",
    )
    (root / "someone_classified_hands.csv").write_text("test_hand_0001.jpeg, 2\n", encoding="utf-8")
    (root / "README.md").write_text(
        "[it](someone_DLcw1_clean.ipynb); your username; `<username>_001.jpeg`\n", encoding="utf-8"
    )
    (root / ".gitignore").write_text("!*_hands/someone_*.jpeg\n", encoding="utf-8")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_files_and_texts_are_renamed_and_can_be_renamed_again(folder):
    before = contents(folder)
    assert rename.plan(folder, "ab123").moves and contents(folder) == before  # a plan changes no files
    rename.rename(folder, "ab123")
    after = contents(folder)
    assert set(after) == {name.replace("someone_", "ab123_") for name in before}
    assert after["GAN_hands/GAN_hand_001.jpeg"] == b"course"
    assert b"**Username:** ab123 **CID" in after["ab123_DLcw1_clean.ipynb"]
    assert b'USERNAME = \\"ab123\\"' in after["ab123_DLcw1_clean.ipynb"]
    assert after["README.md"] == b"[it](ab123_DLcw1_clean.ipynb); your username; `<username>_001.jpeg`\n"
    assert after[".gitignore"] == b"!*_hands/ab123_*.jpeg\n"
    rename.rename(folder, "cd4")
    assert "cd4_DLcw1_clean.ipynb" in contents(folder)


def test_name_and_cid_replace_the_placeholders(folder):
    notebook = folder / "someone_DLcw1_clean.ipynb"
    notebook.write_text(
        '{"cells": ["**Name:** Your Name **Username:** someone **CID:** 00000000", "# Your Name"]}', encoding="utf-8"
    )
    rename.rename(folder, "ab123", "Zoë O'Neil-Smith", "01234567")
    text = (folder / "ab123_DLcw1_clean.ipynb").read_text(encoding="utf-8")
    assert text == '{"cells": ["**Name:** Zoë O\'Neil-Smith **Username:** ab123 **CID:** 01234567", "# Your Name"]}'
    for wrong in (('x"y', None), ("a\\nb", None), ("", None), (None, "123"), (None, "1234567a")):
        with pytest.raises(ValueError, match="not a name|not a CID"):
            rename.rename(folder, "cd4", *wrong)
    assert rename.rename(folder, "ab123", cid="01234567") == ([], [], [])  # nothing is left to change


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "Ab123",
        "ab 123",
        "../x",
        "1abc",
        "a" * 41,
        "test",
        "real_1",
        "é12",
        "ab-",
        "ab--1",
        "ab._1",
        ".ab",
        "a/b",
    ],
)
def test_wrong_usernames_are_refused(folder, name):
    before = contents(folder)
    with pytest.raises(ValueError, match="not a username|cannot be used"):
        rename.rename(folder, name)
    assert contents(folder) == before


def test_nothing_is_overwritten_and_a_folder_without_a_name_is_refused(folder, tmp_path):
    (folder / "ab123_classified_hands.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="found: ab123, someone"):
        rename.rename(folder, "ab123")
    (folder / "ab123_classified_hands.csv").rename(folder / "GAN_hands" / "ab123_002.jpeg")
    with pytest.raises(ValueError, match="'GAN_hands/ab123_002.jpeg' already exists"):
        rename.rename(folder, "ab123")
    with pytest.raises(ValueError, match="found: none"):
        rename.rename(tmp_path / "my hand-in" / "GAN_hands", "ab123")


def test_a_failed_renaming_is_undone(folder, monkeypatch):
    before = contents(folder)
    move = Path.rename

    def fails_in_the_end(self, target):
        if "classified" in self.name and "ab123" in str(target):
            raise OSError("no space left on device")
        return move(self, target)

    monkeypatch.setattr(Path, "rename", fails_in_the_end)
    with pytest.raises(OSError, match="no space"):
        rename.rename(folder, "ab123")
    assert contents(folder) == before


KILLED = """
import os, sys
from pathlib import Path
from utils.handin import compare, rename
move, count = Path.rename, 0
def killed(self, target):
    global count
    count += 1
    if count == 3:
        os._exit(9)
    return move(self, target)
Path.rename = killed
rename.rename(Path(sys.argv[1]), "ab123")
"""


def test_the_next_call_undoes_a_renaming_that_was_killed(folder):
    """With --dry-run, it only says so: nothing at all is written."""
    before = contents(folder)
    environment = os.environ | {"PYTHONPATH": str(config.PROJECT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=environment)
    assert done.returncode == 9 and contents(folder) != before
    half = contents(folder)
    command = [sys.executable, "-m", "utils", "rename", "cd4", "--folder", str(folder)]
    done = subprocess.run([*command, "--dry-run"], cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and "did not finish" in done.stdout and contents(folder) == half
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and "It was undone first" in done.stdout and "changed: 4 names" in done.stdout
    assert {name.replace("cd4_", "someone_") for name in contents(folder)} == set(before)


@pytest.mark.parametrize("name", ["ab1223", "acse-ab1223", "edsml_ab123", "a.b-c_1", "esemsc-f8af2eba"])
def test_real_usernames_can_be_set_and_taken_back(folder, name):
    before = contents(folder)
    rename.rename(folder, name)
    after = contents(folder)
    assert (
        f"{name}_DLcw1_clean.ipynb" in after
        and f"**Username:** {name} **CID".encode() in after[f"{name}_DLcw1_clean.ipynb"]
    )
    rename.rename(folder, "someone")
    assert contents(folder) == before


@pytest.mark.parametrize(
    "name",
    ["Siân O’Neill", "Seán Ó'Briain", "D`Angelo Müller-Lüdenscheidt", "Nguyễn Thị Minh", "李 伟", "Jose\u0301 Mari",
     "محمد علی‌زاده", "श्रीराम कृष्णन", "ʻAnaʻaina Kealoha", "J. R. R. Tolkien", "María·José", "ジョン・スミス", "Ng"],
)  # fmt: skip
def test_real_names_are_accepted(name):
    rename.check_author(name, None)


def test_the_way_back_to_the_placeholders(folder):
    notebook = folder / "someone_DLcw1_clean.ipynb"
    notebook.write_text(
        '{"cells": ["**Name:** Your Name **Username:** username **CID:** 00000000 [Open]"]}', encoding="utf-8"
    )
    rename.rename(folder, "username")
    before = contents(folder)
    rename.rename(folder, "acse-ab1223", "Zoë O’Neil", "01234567")
    text = (folder / "acse-ab1223_DLcw1_clean.ipynb").read_text(encoding="utf-8")
    assert "**Name:** Zoë O’Neil **Username:** acse-ab1223 **CID:** 01234567 [Open]" in text
    rename.rename(folder, "acse-ab1223", "Zoë Neil")  # a name can be corrected
    assert "**Name:** Zoë Neil **" in (folder / "acse-ab1223_DLcw1_clean.ipynb").read_text(encoding="utf-8")
    rename.rename(folder, "username")
    assert contents(folder) == before


def test_a_students_hand_in_with_the_courses_headers(tmp_path):
    root = made.cw2(tmp_path / "student")
    made.cw1(root)
    (root / "acse-ab1223_DLcw2_clean.ipynb").rename(root / "acse_ab1223_DLcw2_clean.ipynb")  # spelled in two ways
    with zipfile.ZipFile(root / "GAN_hands.zip", "w") as archive:
        archive.writestr("GAN_hands/acse-ab1223_001.jpeg", b"x")
    (root / "notes.bin").write_bytes(b"acse-ab1223 \xff")
    steps = rename.rename(root, "edsml_cd45", "Ada Lovelace", "07654321")
    text = (root / "edsml_cd45_DLcw1_clean.ipynb").read_text(encoding="utf-8")
    assert "***Name***: [*Ada Lovelace*]" in text and "***username***: [*edsml_cd45*]" in text
    assert "***CID***: [*07654321*]" in text and "acse-ab1223" not in text
    references = (root / "references.md").read_text(encoding="utf-8")
    assert "| Student name | *Ada Lovelace* |" in references or "Student name" not in references
    assert [path for path in root.rglob("*") if "ab1223" in path.name] == []
    assert len(steps.left) == 2 and steps.left[0].startswith("GAN_hands.zip: 1 names inside")
    assert steps.left[1] == "notes.bin: 1 times"


def test_a_dry_run_writes_nothing_at_all(folder, tmp_path):
    before, times = contents(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    command = [sys.executable, "-m", "utils", "rename", "cd4", "--folder", str(folder), "--dry-run"]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and "would change: 4 names" in done.stdout
    assert contents(tmp_path) == before and {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times


def test_links_to_colab_are_changed_to_another_repository(folder):
    address = "https://colab.research.google.com/github/{}/blob/main/someone_DLcw1_clean.ipynb"
    (folder / "README.md").write_text(
        f"[Open]({address.format('OWNER/REPOSITORY')}) [elsewhere](https://a.b/OWNER/x)\n", encoding="utf-8"
    )
    before = contents(folder)
    assert colab.point_to(folder, "anna/deep-learning") == ["README.md"]
    expected = f"[Open]({address.format('anna/deep-learning')}) [elsewhere](https://a.b/OWNER/x)\n"
    assert contents(folder) == before | {"README.md": expected.encode()}
    assert colab.point_to(folder, "anna/deep-learning") == []
    assert colab.point_to(folder, "ben/copy") == ["README.md"]  # the notebook that it links to is here
    with pytest.raises(ValueError, match="OWNER/NAME"):
        colab.point_to(folder, "https://github.com/anna/deep-learning")


def test_the_address_in_the_first_cells_is_changed_too(tmp_path):
    for names in config.TASKS.values():
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(config.PROJECT / name, tmp_path / name)
    assert set(colab.point_to(tmp_path, "anna/deep-learning")) == set(config.TASKS["all"])
    for name in config.TASKS["all"]:
        text = (tmp_path / name).read_text(encoding="utf-8")
        cells = json.loads(text)["cells"]
        first = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))
        assert 'ADDRESS = "https://github.com/anna/deep-learning"' in first
        assert 'if ADDRESS.endswith("OWNER/REPOSITORY")' in first  # the question stays the same
    assert colab.point_to(tmp_path, "anna/deep-learning") == []


def test_links_to_other_repositories_stay(folder):
    address = "https://colab.research.google.com/github/{}/blob/main/{}"
    text = " ".join([
        address.format("OWNER/REPOSITORY", "someone_DLcw1_clean.ipynb"),
        address.format("course/lectures", "week_1.ipynb"),
        address.format("someone/else", "someone_DLcw1_clean.ipynb"),
    ])  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "a.ipynb").write_text(
        '{"cells": ["ADDRESS = \\"https://github.com/OWNER/REPOSITORY\\""]}', encoding="utf-8"
    )
    assert colab.point_to(folder, "anna/copy") == ["README.md", "a.ipynb"]
    expected = text.replace("OWNER/REPOSITORY", "anna/copy")
    assert (folder / "README.md").read_text(encoding="utf-8") == expected
    assert colab.point_to(folder, "ben/copy") == ["README.md", "a.ipynb"]
    assert (folder / "README.md").read_text(encoding="utf-8") == expected.replace("anna/copy", "ben/copy")


def test_every_notebook_has_its_own_link_to_colab():
    for name in (name for names in config.TASKS.values() for name in names):
        text = (config.PROJECT / name).read_text(encoding="utf-8")
        found = re.findall(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/main/([^)]+)\)", text)
        assert found == [name]


def test_this_project_works_after_two_renamings(tmp_path, monkeypatch):
    """Its own code holds the words of the template; only the names of files may change there."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=config.PROJECT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().splitlines():
        if (config.PROJECT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config.PROJECT / name, tmp_path / name)
    monkeypatch.setattr(samples, "training_images", lambda: None)
    rename.rename(tmp_path, "acse-li123", "Li Wei", "01234567")
    for arguments in (["rename", "ab4", "--dry-run"], ["rename", "ab4"]):
        command = [sys.executable, "-m", "utils", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    lines = [line for result in compare.check(tmp_path) for line in result.lines]
    assert [line for line in lines if line.kind == "fault"] == []
    assert {line.kind for line in lines if "name" in line.requirement and "notebook" in line.requirement} == {"ok"}
    program = "from utils import config; print(*config.TASKS['hands'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ab4_DLcw1_clean.ipynb", "ab4_DLcw2_clean.ipynb"]


@pytest.mark.parametrize("name", ["username", "ab1223", "acse-ab1223", "edsml_ab123", "a.b-c_1"])
def test_samples_of_every_username_are_told_from_the_courses_images(name):
    """Otherwise the classifier would learn from our own samples as if the course had handed them out."""
    rename.check_name(name)
    assert not hand_images.is_course_name(f"{name}_001.jpeg")
    course = ("000001.jpeg", "VAE_hand_001.jpeg", "GAN_hand_517.jpeg", "real_hand_001.jpeg", "test_hand_8434.jpeg")
    assert all(map(hand_images.is_course_name, course))
