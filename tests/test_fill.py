"""The command `fill`: the files that it writes, and the input that it refuses."""

import os

import numpy as np
import pytest

from tests.conftest import draw_pictures
from utils.__main__ import main
from utils.commands.fill import check_outputs
from utils.data import head_images, masks
from utils.models.heads.imputer import Imputer


@pytest.fixture(scope="module")
def mask():
    """The mask of the shipped networks, bool (64, 64)."""
    return Imputer.from_weights(head_images.IMPUTERS[0]).mask.numpy()


@pytest.fixture
def images(mask):
    """12 images with the gaps of the course's images."""
    return np.where(mask, 0, draw_pictures(12, 64) / 255 * 0.9 + 0.05).astype(np.float32)


def fill(*arguments):
    """Run the command with one of the shipped networks."""
    main(["fill", *map(str, arguments), "--weights", str(head_images.IMPUTERS[0])])


def test_the_command_fills_a_file_with_the_shipped_weights(images, mask, tmp_path):
    np.save(tmp_path / "in.npy", images)
    main(["fill", str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), "--deviation", str(tmp_path / "sd.npy")])
    filled, deviation = np.load(tmp_path / "out.npy"), np.load(tmp_path / "sd.npy")
    assert filled.shape == images.shape and filled.dtype == np.float32
    assert (filled[:, :, ~mask] == images[:, :, ~mask]).all() and (filled[:, :, mask] > 0).mean() > 0.9
    assert filled.min() >= 0 and filled.max() <= 1 and (deviation[:, :, ~mask] == 0).all()


@pytest.mark.parametrize("form", [">f8", "float16", "Fortran", "no channel", "rounding"])
def test_known_pixels_in_other_array_forms_keep_their_exact_values(images, mask, tmp_path, capsys, form):
    given = {
        "Fortran": np.asfortranarray(images),
        "no channel": images[:, 0],
        "rounding": np.where(images > 0.9, 1.0000001, images.astype(float)),
    }.get(form)
    given = images.astype(form) if given is None else given
    np.save(tmp_path / "in.npy", given)
    fill(tmp_path / "in.npy", tmp_path / "new folder" / "out.npy")
    filled = np.load(tmp_path / "new folder" / "out.npy")
    wanted = given.reshape(images.shape).clip(0, 1).astype(np.float32)
    assert filled.shape == images.shape and (filled[:, :, ~mask] == wanted[:, :, ~mask]).all()
    assert "in.npy': " in capsys.readouterr().out


def test_more_than_100_images_are_filled(images, tmp_path):
    np.save(tmp_path / "in.npy", np.tile(images, (10, 1, 1, 1)))
    fill(tmp_path / "in.npy", tmp_path / "out.npy")
    filled = np.load(tmp_path / "out.npy")
    assert filled.shape == (120, 1, 64, 64) and np.abs(filled[:12] - filled[-12:]).max() < 1e-5


SPOILT = {
    "one complete": "image 3 (1 image(s) in total) has values where the others have gaps",
    "one dark": "image 4 is 0 everywhere",
    "all complete": "no gaps were found: 0% of",
    "black background": "no gaps were found: 1",
}


@pytest.mark.parametrize("how", SPOILT)
def test_images_with_an_unclear_mask_are_refused_with_the_reason(images, mask, how):
    if how == "one complete":
        images[3] = 0.5
    if how == "one dark":
        images[4] = 0
    if how == "all complete":
        images[:] = np.maximum(images, 0.1)
    if how == "black background":
        images[:] = 0.5
        images[:, :, :10] = 0
    with pytest.raises(ValueError) as error:
        masks.mask_of(images, mask)
    assert SPOILT[how] in str(error.value)


def test_missing_and_wrong_files_are_explained(images, tmp_path):
    np.save(tmp_path / "in.npy", images)
    (tmp_path / "text.npy").write_text("no array", encoding="utf-8")
    path, out = tmp_path / "in.npy", tmp_path / "out.npy"
    for arguments, message in (
        ((tmp_path / "none.npy", out), "There is no file"),
        ((tmp_path / "text.npy", out), "is not a .npy file"),
        ((path, out, "--weights", tmp_path / "none.safetensors"), "There are no weights"),
        ((path, out, "--weights", path), "does not hold weights of this project"),
    ):
        with pytest.raises(SystemExit) as error:
            main(["fill", *map(str, arguments)])
        assert message in str(error.value.code) and not out.exists()


def test_outputs_that_cannot_be_written_are_refused_before_the_filling(images, tmp_path):
    path = tmp_path / "in.npy"
    np.save(path, images)
    (tmp_path / "a file").write_bytes(b"")
    (tmp_path / "older.npy").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    for arguments, message in (
        ((path, path), "must be different files"),
        ((path, tmp_path / "folder" / ".." / "in.npy"), "must be different files"),
        ((path, tmp_path / "out.npy", "--deviation", tmp_path / "out.npy"), "must be different files"),
        ((path, tmp_path / "folder"), "is a folder"),
        ((path, tmp_path / "a file" / "out.npy"), "could not write"),
        ((path, tmp_path / "out.txt"), "out.txt' does not end in .npy"),
        ((path, tmp_path / "older.npy"), "older.npy' already exists"),
        ((path, tmp_path / "out.npy", "--deviation", tmp_path / "older.npy"), "older.npy' already exists"),
    ):
        with pytest.raises(SystemExit) as error:
            fill(*arguments)
        assert message in str(error.value.code)
    assert np.array_equal(np.load(path), images)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a file", "folder", "in.npy", "older.npy"]
    assert (tmp_path / "older.npy").read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write to every folder")
def test_a_read_only_folder_is_refused(tmp_path):
    (tmp_path / "read-only").mkdir(mode=0o500)
    with pytest.raises(OSError, match="could not write"):
        check_outputs(tmp_path / "in.npy", [tmp_path / "read-only" / "out.npy"])
