"""Briefs as TOML files: those of this project, the example for teachers, and what is refused."""

import copy
import inspect
import re
import tomllib

import numpy as np
import pytest

from tests import made_hand_in as made
from tests.made_hand_in import WORDS, code, text
from utils import config
from utils.data import image_files
from utils.handin import briefs, compare

PAGE = (config.PROJECT / "docs" / "briefs.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```toml\n(.*?)```", PAGE, re.S)[1]


@pytest.mark.parametrize("name", briefs.names())
def test_each_brief_is_valid_and_quotes_its_own_words(name):
    brief = briefs.load(name)
    assert brief.title == briefs.titles()[name] and len(brief.requests) > 5
    for request in brief.requests:
        assert request.kind == "remark" or (request.quote and len(request.quote.split()) > 2), request
        assert request.kind == "remark" or request.advice, request
    used = {request.of for request in brief.requests} - {""}
    assert used == set(brief.files)  # every file is asked for


ONLY_REMARKS = {  # checks whose result the brief does not ask for
    "cw1": {"in_order", "sample_grey", "own_work"},
    "cw2": {"in_order", "sections", "table_form", "own_network", "loss_plot"},
    "mri": {"in_order", "array_known", "loss_plot"},
    "portfolio": {"in_order", "references", "table_form", "sample_grey"},
    "final": {"in_order", "mentions", "explained", "loss_plot"},
}


@pytest.mark.parametrize(("name", "checks"), ONLY_REMARKS.items())
def test_what_a_brief_does_not_ask_is_only_a_remark(name, checks):
    kinds = {r.check: r.kind for r in briefs.load(name).requests if r.check in checks}
    assert kinds == dict.fromkeys(checks, "remark")


def test_the_page_for_teachers_names_every_check_and_its_keys():
    briefs.load("cw1")  # fills CHECKS
    rows = [line.split("|") for line in PAGE[PAGE.index("## The checks") :].splitlines() if line.startswith("| `")]
    for name, function in briefs.CHECKS.items():
        (row,) = [row for row in rows if f"`{name}`" in row[1]]
        assert all(f"`{key}`" in row[3] for key in list(inspect.signature(function).parameters)[2:]), name


def test_a_teachers_brief_is_used_without_touching_python(tmp_path):
    (tmp_path / "week_3.toml").write_text(EXAMPLE, encoding="utf-8")
    root = tmp_path / "student"
    cells = [
        text(f"## Reading the data\nWrite your answer below\n{WORDS}"),
        code("x = read()\ny = 2\nprint(x)", made.printed()), text("## Model"),
        code("# your code here\nfit(x)\nresult = 3\nresult", made.printed()), text("## Evaluation"),
    ]  # fmt: skip
    made.write(root / "week3_ab123.ipynb", cells)
    (root / "My report.pdf").write_bytes(b"%PDF-1.4")
    (result,) = compare.check(root, [str(tmp_path / "week_3.toml")])
    assert {line.kind for line in result.lines} == {"ok"} and result.brief == "week_3"
    (root / "week3_ab123.ipynb").unlink()
    (result,) = compare.check(root, [str(tmp_path / "week_3.toml")])
    (wrong,) = [line for line in result.lines if line.kind == "fault"]
    assert wrong.quote == "Hand in one notebook, week3_<username>.ipynb"


SAMPLES = """title = "ten samples"
signs = ["hand"]

[files.samples]
kind = "images"
names = ["made"]

[[ask]]
asks = "ten images"
check = "sample_count"
of = "samples"
count = 10
quote = "Hand in ten new images."
advice = "Make ten."
"""


def test_a_teachers_number_of_samples_chooses_the_folder(tmp_path):
    (tmp_path / "ten.toml").write_text(SAMPLES, encoding="utf-8")
    for folder, count in (("a/made", 300), ("b/made", 10)):
        image_files.write_jpegs(np.zeros((count, 1, 32, 32), np.uint8), tmp_path / "student" / folder, "ab123", count)
    (result,) = compare.check(tmp_path / "student", [str(tmp_path / "ten.toml")])
    (line,) = result.lines
    assert (line.kind, line.found) == ("remark", ["a/made holds images too; only one of the two is used"])


def changed(path, value):
    """The example with another value somewhere. None removes the key."""

    def change(content):
        place = content
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


WRONG = [
    (changed(["title"], None), "'title' is missing"),
    (changed(["tittle"], "x"), "'tittle' is unknown"),
    (changed(["template"], "x"), "'template' must be of type list"),
    (changed(["signs"], ["("]), "is not a regular expression"),
    (changed(["files", "notebook", "kind"], "video"), "kind 'video' is unknown"),
    (changed(["files", "notebook", "names"], []), "'names' is empty"),
    (changed(["ask", 0, "of"], "notebok"), "ask 1: there are no files.notebok"),
    (changed(["ask", 0, "check"], "exists"), "ask 1: 'check' must be one of answered, array_filled"),
    (changed(["ask", 0, "quote"], None), "a fault needs the brief's own words"),
    (changed(["ask", 2, "titles"], None), "ask 3: 'titles' is missing"),
    (changed(["ask", 2, "titles"], ["data: ("]), "is not a regular expression"),
    (changed(["ask", 2, "kind"], "hint"), "must be fault or remark"),
    (changed(["ask", 1, "asks"], "notebook"), "it asks twice for 'notebook'"),
    (changed(["ask"], []), "it asks for nothing"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_wrong_brief_is_refused_with_the_place_and_the_reason(change, said):
    content = copy.deepcopy(tomllib.loads(EXAMPLE))
    briefs.read("mine", content)
    change(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        briefs.read("mine", content)


def test_a_file_that_is_no_brief_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("title = ", encoding="utf-8")
    with pytest.raises(ValueError, match="a.toml is not a TOML file"):
        briefs.load(str(tmp_path / "a.toml"))
    with pytest.raises(FileNotFoundError, match="no brief 'cw9'. There are cw1, cw2, final, mri, portfolio"):
        briefs.load("cw9")
