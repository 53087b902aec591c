"""Reading and writing image folders, and every kind of bad file."""

import argparse
import errno
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import config, files
from utils.data import image_files, public_images


def test_as_saved_gives_the_pixels_of_the_written_files(tmp_path, pictures):
    paths = image_files.write_jpegs(pictures, tmp_path, "username", len(pictures))
    found = image_files.read(tmp_path)
    assert found.names == [p.name for p in paths] and found.names[0] == "username_001.jpeg"
    assert found.images.dtype == np.uint8 and found.images.shape == pictures.shape
    assert np.array_equal(found.images, image_files.as_saved(image_files.to_float(pictures)))
    with Image.open(paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (32, 32))


def test_conversion_between_uint8_and_float_is_exact_and_clipped(pictures):
    assert np.array_equal(image_files.to_uint8(image_files.to_float(pictures)), pictures)
    assert image_files.to_uint8(np.array([-1.0, -0.5, 0.0, 1.0, 7.0, -7.0])).tolist() == [0, 64, 128, 255, 255, 0]


def bad_files(folder: Path) -> dict[str, str]:
    """Write every kind of bad file. Returns, for each name, a word that the reason must contain."""
    good = next(folder.glob("*.jpeg")).read_bytes()
    (folder / "b_empty.jpeg").write_bytes(b"")
    (folder / "b_text.jpeg").write_text("this is no image", encoding="utf-8")
    with zipfile.ZipFile(folder / "b_zip.jpeg", "w") as archive:
        archive.writestr("x", "y")
    (folder / "b_truncated.jpeg").write_bytes(good[: len(good) * 2 // 3])
    (folder / "b_header.jpeg").write_bytes(good[:20])
    Image.new("L", (10, 32)).save(folder / "b_small.jpeg")
    Image.new("L", (4000, 4000)).save(folder / "b_large.jpeg")
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(folder / "b_16bit.png")
    (folder / "b_folder.jpeg").mkdir()
    return {
        "b_empty.jpeg": "empty", "b_text.jpeg": "not an image", "b_zip.jpeg": "not an image",
        "b_truncated.jpeg": "damaged", "b_header.jpeg": "", "b_small.jpeg": "32 x 10 pixels",
        "b_large.jpeg": "4000 x 4000", "b_16bit.png": "8-bit", "b_folder.jpeg": "folder",
    }  # fmt: skip


def test_bad_files_are_set_aside_with_the_reason(picture_folder, pictures):
    expected = bad_files(picture_folder)
    found = image_files.read(picture_folder)
    assert len(found.images) == len(pictures)
    reasons = dict(found.skipped)
    assert reasons.keys() == expected.keys()
    for name, word in expected.items():
        assert word in reasons[name], (name, reasons[name])


def test_images_are_resized_only_with_the_option(tmp_path):
    Image.new("L", (10, 32), 90).save(tmp_path / "a.jpeg")
    Image.new("L", (4000, 4000), 90).save(tmp_path / "b.jpeg")
    with pytest.raises(ValueError, match="32 x 10"):
        image_files.read(tmp_path)
    found = image_files.read(tmp_path, resize=True)
    assert found.images.shape == (2, 1, 32, 32) and not found.skipped
    assert image_files.read(tmp_path, (24, 40), resize=True).images.shape == (2, 1, 24, 40)
    assert image_files.read(tmp_path, (32, 10)).names == ["a.jpeg"]  # (height, width), as in the shape of an array


def test_colour_becomes_grey(tmp_path):
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "a.jpeg")
    found = image_files.read(tmp_path)
    assert found.images.shape == (1, 1, 32, 32) and abs(int(found.images.mean()) - 90) <= 1


def test_missing_empty_and_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="utils data"):
        image_files.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty, so there is no usable image.*utils data"):
        image_files.read(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(NotADirectoryError, match="is a file"):
        image_files.read(tmp_path / "file")


def test_an_unreadable_file_is_set_aside(picture_folder):
    (picture_folder / "dangling.jpeg").symlink_to(picture_folder / "nowhere")
    locked = picture_folder / "image_001.jpeg"
    locked.chmod(0)
    reasons = dict(image_files.read(picture_folder).skipped)
    assert reasons.pop("dangling.jpeg").startswith("damaged or unreadable")
    assert set(reasons) <= {locked.name}  # empty for root, who can read every file


def test_a_folder_without_read_permission_gets_advice(picture_folder, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # because real permissions do not stop root
    with pytest.raises(PermissionError, match="check its permissions"):
        image_files.read(picture_folder)


def test_two_images_only(tmp_path):
    image_files.write_jpegs(draw_pictures(2), tmp_path, count=2)
    assert image_files.read(tmp_path).images.shape == (2, 1, 32, 32)


def test_duplicates_are_listed(tmp_path, pictures):
    same = np.concatenate([pictures, pictures[:3]])
    image_files.write_jpegs(same, tmp_path, "x", len(same))
    found = image_files.drop_duplicates(image_files.read(tmp_path))
    assert len(found.images) == len(found.names) == len(np.unique(pictures, axis=0))
    assert any("same pixels as x_001.jpeg" in s.reason for s in found.skipped)


def test_an_older_set_is_never_mixed_with_a_new_one(tmp_path, pictures):
    image_files.write_jpegs(pictures, tmp_path, count=64)
    (tmp_path / "VAE_hand_001.jpeg").write_bytes(b"someone else's")
    with pytest.raises(FileExistsError, match="already holds 64"):
        image_files.write_jpegs(pictures[:10], tmp_path, count=10)
    assert len(list(tmp_path.glob("username_*"))) == 64
    image_files.write_jpegs(pictures[:10], tmp_path, count=10, replace=True)
    assert len(list(tmp_path.glob("username_*"))) == 10
    with pytest.raises(FileExistsError, match="username_"):
        image_files.write_jpegs(pictures[:10], tmp_path, "abc123", count=10, replace=True)
    assert (tmp_path / "VAE_hand_001.jpeg").read_bytes() == b"someone else's"
    assert len(list(tmp_path.glob("*.jpeg"))) == 11


@pytest.mark.parametrize(
    "images, error",
    [
        (np.zeros((3, 1, 32, 32), np.float32), TypeError),
        (np.zeros((3, 32, 32), np.uint8), ValueError),
        (np.zeros((2, 1, 32, 32), np.uint8), ValueError),
    ],
)
def test_wrong_images_are_refused_before_writing(tmp_path, images, error):
    with pytest.raises(error):
        image_files.write_jpegs(images, tmp_path / "out", count=3)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_does_not_damage_the_older_set(tmp_path, pictures, monkeypatch):
    image_files.write_jpegs(pictures, tmp_path, count=64)
    before = image_files.read(tmp_path).images
    save, calls = Image.Image.save, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        image_files.write_jpegs(pictures[::-1], tmp_path, count=64, replace=True)
    monkeypatch.undo()
    assert np.array_equal(image_files.read(tmp_path).images, before)
    assert not list(tmp_path.glob(".writing*"))


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_to_gets_advice(pictures):
    with pytest.raises(OSError, match="could not write '/sys/x'.*Copy the project into a folder of your own"):
        image_files.write_jpegs(pictures, "/sys/x", count=64)


def test_temporary_folders_of_killed_processes_are_deleted(tmp_path, pictures):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".writing.{gone.pid}.part").mkdir()
    (tmp_path / f".writing.{os.getpid()}.part").mkdir()  # from an earlier process with the same id
    image_files.write_jpegs(pictures, tmp_path, count=64)
    assert not list(tmp_path.glob(".*"))


def test_patterns_and_endings_of_names_work_the_same_on_every_system(tmp_path, pictures):
    for name in ("VAE_hand_1.JPG", "VAE_hand_2.Jpeg", "vae_hand_3.jpg", "hand.txt", "._VAE_hand_4.jpg"):
        Image.fromarray(pictures[0, 0]).save(tmp_path / name, "JPEG")
    assert image_files.read(tmp_path, pattern="VAE_hand_*").names == ["VAE_hand_1.JPG", "VAE_hand_2.Jpeg"]
    names = [path.name for path in image_files.image_paths(tmp_path)]
    assert names == ["VAE_hand_1.JPG", "VAE_hand_2.Jpeg", "vae_hand_3.jpg"]
    assert image_files.image_paths(tmp_path / "nowhere") == []


def test_only_unprintable_characters_of_names_are_escaped():
    assert files.printable("Hände 手.jpeg") == "Hände 手.jpeg"
    assert files.printable("a\nb\udcff") == r"a\nb\udcff"


def test_a_home_folder_in_a_path_or_variable_is_expanded(monkeypatch, tmp_path):
    for name, value in {"HOME": tmp_path, "USERPROFILE": tmp_path, "DATA_FOLDER": "~/d", "RUNS_FOLDER": "~/r"}.items():
        monkeypatch.setenv(name, str(value))
    assert files.path_argument("~/x") == tmp_path / "x"
    assert public_images.data_folder() == tmp_path / "d"
    assert config.run_folder("x") == tmp_path / "r" / "smoke" / "x"
    with pytest.raises(argparse.ArgumentTypeError, match="~nobody_of_this_name"):
        files.path_argument("~nobody_of_this_name/x")


def test_jpeg_comment_is_kept(tmp_path, pictures):
    path = image_files.write_jpegs(pictures[:1], tmp_path, count=1, comment="a stand-in")[0]
    assert Image.open(io.BytesIO(path.read_bytes())).info["comment"] == b"a stand-in"


def test_images_of_a_diverged_model_are_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        image_files.to_uint8(np.array([[0.5, np.nan]]))
