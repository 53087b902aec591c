"""The checks of the MRI coursework, the portfolio and the final assignment."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests import made_hand_in as made
from tests.made_hand_in import code, code_cell, edit
from tests.test_checks import found, only_these_faults
from utils.data import head_images
from utils.handin import compare
from utils.handin.checks import samples

pytestmark = pytest.mark.xdist_group("heads")  # one process, because they share expensive fixtures
SHAPE, NUMBERS, ORDER = "filled images: 100 of 64 x 64", "filled images: numbers", "filled images: order"
SCALE, GAPS, KNOWN = "filled images: scale", "filled images: gaps filled", "filled images: known pixels"


@pytest.fixture(scope="module", autouse=True)
def course_files(tmp_path_factory):
    """A test set that fits the heads in this repository, and no training hands."""
    path = tmp_path_factory.mktemp("course") / "test_set.npy"
    np.save(path, made.test_set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_images, "find", lambda name: path)
        patch.setattr(samples, "training_images", lambda: None)
        yield path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made.mri(tmp_path_factory.mktemp("mri") / "student")


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_students_good_hand_in_has_no_fault(whole):
    assert found(whole, "mri") == {}
    assert set(found(whole, "mri", "unchecked")) == {"academic integrity declaration"}  # no file shows it
    assert set(found(whole, "mri", "remark")) == {"notebook: executed in order", KNOWN}


def test_the_empty_template_and_an_invented_answer_are_recognised(tmp_path):
    made.mri_template(tmp_path)
    assert set(found(tmp_path, "mri")) == {"notebook", "filled images", "references: sources listed"}
    edit(tmp_path / "Assessment.ipynb", lambda cells, _: cells.append(code("x = 1", eight_bytes())))
    np.save(tmp_path / "test_set_nogaps.npy", np.random.default_rng(0).random((100, 1, 64, 64)))
    assert set(found(tmp_path, "mri")) == {"notebook", ORDER, "references: sources listed"}


def eight_bytes():
    output = made.picture()
    output["data"] = {"image/png": "iVBORw0KGgo="}
    return output


def array(change):
    def harm(root):
        path = root / "test_set_nogaps.npy"
        np.save(path, change(np.load(path).astype(np.float64)))

    return harm


def stripes():
    return (made.test_set() == 0).all(axis=(0, 1))


def gaps(value):
    """The gaps of all images get a value, or one value each."""

    def change(images):
        images[:, stripes()] = np.broadcast_to(value, (100,))[:, None]
        return images

    return array(change)


def one_nan(images):
    images[3, 5, 5] = np.nan
    return images


def noise_in_gaps(images):
    images[:, stripes()] = np.random.default_rng(0).random((100, stripes().sum()))
    return images


def swapped(images):
    return images[[1, 0, *range(2, 100)]]


ARRAYS = [
    (array(lambda x: x[:99]), {SHAPE}, "shape (99, 64, 64)"),
    (array(lambda x: x.reshape(100, 4096)), {SHAPE}, "(100, 4096)"),
    (array(lambda x: x[:, None].repeat(3, 1)), {SHAPE}, "(100, 3, 64, 64)"),
    (array(one_nan), {NUMBERS}, "1 values are NaN or infinity, in images 3"),
    (array(lambda x: x * 2 - 1), {SCALE}, "2.00 times the test set's - 1.00"),
    (array(lambda x: np.round(x * 255).astype(np.uint8)), {SCALE}, "255"),
    (array(lambda x: x[::-1]), {ORDER}, "image 0 shows test image 99"),
    (array(swapped), {ORDER}, "2 of 100 images are at another place: image 0 shows test image 1"),
    (array(lambda x: (x * 2 - 1)[::-1]), {ORDER, SCALE}, "another place"),
    (array(lambda x: x[:, :, ::-1]), {ORDER}, "mirrored from left to right"),
    (array(lambda x: x.swapaxes(1, 2)), {ORDER}, "rows and columns swapped"),
    (array(lambda x: np.random.default_rng(0).random(x.shape)), {ORDER}, "do not show the test images"),
    (array(lambda x: x.mean(0)[None].repeat(100, 0)), {ORDER}, "hardly differ from each other"),
    (array(lambda x: x / 2), {SCALE}, "0.50 times"),
    (gaps(0), {GAPS}, "100 images still have their gaps"),
    (gaps(0.4), {GAPS}, "hold one constant"),
    (gaps(np.linspace(0.1, 0.9, 100)), {GAPS}, "the gaps of 100 images hold one constant"),
    (lambda root: (root / "test_set_nogaps.npy").write_bytes(b"PK\3\4"), {"filled images"}, "archive"),
    (lambda root: (root / "test_set_nogaps.npy").unlink(), {"filled images"}, "there is no"),
    (
        lambda root: (root / "test_set_nogaps.npy").rename(root / "result_nogaps.npy"),
        {"filled images: name"},
        "was taken",
    ),
]


@pytest.mark.parametrize(("harm", "expected", "said"), ARRAYS)
def test_each_fault_of_the_array_is_found_and_nothing_else(root, harm, expected, said):
    only_these_faults(root, harm, expected, said, "mri")
    results = compare.check(root, ["mri"])
    advice = " ".join(line.advice for line in results[0].lines)
    assert "utils fill" not in advice  # nobody is told to hand in this project's work


ALIKE = [
    (array(lambda x: x[:, None]), KNOWN),
    (array(lambda x: x.astype(np.float16)), KNOWN),
    (array(lambda x: x[..., None]), SHAPE),
    (array(lambda x: x * 1.05 - 0.02), SCALE),  # a little overshoot
    (array(lambda x: (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, -1, 1) + np.roll(x, -1, 2)) / 5), KNOWN),
    (array(noise_in_gaps), GAPS),
    (lambda root: shutil.copy(head_images.ANSWER, root / "test_set_nogaps.npy"), "filled images: your own"),
]


@pytest.mark.parametrize(("change", "remark"), ALIKE)
def test_what_no_brief_asks_is_at_most_a_remark(root, change, remark):
    change(root)
    assert found(root, "mri") == {} and remark in found(root, "mri", "remark")


def test_the_hand_ins_own_test_set_is_used_if_there_is_no_other(root, monkeypatch, course_files):
    def nowhere(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(head_images, "find", nowhere)
    array(lambda x: x[::-1])(root)
    assert found(root, "mri") == {} and ORDER in found(root, "mri", "unchecked")
    shutil.copy(course_files, root / "test_set.npy")
    assert set(found(root, "mri")) == {ORDER}


def cells(change):
    return lambda root: edit(root / "Assessment.ipynb", lambda found, _: change(found))


NOTEBOOKS = [
    (lambda root: (root / "Assessment.ipynb").rename(root / "MRI.ipynb"), {"notebook: name"}, "MRI.ipynb was taken"),
    (cells(lambda c: c[4].update(source="## Part 2")), {"notebook: the three questions by name"}, "Question 2"),
    (cells(lambda c: c.pop(5)), {"notebook: each question answered"}, "Question 2 is unanswered"),
    (cells(lambda c: code_cell(c, "DataLoader").update(outputs=[])), {"notebook: executed, outputs visible"}, "1 of 3"),
]


@pytest.mark.parametrize(("harm", "expected", "said"), NOTEBOOKS)
def test_each_fault_of_the_notebook_is_found(root, harm, expected, said):
    harm(root)
    faults = found(root, "mri")
    assert any(said in text for texts in faults.values() for text in texts), faults
    assert expected <= set(faults)


# ---- the portfolio


def test_a_portfolio_is_one_hand_in_for_both_courseworks(tmp_path):
    root = made.portfolio(tmp_path / "student")
    assert [result.brief for result in compare.check(root)] == ["portfolio"]
    assert found(root, "portfolio") == {}
    (root / "Classification Result.csv").rename(root / "labels.csv")
    assert [result.brief for result in compare.check(root)] == ["portfolio"]
    (root / "labels.csv").rename(root / "Classification Result.csv")
    (root / "references.md").unlink()
    assert found(root, "portfolio") == {}  # only the courseworks ask for it
    (root / "GenAI Models.ipynb").unlink()
    assert set(found(root, "portfolio")) == {"GenAI Models"}
    shutil.rmtree(root / "GAN_hands")
    assert "portfolio" not in [result.brief for result in compare.check(root)]  # its second half is coursework 2


# ---- the final assignment


@pytest.fixture
def last(tmp_path):
    return made.final(tmp_path / "student")


def report(old, new):
    def change(root):
        text = (root / "report.md").read_text(encoding="utf-8")
        assert old in text
        (root / "report.md").write_text(text.replace(old, new), encoding="utf-8")

    return change


REPORT = "report: contents and length"
FINAL = [
    (report("Lessons learned", "End"), {REPORT}, "nothing about lessons learned"),
    (report("split", "take"), {REPORT}, "the splits of the data"),
    (report("![loss](samples/grid.png)", ""), {REPORT}, "no figure"),
    (report("grid.png", "nowhere.png"), {REPORT}, "nowhere.png, which is not in the hand-in"),
    (report("We split", "We split " * 60), {REPORT}, "about two pages"),
    (lambda root: (root / "report.md").unlink(), {"report"}, "there is no report.md"),
    (lambda root: shutil.rmtree(root / "samples"), {"samples", REPORT}, "no images"),
    (lambda root: Image.new("L", (9, 9)).save(root / "samples" / "grid.png"), {"samples: pictures"}, "blank"),
    (lambda root: (root / "VAE_fashion.ipynb").unlink(), {"code"}, "no notebooks and no Python files"),
]


@pytest.mark.parametrize(("harm", "expected", "said"), FINAL)
def test_each_fault_of_the_final_assignment_is_found(last, harm, expected, said):
    assert found(last, "final") == {}
    only_these_faults(last, harm, expected, said, "final")


def test_python_files_are_code_too_and_a_report_alone_belongs_to_no_other_hand_in(last, tmp_path):
    (last / "VAE_fashion.ipynb").unlink()
    (last / "train.py").write_text("import torch", encoding="utf-8")
    assert [result.brief for result in compare.check(last)] == ["final"] and found(last, "final") == {}
    root = made.cw1(tmp_path / "other")
    (root / "report.pdf").write_bytes(b"%PDF-1.4")
    assert [result.brief for result in compare.check(root)] == ["cw1"]


def test_one_family_is_enough_and_a_pdf_is_read_by_eye(last):
    assert "five families" in " ".join(found(last, "final", "remark"))
    (last / "report.md").rename(last / "My report.pdf")
    assert found(last, "final") == {} and "read by eye" in found(last, "final", "unchecked")[REPORT][0]
