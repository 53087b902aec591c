"""The images of coursework 2."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils.data import image_files, labelled_hands


def course_like(root: Path, test: bool = True) -> None:
    """Small folders like the course's, with a damaged file in each folder of fakes."""
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


def test_labelled_images_and_files_that_were_set_aside(tmp_path):
    course_like(tmp_path)
    shutil.copy(tmp_path / "VAE_hands/VAE_hand_000.jpeg", tmp_path / "GAN_hands/GAN_hand_200.jpeg")  # in both classes
    found, locked = labelled_hands.load(tmp_path)[0], labelled_hands.open_locked(tmp_path)
    assert np.bincount(np.concatenate([found.labels, locked.labels])).tolist() == [12, 9, 9]
    assert len(found.further_reals) == 12
    assert found.images.dtype == np.uint8 and found.origin == labelled_hands.COURSE
    reasons = {name: reason for name, reason in found.skipped}
    assert "not an image" in reasons["VAE_hands/VAE_hand_100.jpeg"]
    assert "VAE_hand_000" in reasons["GAN_hands/GAN_hand_200.jpeg"]
    x, y = labelled_hands.further_reals(found)
    assert len(x) == len(y) == 12 and not y.any()


def test_a_test_folder_with_bad_files(tmp_path):
    course_like(tmp_path)
    (tmp_path / "test_hands/test_hand_0007.jpeg").write_bytes(b"PK\x03\x04 a zip")
    (tmp_path / "test_hands/notes.txt").write_text("not a test file", encoding="utf-8")
    Image.new("RGB", (400, 300), "red").save(tmp_path / "test_hands/test_hand_0008.jpeg")
    found = labelled_hands.load(tmp_path)[1]
    assert [s.name for s in found.skipped] == ["test_hand_0007.jpeg"]
    assert found.names[-1] == "test_hand_0008.jpeg" and found.images.shape == (6, 1, 32, 32)
    assert found.truth is None


def test_an_empty_test_folder_beside_the_courses_fakes_is_an_error(tmp_path):
    course_like(tmp_path, test=False)
    with pytest.raises(ValueError, match="nothing to label"):
        labelled_hands.load(tmp_path)


def test_a_class_without_a_readable_file_is_named(tmp_path):
    course_like(tmp_path)
    for path in (tmp_path / "GAN_hands").iterdir():
        path.write_text("no image", encoding="utf-8")
    with pytest.raises(ValueError, match="GAN_hands"):
        labelled_hands.load(tmp_path)


def test_without_the_courses_fakes_our_own_are_used_with_known_labels(tmp_path):
    own_hands(tmp_path, reals=300)
    known, test = labelled_hands.load(tmp_path)
    assert "OUR OWN" in known.origin and "truth is known" in test.origin
    assert np.bincount(test.truth).tolist() == [100, 10, 10]
    trained = {x.tobytes() for x in np.concatenate([known.images, known.further_reals])}
    assert not trained & {x.tobytes() for x in test.images}


def own_hands(root: Path, reals: int, fakes: int = 30) -> None:
    """The folders of `course_like`, but with our own fakes instead of the course's."""
    course_like(root, test=False)
    image_files.write_jpegs(draw_pictures(reals, seed=4), root / "real_hands", "more", reals)
    for seed, kind in enumerate(("VAE", "GAN"), start=1):
        for path in (root / f"{kind}_hands").iterdir():
            path.unlink()
        image_files.write_jpegs(draw_pictures(fakes, seed=10 + seed), root / f"{kind}_hands", "username", fakes)


def test_real_images_are_never_both_labelled_and_test_images(tmp_path):
    own_hands(tmp_path, reals=120)
    known, test = labelled_hands.load(tmp_path)
    assert np.bincount(test.truth)[0] == 100 and len(known.further_reals) > 10
    trained = {x.tobytes() for x in np.concatenate([known.images, known.further_reals])}
    assert not trained & {x.tobytes() for x in test.images}


