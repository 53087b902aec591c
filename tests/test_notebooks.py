"""The committed notebooks were executed and can be displayed. Each notebook runs from start to end in smoke."""

import ast
import base64
import importlib
import inspect
import io
import json
import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures, write_fashion_mnist
from utils import budgets, config
from utils.data import hand_images, head_images, image_files, label_csv
from utils.handin import export as exporting
from utils.models import zoo
from utils.notebooks import execute, figures, results

PROJECT = config.PROJECT
FOLDERS = (".", "brain_mri", "fashion_mnist")
COMMITTED = sorted(p.relative_to(PROJECT).as_posix() for f in FOLDERS for p in PROJECT.glob(f"{f}/*.ipynb"))
WAITING: set[str] = set()  # they must be executed again, because the code that they show has changed
SECTIONS = {
    "username_DLcw1_clean.ipynb": [
        "Justification of the choice", "Data preparation", "Network design", "Training and evaluation loops",
        "Training", "Generating 300 samples", "Saving them as JPEG",
    ],
    "username_DLcw2_clean.ipynb": [
        "Model selection", "Data preparation", "Network", "Training and evaluation loops",
        "Training", "Evaluation", "Predictions",
    ],
    "brain_mri/Assessment.ipynb": [
        "the data set", "TensorDatasets and DataLoaders", "the network",
    ],
    "fashion_mnist/generative_models.ipynb": [
        "Data", "What is the same for all, and what is not", "Variational autoencoder", "GAN", "Autoregressive",
        "Normalising flow", "Diffusion", "The comparison", "Faces",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_notebook_was_executed_once_and_can_be_displayed(name):
    notebook = nbformat.read(PROJECT / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if execute.WIDGET in output.get("data", {})]
    assert "widgets" not in notebook.metadata
    assert (PROJECT / name).stat().st_size < 5_000_000
    assert any("image/png" in output.get("data", {}) for output in outputs)
    printed = json.dumps(outputs)
    assert "profile full" in printed and "NOT A RESULT" not in printed


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_are_in_the_order_of_the_brief(name):
    notebook = nbformat.read(PROJECT / name, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (?:Question )?(\d+)[.:] (.*)$", text, re.M)
    assert [title for _, title in headings] and [int(n) for n, _ in headings] == list(range(1, len(headings) + 1))
    for (_, title), wanted in zip(headings, SECTIONS[name], strict=True):
        assert title.startswith(wanted)


def imported(tree: ast.Module) -> dict[str, object]:
    """The objects that a notebook imports from utils, and its budget, by their names in the notebook."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("utils"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                name = alias.asname or alias.name
                found[name] = getattr(module, alias.name, None) or importlib.import_module(
                    f"{node.module}.{alias.name}"
                )
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("budgets."):
            found[ast.unparse(node.targets[0])] = operator.attrgetter(ast.unparse(node.value.func)[8:])(budgets)()
    return found


def missing_names(name: str) -> list[str]:
    """The names that a notebook uses from modules, classes and budgets of utils, but that do not exist there."""
    cells = [cell.source for cell in nbformat.read(PROJECT / name, as_version=4).cells if cell.cell_type == "code"]
    source = re.sub(r"^(\s*)[!%].*$", r"\1pass", "\n".join(cells), flags=re.M)  # IPython commands
    tree = ast.parse(source)
    things, missing = imported(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *attributes = ast.unparse(node).split(".")
            thing = things.get(first)
            for attribute in attributes if thing is not None and "(" not in ast.unparse(node) else ():
                if not hasattr(thing, attribute):
                    missing.append(ast.unparse(node))
                    break
                thing = getattr(thing, attribute)
                if not inspect.isclass(thing):
                    break
    return missing


@pytest.mark.parametrize("name", COMMITTED)
def test_every_name_that_a_notebook_uses_is_in_the_package(name):
    assert missing_names(name) == []


def stale(name: str) -> list[str]:
    """The functions and classes whose code has changed since the notebook showed it."""
    found, modules = [], {}
    for cell in nbformat.read(PROJECT / name, as_version=4).cells:
        nodes = list(ast.walk(ast.parse(cell.source))) if cell.cell_type == "code" else []
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                modules |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        if any(ast.unparse(call.func) == "figures.show_source" for call in calls):
            shown = "\n".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
            for call in calls:
                for thing in call.args if ast.unparse(call.func) == "figures.show_source" else ():
                    module, _, attribute = ast.unparse(thing).partition(".")
                    asked = operator.attrgetter(attribute)(importlib.import_module(modules[module]))
                    if inspect.getsource(asked) not in shown + "\n":
                        found.append(asked.__qualname__)
    return found


@pytest.mark.parametrize("name", COMMITTED)
def test_a_notebook_shows_the_current_code(name):
    if name in WAITING:
        assert stale(name), f"{name} shows the current code: remove it from WAITING"
    else:
        assert stale(name) == [], f"this code has changed since {name} was executed"


def test_no_function_is_defined_in_two_notebooks():
    defined: dict[str, str] = {}
    for name in COMMITTED:
        for cell in nbformat.read(PROJECT / name, as_version=4).cells:
            if cell.cell_type == "code":
                for function in re.findall(r"^def (\w+)", cell.source, re.M):
                    assert defined.setdefault(function, name) == name, (
                        f"{function} is in {name} and {defined[function]}"
                    )


def with_course_images(export: Path) -> Path:
    """Link the images of this project into an exported hand-in. If there are none, stand-ins are made."""
    for folder in hand_images.FOLDERS:
        for path in (PROJECT / folder).glob("*"):
            if not (export / folder / path.name).exists():
                (export / folder).mkdir(exist_ok=True)
                (export / folder / path.name).symlink_to(path)
    program = "sources.obtain(network=False, stand_in=shipped.hands)"
    program = f"from utils.data import sources; from utils.models import shipped; {program}"
    subprocess.run([sys.executable, "-c", program], cwd=export, check=True)
    return export


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
here = {"metadata": {"path": "."}}
try:
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=here).execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""


def run_hand_in(tmp_path: Path, brief: str, names: list[str]) -> tuple[Path, Path]:
    """Execute notebooks of an exported hand-in in its own folder and with its own modules, in the profile smoke.

    Returns:
        The folder of the export, and the folder of the results.
    """
    committed = (PROJECT / "utils" / "hyperparameters.json").read_bytes()
    export = exporting.export(PROJECT, brief, tmp_path / brief)
    if brief == "portfolio":
        with_course_images(export)
    write_fashion_mnist(tmp_path / "data" / "FashionMNIST" / "raw", 600)
    settings = {"PROFILE": "smoke", "OMP_NUM_THREADS": "1", "DATA_FOLDER": str(tmp_path / "data")}
    out = tmp_path / "runs" / "smoke"
    out.mkdir(parents=True)
    for name in names:
        done = subprocess.run(
            [sys.executable, "-c", EXECUTE, name, out / Path(name).name],
            cwd=export, env=os.environ | settings | {"RUNS_FOLDER": str(tmp_path / "runs")},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "profile smoke" in json.dumps(nbformat.read(out / Path(name).name, as_version=4).cells)
    assert (export / "utils" / "hyperparameters.json").read_bytes() == committed
    return export, out


@pytest.mark.first
def test_coursework_1_runs_from_its_export(tmp_path):
    _, out = run_hand_in(tmp_path, "portfolio", ["GenAI Models.ipynb"])
    for kind in ("GAN", "VAE"):
        assert len(list((out / f"{kind}_hands").glob("username_???.jpeg"))) == 300


@pytest.mark.first
def test_coursework_2_runs_from_its_export(tmp_path):
    _, out = run_hand_in(tmp_path, "portfolio", ["Classifier.ipynb"])
    given = label_csv.read(out / "username_classified_hands.csv")
    course = sorted(path.name for path in (PROJECT / "test_hands").glob("test_hand_*"))
    assert list(given) == sorted(given) and len(given) > 200
    assert not course or list(given)[:400] == course[:400]  # smoke reads only a part


@pytest.mark.first
def test_the_tuning_of_both_courseworks_runs_from_its_export(tmp_path):
    _, out = run_hand_in(tmp_path, "portfolio", ["Hypertuning.ipynb"])
    tuned = json.loads(next(out.glob("hyperparameters*.json")).read_text(encoding="utf-8"))
    assert set(tuned) >= {"vae", "classifier"}


@pytest.mark.first
def test_the_final_assignment_runs_from_its_export(tmp_path):
    _, out = run_hand_in(tmp_path, "final", list(config.TASKS["final"]))
    grids = {path.name for path in (out / "fashion_mnist" / "samples").iterdir()}
    names = ("gan_with_classes", "gan_from_a_vae", "diffusion_longer", *map(str.lower, zoo.MODELS))
    assert grids == {f"{name}_{kind}.png" for name in names for kind in ("first_100", "chosen")}


@pytest.mark.first
def test_the_mri_notebook_runs_from_its_export(tmp_path):
    _, out = run_hand_in(tmp_path, "mri", list(config.TASKS["mri"]))
    assert head_images.read(out / "brain_mri" / "test_set_nogaps.npy").shape == (100, 1, 64, 64)


def test_the_committed_csv_has_a_label_for_each_of_the_8434_test_files():
    text = (PROJECT / "username_classified_hands.csv").read_text(encoding="utf-8")
    assert re.fullmatch(r"(test_hand_\d+\.jpeg, [012]\n){8434}", text)
    given = label_csv.read(PROJECT / "username_classified_hands.csv")
    assert list(given) == sorted(given) and set(given.values()) == {0, 1, 2}


@pytest.mark.parametrize(("origin", "said"), [("STAND-IN: drawn", "STAND-IN"), ("the course's", "hands_cw2.tar.gz")])
def test_the_profile_full_does_not_overwrite_results_without_the_courses_data(tmp_path, monkeypatch, origin, said):
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    monkeypatch.setattr(hand_images, "origin", lambda: origin)
    monkeypatch.setenv("PROFILE", "full")
    monkeypatch.delenv("RUNS_FOLDER", raising=False)
    (tmp_path / "username_DLcw2_clean.ipynb").touch()
    with pytest.raises(ValueError, match=f"{said}.*would overwrite the committed"):
        execute.execute_all([tmp_path / "username_DLcw2_clean.ipynb"])


def test_a_failing_notebook_is_reported_and_keeps_its_outputs(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print('so far')"), nbformat.v4.new_code_cell("1 / 0")]
    )
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    environment = os.environ | {"PROFILE": "smoke", "RUNS_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "utils", "notebooks", str(tmp_path / "bad.ipynb")]
    done = subprocess.run(command, cwd=PROJECT, env=environment, text=True, capture_output=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert "so far" in (tmp_path / "smoke" / "bad.ipynb").read_text(encoding="utf-8")
    done = subprocess.run([*command, "--fresh"], cwd=PROJECT, env=environment, text=True, capture_output=True)
    assert done.returncode == 1 and "is kept as" in done.stdout and (tmp_path / "smoke.old_1" / "bad.ipynb").is_file()


def test_what_is_not_a_notebook_is_refused_before_anything_is_executed(tmp_path):
    (tmp_path / "a.ipynb").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="'.*text.md' is not a notebook"):
        execute.execute_all([tmp_path / "a.ipynb", tmp_path / "text.md"])


def test_the_time_that_is_left_follows_the_pace_of_the_machine():
    known = [10.0, 30.0, 60.0]
    assert execute.time_left(known, 0, 0.0) == 100
    assert execute.time_left(known, 1, 10.0) == 90  # too early to know this machine's pace
    assert execute.time_left(known, 2, 80.0) == 120  # half as fast as the machine of the known durations
    assert execute.clock(187.2) == "3:07"


def test_each_code_cell_has_the_heading_above_it():
    new = nbformat.v4
    cells = [new.new_markdown_cell("# Title\n\n## 1. Data"), new.new_code_cell("a"), new.new_markdown_cell("text")]
    cells += [new.new_code_cell("b"), new.new_markdown_cell("### 1.1 Reading"), new.new_code_cell("c")]
    assert execute.headings(new.new_notebook(cells=cells)) == ["1. Data", "1. Data", "1.1 Reading"]


def test_the_summary_names_sheets_and_label_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    for kind in ("GAN", "VAE"):
        image_files.write_jpegs(draw_pictures(3), tmp_path / "smoke" / f"{kind}_hands", "username", 3)
    label_csv.write(
        tmp_path / "smoke" / "username_classified_hands.csv", ["test_hand_1.jpeg", "test_hand_2.jpeg"], [0, 2]
    )
    lines = results.summary([PROJECT / name for name in config.TASKS["hands"]])
    assert "2 files: 1 real, 0 VAE, 1 GAN" in lines[2]
    for kind in ("GAN", "VAE"):
        with Image.open(tmp_path / "smoke" / f"{kind}_hands.png") as sheet:
            assert sheet.size == (20 * 99 - 3, 96)


def test_progress_bars_and_widgets_are_removed():
    output = nbformat.v4.new_output("stream", text="10%\r50%\r100%\nkept\n")
    widget = nbformat.v4.new_output("display_data", data={execute.WIDGET: {}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output, widget])])
    notebook.metadata["widgets"] = {}
    execute.clean(notebook)
    assert [o.text for o in notebook.cells[0].outputs] == ["100%\nkept\n"] and "widgets" not in notebook.metadata


@pytest.mark.parametrize("fill", [(90, 90, 90, 255), (90, 20, 90, 255), (90, 90, 90, 100)])
def test_pictures_get_smaller_and_no_pixel_changes(fill):
    picture = Image.new("RGBA", (200, 50), fill)
    picture.paste((255, 255, 255, 255), (20, 10, 60, 30))
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)
    data = {execute.PNG: base64.b64encode(written.getvalue()).decode()}
    output = nbformat.v4.new_output("display_data", data=data)
    cells = [nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("x", outputs=[output])]
    execute.shrink_pictures(nbformat.v4.new_notebook(cells=cells))
    after = base64.b64decode(output.data[execute.PNG])
    assert Image.open(io.BytesIO(after)).convert("RGBA").tobytes() == picture.tobytes()
    assert len(after) < len(written.getvalue()) or fill[3] < 255


@pytest.mark.skipif(os.name == "nt", reason="sends the signal of Ctrl-C as on Linux and macOS")
def test_ctrl_c_ends_the_cell_and_says_so(tmp_path):
    cells = [nbformat.v4.new_code_cell("print('so far')"), nbformat.v4.new_code_cell("import time; time.sleep(600)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "long.ipynb")
    command = [sys.executable, "-m", "utils", "notebooks", str(tmp_path / "long.ipynb")]
    environment = os.environ | {"PROFILE": "smoke", "RUNS_FOLDER": str(tmp_path)}
    saved = tmp_path / "smoke" / "long.ipynb"
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True) as program:
        while not saved.is_file():  # the first cell has ended
            assert program.poll() is None
            time.sleep(0.1)
        program.send_signal(signal.SIGINT)
        said = program.communicate(timeout=60)[1]
    assert program.returncode == 130 and "Stopped with Ctrl-C" in said and "Traceback" not in said
    assert "so far" in saved.read_text(encoding="utf-8")


def test_a_chain_is_drawn_with_its_texts_and_an_arrow_between_each_two_boxes():
    figure = figures.show_chains({"VAE": ["image", "encoder", "latents"], "GAN": ["latents", "generator"]})
    texts = figure.axes[0].texts
    assert {"VAE", "GAN", "image", "encoder", "generator"} <= {text.get_text() for text in texts}
    assert sum(hasattr(text, "arrow_patch") and text.arrow_patch is not None for text in texts) == 3


def test_the_labels_of_curves_stay_apart_when_an_axis_is_changed_afterwards():
    history = [{"images": 1000 * step, "psnr": 20.0 + step} for step in range(1, 9)]
    figure = figures.show_curves({"one": history, "two": history}, {"a": ["psnr"], "PSNR, validation (dB)": ["psnr"]})
    left, right = figure.axes
    right.set_yticks([24], ["twenty-four"])
    figure.canvas.draw()
    assert right.get_tightbbox().x0 > left.get_tightbbox().x1
    assert figure.legends[0].get_window_extent().x0 > right.get_tightbbox().x1


def test_colours_go_from_black_to_bright_and_stand_beside_grey_rows():
    values = np.linspace(0, 2, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    colours = figures.coloured(values, 1.0)
    brightness = colours[0].astype(float).mean(0).ravel()
    assert colours.shape == (1, 3, 4, 4) and brightness[0] < 2 and (np.diff(brightness[:8]) > 0).all()
    assert (brightness[8:] == brightness[-1]).all()  # above the highest value
    grey = np.full((1, 1, 4, 4), 100, np.uint8)
    figure = figures.show_rows({"grey": grey, "colours": colours})
    figures.show_colours(figure, 1.0, "unit")
    shown = figure.axes[0].images[0].get_array()
    assert (shown[:4, :4] == 100).all() and (shown[5:9, :4] == colours[0].transpose(1, 2, 0)).all()
    assert figure.axes[1].get_ylabel() == "unit"
