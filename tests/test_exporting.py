"""An export can be handed in: it passes its check, and it holds no other files."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest

from utils import config
from utils.handin import compare, export, inspection, source
from utils.handin.checks import samples

pytestmark = pytest.mark.xdist_group("exporting")  # one process, because they share an expensive fixture


@pytest.fixture(scope="module", autouse=True)
def no_training_images():
    """The search for copies of real hands takes a second for each check, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "training_images", lambda: None)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    return {brief: export.export(config.PROJECT, brief, root / brief) for brief in export.LAYOUTS}


@pytest.mark.parametrize("brief", export.LAYOUTS)
def test_an_export_passes_its_own_check(exported, brief):
    results = compare.check(exported[brief])
    assert [result.brief for result in results] == [brief]
    assert [line for result in results for line in result.lines if line.kind == "fault"] == []
    files = inspection.listing(exported[brief])
    assert not [name for name in files if name.startswith(("tests/", "real_hands/", "test_hands/", "runs/"))]
    assert "utils/config.py" in files
    assert not [name for name in files if name.startswith(("utils/commands/", "utils/handin/check_"))]  # not imported


@pytest.mark.parametrize("brief", export.LAYOUTS)
def test_what_notebooks_and_modules_import_is_there(exported, brief):
    """A committed notebook may be older than the code; what the project itself lacks is not looked for."""
    root, modules = exported[brief], set()
    for path in root.rglob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        trees = [source.parse(cell.source) for cell in cells if cell.cell_type == "code"]
        modules |= source.imports([tree for tree in trees if tree])
    for path in root.rglob("*.py"):
        modules |= source.imports([source.parse(path.read_text(encoding="utf-8"))])
    paths = {f"{name.replace('.', '/')}.py" for name in modules if name.startswith("utils.")}
    wanted = {path for path in paths if (config.PROJECT / path).is_file()}
    assert len(wanted) > 10 and [path for path in sorted(wanted) if not (root / path).is_file()] == []


@pytest.mark.parametrize("brief", export.LAYOUTS)
def test_notebooks_are_valid(exported, brief):
    for path in exported[brief].rglob("*.ipynb"):
        nbformat.validate(json.loads(path.read_text(encoding="utf-8")))


def test_notebooks_with_ids_and_an_old_minor_version_are_made_valid():
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "é", "id": "a"},
        {"cell_type": "markdown", "metadata": {}, "source": ""},
    ]
    for minor in (4, 5):
        content = json.dumps({"nbformat": 4, "nbformat_minor": minor, "metadata": {}, "cells": cells}).encode()
        nbformat.validate(json.loads(export.valid(content)))
        assert export.valid(export.valid(content)) == export.valid(content)
    right = json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells[1:]}).encode()
    assert export.valid(right) == right


def test_an_export_may_lie_inside_the_project(tmp_path):
    """It passes its own check, and the check of the project does not change."""
    listed = subprocess.run(["git", "ls-files"], cwd=config.PROJECT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(config.PROJECT / name, tmp_path / name)
    before = [line for result in compare.check(tmp_path, ["cw1"]) for line in result.lines]
    out = export.export(tmp_path, "cw1", tmp_path / "hand_in")
    assert [line for result in compare.check(out) for line in result.lines if line.kind == "fault"] == []
    after = [line for result in compare.check(tmp_path, ["cw1"]) for line in result.lines]
    assert [(x.requirement, x.kind) for x in before] == [(x.requirement, x.kind) for x in after]
    export.export(tmp_path, "cw2", tmp_path / "second")
    with pytest.raises(ValueError, match="inside a folder of the project that is handed in"):
        export.export(tmp_path, "cw1", tmp_path / "utils" / "new")


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
    with pytest.raises(ValueError, match="new' is inside a folder of the project"):
        export.export(config.PROJECT, "mri", config.PROJECT / "brain_mri" / "new")
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(next(config.PROJECT.glob("*_classified_hands.csv")), project)
    with pytest.raises(FileNotFoundError, match="has no .*_DLcw2"):
        export.export(project, "cw2", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "project"}


def test_a_damaged_notebook_is_named(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(config.PROJECT / "brain_mri", project / "brain_mri")
    for name in ("username_classified_hands.csv", "requirements.txt", "constraints.txt", "LICENSE"):
        shutil.copyfile(config.PROJECT / name, project / name)
    for name in ("utils/hyperparameters.json", "weights/vae_hands.safetensors"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(config.PROJECT / name, project / name)
    (project / "brain_mri" / "Assessment.ipynb").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="Assessment.ipynb is not a Jupyter notebook: it has no cells"):
        export.export(project, "mri", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_refuses_to_overwrite(tmp_path):
    command = [sys.executable, "-m", "utils", "export", "mri", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and " 0 faults" in done.stdout and (tmp_path / "out" / "brain_mri").is_dir()
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and "already exists" in done.stderr and "Traceback" not in done.stderr
