"""The images of coursework 2, and its CSV."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils.data import image_files, label_csv, labelled_hands


def course_like(root: Path, test: bool = True) -> None:
    """A small copy of the course's layout, with a broken file in each folder of fakes."""
    image_files.write_jpegs(draw_pictures(24), root / "real_hands", "x", 24)
    for i, path in enumerate(sorted((root / "real_hands").glob("x_*"))):
        path.rename(root / "real_hands" / f"{i:06d}.jpeg")
    for seed, kind in enumerate(("VAE", "GAN"), start=1):
        (root / f"{kind}_hands").mkdir()
        for i, picture in enumerate(draw_pictures(9, seed=seed)[:, 0]):
            Image.fromarray(picture).save(root / f"{kind}_hands" / f"{kind}_hand_{i:03d}.jpeg")
        (root / f"{kind}_hands" / f"{kind}_hand_100.jpeg").write_text("no image", encoding="utf-8")
    (root / "test_hands").mkdir()
    if test:
        for i, picture in enumerate(draw_pictures(5, seed=9)[:, 0]):
            Image.fromarray(picture).save(root / "test_hands" / f"test_hand_{i:04d}.jpeg")


def test_labelled_images_and_what_was_set_aside(tmp_path):
    course_like(tmp_path)
    shutil.copy(tmp_path / "VAE_hands/VAE_hand_000.jpeg", tmp_path / "GAN_hands/GAN_hand_200.jpeg")  # in two classes
    found = labelled_hands.load_labelled(tmp_path)
    assert np.bincount(found.labels).tolist() == [12, 9, 9] and len(found.further_reals) == 12
    assert found.images.dtype == np.uint8 and found.origin == labelled_hands.COURSE
    reasons = {name: reason for name, reason in found.skipped}
    assert "not an image" in reasons["VAE_hands/VAE_hand_100.jpeg"]
    assert "VAE_hand_000" in reasons["GAN_hands/GAN_hand_200.jpeg"]
    x, y = labelled_hands.further_reals(found)
    assert len(x) == len(y) == 12 and not y.any()


def test_test_folder_with_odd_files(tmp_path):
    course_like(tmp_path)
    (tmp_path / "test_hands/test_hand_0007.jpeg").write_bytes(b"PK\x03\x04 a zip")
    (tmp_path / "test_hands/notes.txt").write_text("not a test file", encoding="utf-8")
    Image.new("RGB", (400, 300), "red").save(tmp_path / "test_hands/test_hand_0008.jpeg")
    found = labelled_hands.load_test(tmp_path)
    assert [s.name for s in found.skipped] == ["test_hand_0007.jpeg"] and found.foreign == ["notes.txt"]
    assert found.names[-1] == "test_hand_0008.jpeg" and found.images.shape == (6, 1, 32, 32)
    assert found.truth is None


def test_an_empty_test_folder_is_an_error_where_the_courses_fakes_are(tmp_path):
    course_like(tmp_path, test=False)
    with pytest.raises(ValueError, match="nothing to label"):
        labelled_hands.load_test(tmp_path)


def test_a_class_without_a_readable_file_is_named(tmp_path):
    course_like(tmp_path)
    for path in (tmp_path / "GAN_hands").iterdir():
        path.write_text("no image", encoding="utf-8")
    with pytest.raises(ValueError, match="GAN_hands"):
        labelled_hands.load_labelled(tmp_path)


def test_without_the_courses_fakes_our_own_are_used_and_the_truth_is_known(tmp_path):
    course_like(tmp_path, test=False)
    reals = draw_pictures(300, seed=4)
    image_files.write_jpegs(reals, tmp_path / "real_hands", "more", 300)
    for seed, kind in enumerate(("VAE", "GAN"), start=1):
        for path in (tmp_path / f"{kind}_hands").iterdir():
            path.unlink()
        image_files.write_jpegs(draw_pictures(30, seed=10 + seed), tmp_path / f"{kind}_hands", "username", 30)
    known, test = labelled_hands.load_labelled(tmp_path), labelled_hands.load_test(tmp_path)
    assert "OUR OWN" in known.origin and "truth is known" in test.origin
    assert np.bincount(test.truth).tolist() == [100, 10, 10]
    trained = {x.tobytes() for x in np.concatenate([known.images, known.further_reals])}
    assert not trained & {x.tobytes() for x in test.images}


def test_groups_join_near_copies_and_copies_of_copies():
    images = draw_pictures(4).astype(int)
    near = (images[:1] + 4).clip(0, 255)  # grey levels; nearer than 6 to the first image
    far = (images[:1] + 8).clip(0, 255)
    found = labelled_hands.groups(np.concatenate([images, near, far]).astype(np.uint8))
    assert found[0] == found[4] == found[5] and len(set(found)) == 4


def test_csv_is_in_name_order_without_a_header(tmp_path):
    path = label_csv.write(tmp_path / "out.csv", ["test_hand_0002.jpeg", "test_hand_0001.jpeg"], [2, 0])
    assert path.read_text(encoding="utf-8") == "test_hand_0001.jpeg, 0\ntest_hand_0002.jpeg, 2\n"
    assert label_csv.read(path) == {"test_hand_0001.jpeg": 0, "test_hand_0002.jpeg": 2}


def test_an_older_csv_survives_a_full_disk(tmp_path, monkeypatch):
    path = label_csv.write(tmp_path / "out.csv", ["a"], [1])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(label_csv.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        label_csv.write(path, ["a", "b"], [2, 2])
    assert label_csv.read(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [(["a"], [0, 1], "1 names but 2"), (["a", "a"], [0, 1], "twice"), (["a"], [3], "must be 0")],
)
def test_nonsense_is_not_written(tmp_path, names, given, message):
    with pytest.raises(ValueError, match=message):
        label_csv.write(tmp_path / "out.csv", names, given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a, 0\nb, 3\n", "a, 0\nb\n", "a, 0\nb, real\n", "a, 0\n, 1\n", "a, 0\na, 1\n"])
def test_a_wrong_csv_is_refused_with_the_line(tmp_path, text):
    path = tmp_path / "in.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        label_csv.read(path)


def test_comparison_with_the_truth(tmp_path):
    path = label_csv.write(tmp_path / "out.csv", ["a", "b", "c"], [0, 0, 2])
    assert label_csv.compare(path, {"a": 0, "b": 1, "c": 2}).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="1 missing, first d"):
        label_csv.compare(path, {"a": 0, "b": 1, "c": 2, "d": 1})