def test_too_few_images_for_the_folds_are_refused_with_the_number_needed(tmp_path, monkeypatch):
    course_like(tmp_path)
    monkeypatch.setenv("PROFILE", "full")
    with pytest.raises(ValueError, match="test_hands' holds 5 readable test images, but at least 10 are needed"):
        labelled_hands.load(tmp_path)
    for path in sorted((tmp_path / "VAE_hands").iterdir())[6:]:
        path.unlink()
    with pytest.raises(ValueError, match="VAE_hands' holds 6 usable images, but at least 7 are needed"):
        labelled_hands.load(tmp_path)
    for path in sorted((tmp_path / "real_hands").iterdir())[13:]:
        path.unlink()
    with pytest.raises(ValueError, match="real_hands' holds 13 different usable images, but at least 14 are needed"):
        labelled_hands.load(tmp_path)


def test_too_few_hands_of_our_own_are_refused_with_the_number_needed(tmp_path, monkeypatch):
    own_hands(tmp_path, reals=75)
    monkeypatch.setenv("PROFILE", "full")
    with pytest.raises(ValueError, match="real_hands' holds 99 different usable images, but at least 114"):
        labelled_hands.load(tmp_path)


def test_near_copies_do_not_count_as_different_images(tmp_path):
    course_like(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "GAN_hands").glob("GAN_hand_00*"))):
        picture = draw_pictures(1, seed=7)[0, 0]
        picture[0, 0] = 10 * i  # nine images that differ in one pixel
        Image.fromarray(picture).save(path.with_suffix(".png"))
        path.unlink()
    with pytest.raises(ValueError, match="GAN_hands' holds 1 labelled images that are not copies.*at least 5"):
        labelled_hands.load(tmp_path)


def test_the_courses_fakes_are_not_mixed_with_our_own(tmp_path):
    course_like(tmp_path)
    for path in (tmp_path / "GAN_hands").iterdir():
        path.unlink()
    image_files.write_jpegs(draw_pictures(30, seed=11), tmp_path / "GAN_hands", "username", 30)
    with pytest.raises(ValueError, match="images in VAE_hands, but none in GAN_hands"):
        labelled_hands.load(tmp_path)


def test_file_features_are_bytes_sides_colour_and_quantisation(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (found,) = labelled_hands.file_features([tmp_path / "a.png"])
    assert dict(zip(labelled_hands.FILE_FEATURES, found)) == {
        "bytes": (tmp_path / "a.png").stat().st_size, "height": 30, "width": 40, "colour": 1, "quantisation": 0,
    }  # fmt: skip


def test_groups_contain_near_copies_and_copies_of_copies():
    images = draw_pictures(4).astype(int)
    near = (images[:1] + 4).clip(0, 255)  # closer to the first image than 6 grey levels
    far = (images[:1] + 8).clip(0, 255)
    found = labelled_hands.groups(np.concatenate([images, near, far]).astype(np.uint8))
    assert found[0] == found[4] == found[5] and len(set(found)) == 4


def test_a_fifth_of_each_class_is_locked_and_no_near_copy_is_on_the_other_side(tmp_path):
    own_hands(tmp_path, reals=300)
    known, test = labelled_hands.load(tmp_path)
    locked = labelled_hands.open_locked(tmp_path)
    assert known.locked == len(locked.labels) == len(locked.names)
    sizes = np.bincount(known.labels), np.bincount(locked.labels)
    assert sizes[1] / sum(sizes) == pytest.approx([0.2, 0.2, 0.2], abs=0.1)
    together = labelled_hands.groups(np.concatenate([known.images, locked.images]))
    assert not set(together[: len(known.labels)]) & set(together[len(known.labels) :])
    assert not set(known.names) & set(locked.names)
    again, _ = labelled_hands.load(tmp_path)
    assert again.names == known.names and (again.groups == known.groups).all()


def test_near_copies_are_found_through_the_test_folder(tmp_path):
    course_like(tmp_path)
    picture = draw_pictures(1, seed=20)[0, 0].clip(0, 240)
    for i, folder in enumerate(("VAE", "test", "VAE")):  # the test image is 4 grey levels from both labelled ones
        Image.fromarray(picture + np.uint8(4 * i)).save(tmp_path / f"{folder}_hands/{folder}_hand_{50 + i:04d}.png")
    found, locked = labelled_hands.load(tmp_path)[0], labelled_hands.open_locked(tmp_path)
    chain = {"VAE_hands/VAE_hand_0050.png", "VAE_hands/VAE_hand_0052.png"}
    assert chain <= set(found.names) or chain <= set(locked.names)
    test = labelled_hands.load(tmp_path)[1]
    assert [name for name, apart in zip(test.names, test.apart) if not apart] == ["test_hand_0051.png"]
