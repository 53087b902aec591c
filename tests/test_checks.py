"""The checks of a hand-in: a correct hand-in passes, and each fault is found."""

import importlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.made_hand_in import BROKEN, image, write_hand_in
from utils.data import head_images
from utils.handin import briefs, check_samples, compare

pytestmark = pytest.mark.xdist_group("checks")  # one process, because they share an expensive fixture


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("hand-in") / "ab123"
    write_hand_in(root)
    return root


@pytest.fixture
def course_files(monkeypatch, tmp_path):
    """Replace the course's own files: training images that are unlike all samples, and the test set."""
    training = np.zeros((50, 1, 32, 32), np.uint8)
    training += np.arange(50, dtype=np.uint8)[:, None, None, None]
    monkeypatch.setattr(check_samples, "training_images", lambda: training)
    rows, columns = np.indices((64, 64))
    stripes = (columns - rows // 4) % 4 < 2
    np.save(tmp_path / "test_set.npy", np.where(stripes, 0, head_images.read(head_images.ANSWER)).astype(np.float32))
    monkeypatch.setattr(head_images, "find", lambda name: tmp_path / name)


def test_a_correct_hand_in_passes(whole, course_files):
    results = compare.check(whole)
    assert {r.brief for r in results} == {"cw1", "cw2", "mri", "final"}
    assert [r for r in results if r.status != "pass"] == []
    assert "0 wrong" in compare.table(results)


@pytest.mark.parametrize(("harm", "requirement", "said"), BROKEN)
def test_each_fault_is_found_and_nothing_else(whole, course_files, tmp_path, harm, requirement, said):
    root = tmp_path / "copy"
    shutil.copytree(whole, root)
    harm(root)
    failed = [r for r in compare.check(root, ["cw1", "cw2", "mri", "final"]) if r.status == "fail"]
    assert failed and all(r.requirement.removeprefix("a notebook ").startswith(requirement) for r in failed)
    assert any(said in r.found for r in failed) and all(r.advice for r in failed)


def test_copies_of_training_images_are_found(whole, course_files, tmp_path, monkeypatch):
    training = np.asarray(Image.open(image(whole, 9)))[None, None]
    monkeypatch.setattr(check_samples, "training_images", lambda: training)
    (wrong,) = [r for r in compare.check(whole, ["cw1"]) if r.status == "fail"]
    assert "ab123_009.jpeg is a copy" in wrong.found


def test_checks_that_need_the_courses_files_are_unchecked_without_them(whole, monkeypatch):
    def nowhere(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(head_images, "find", nowhere)
    monkeypatch.setattr(check_samples, "training_images", lambda: None)
    left = [r for r in compare.check(whole) if r.status != "pass"]
    assert [r.status for r in left] == ["unchecked"] * 2 and "real_hands" in left[0].found


def test_every_requirement_has_a_function_that_checks_it():
    for requirement in briefs.REQUIREMENTS:
        module, function = requirement.check.split(".")
        assert callable(getattr(importlib.import_module(f"utils.handin.{module}"), function)), requirement


def test_the_nearest_training_image_is_found():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 255, (300, 1, 8, 8), np.uint8)
    images = rng.integers(0, 255, (2 * check_samples.CHUNK + 1, 1, 8, 8), np.uint8)
    images[-1] = training[7]
    images[-1, 0, 0, 0] ^= 8  # one of 64 pixels differs by 8 grey levels
    difference = images[:, None].astype(float) - training[None]
    expected = np.sqrt((difference**2).mean(axis=(2, 3, 4))).min(1)
    np.testing.assert_allclose(check_samples.nearest(images, training), expected, rtol=1e-6)
    assert expected[-1] == 1
