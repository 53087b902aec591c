"""An export can be handed in: it passes its check, and it holds no other files."""

import shutil
import subprocess
import sys

import nbformat
import pytest

from utils import config
from utils.handin import compare, export, inspection

pytestmark = pytest.mark.xdist_group("exporting")  # one process, because they share an expensive fixture


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    return {brief: export.export(config.PROJECT, brief, root / brief) for brief in export.LAYOUTS}


@pytest.mark.parametrize("brief", export.LAYOUTS)
def test_an_export_passes_its_own_check(exported, brief):
    assert compare.applying(exported[brief]) == [brief]
    assert [r for r in compare.check(exported[brief]) if r.status == "fail"] == []
    files = inspection.listing(exported[brief])
    assert not [name for name in files if name.startswith(("tests/", "real_hands/", "test_hands/", "runs/"))]
    assert "utils/config.py" in files


def test_the_portfolio_has_the_right_names_and_links(exported):
    names = {path.name for path in exported["portfolio"].iterdir()}
    wanted = {"GenAI Models.ipynb", "Hypertuning.ipynb", "Classifier.ipynb", "Classification Result.csv", "README.md"}
    assert wanted | {"GAN_hands", "VAE_hands", "references.md"} <= names
    text = (exported["portfolio"] / "README.md").read_text(encoding="utf-8")
    assert "## Answer to question 1" in text and "## The data" not in text
    assert ".ipynb)" not in text and "(docs/data_and_time.png)" in text
    assert (exported["portfolio"] / "docs" / "data_and_time.png").is_file()


def test_execution_numbers_of_merged_notebooks_continue(exported):
    merged = nbformat.read(exported["portfolio"] / "Hypertuning.ipynb", as_version=4)
    nbformat.validate(merged)
    parts = [nbformat.read(path, as_version=4) for path in sorted(config.PROJECT.glob("*_hypertune.ipynb"))]
    assert [c.source for c in merged.cells] == [c.source for part in parts for c in part.cells]
    counts = [c.execution_count for c in merged.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_coursework_1_exports_the_chosen_model(exported, tmp_path):
    assert not (exported["cw1"] / "VAE_hands").exists()
    out = export.export(config.PROJECT, "cw1", tmp_path / "out", model="VAE")
    assert len(list((out / "VAE_hands").iterdir())) == 300 and not (out / "GAN_hands").exists()


def test_nothing_is_overwritten_and_a_failed_export_leaves_no_files(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="mine' already exists"):
        export.export(config.PROJECT, "mri", tmp_path / "mine")
    with pytest.raises(ValueError, match="new' is inside the project"):
        export.export(config.PROJECT, "mri", config.PROJECT / "docs" / "new")
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(next(config.PROJECT.glob("*_classified_hands.csv")), project)
    with pytest.raises(FileNotFoundError, match="has no .*_DLcw2"):
        export.export(project, "cw2", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "project"}


def test_the_command_exports_and_refuses_to_overwrite(tmp_path):
    command = [sys.executable, "-m", "utils", "export", "mri", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and "0 wrong" in done.stdout and (tmp_path / "out" / "brain_mri").is_dir()
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and "already exists" in done.stderr and "Traceback" not in done.stderr
