"""New images from the weights in this project."""

import errno
import io
import sys

import numpy as np
import pytest
from PIL import Image

from utils import __main__ as command
from utils import config
from utils.data import image_files
from utils.evaluation import fidelity
from utils.models import shipped
from utils.models.vae import VAE


def sample(monkeypatch, *words: object) -> None:
    """Run the command `sample` in this process."""
    monkeypatch.setattr(sys, "argv", ["utils", "sample", *map(str, words)])
    command.main()


def test_the_same_seed_gives_the_same_hands():
    first = shipped.sample("hands-gan", 3, seed=5)
    assert first.shape == (3, 1, 32, 32) and first.dtype == np.uint8 and first.std() > 20
    assert np.array_equal(first, shipped.sample("hands-gan", 3, seed=5))
    assert not np.array_equal(first, shipped.sample("hands-gan", 3, seed=6))


def test_only_seed_0_gives_the_committed_hands_again(monkeypatch, tmp_path):
    committed = image_files.read(config.PROJECT / "GAN_hands", pattern="*_[0-9][0-9][0-9].jpeg").images[-300:]
    sample(monkeypatch, "hands-gan", "--count", 3, "--out", tmp_path / "new.npy")
    assert fidelity.nearest(np.load(tmp_path / "new.npy"), committed)[0].min() > config.NEAR_COPY_RMS
    again = shipped.sample("hands-gan", 300, seed=0)  # the noise of a hand depends on how many are made with it
    saved = image_files.as_saved(image_files.to_float(again))
    same = fidelity.nearest(saved, committed)[0] < config.NEAR_COPY_RMS
    assert same.mean() > 0.97  # another machine may choose another hand where two scores are nearly the same


def test_the_command_writes_jpegs(monkeypatch, tmp_path, capsys):
    sample(monkeypatch, "hands-gan", "--count", 2, "--out", tmp_path / "new")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["hands-gan_001.jpeg", "hands-gan_002.jpeg"]
    with Image.open(tmp_path / "new" / names[0]) as image:
        assert image.format == "JPEG" and image.size == (32, 32) and image.mode == "L"
    assert str(tmp_path / "new") in capsys.readouterr().out


def test_the_command_writes_pngs_with_the_exact_pixels(monkeypatch, tmp_path):
    sample(monkeypatch, "hands-gan", "--count", 2, "--seed", 3, "--format", "png", "--out", tmp_path / "new")
    paths = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in paths] == ["hands-gan_001.png", "hands-gan_002.png"]
    found = np.stack([np.asarray(Image.open(path)) for path in paths])[:, None]
    assert np.array_equal(found, shipped.sample("hands-gan", 2, seed=3))


def test_the_command_writes_one_array(monkeypatch, tmp_path):
    sample(monkeypatch, "hands-gan", "--count", 2, "--seed", 3, "--out", tmp_path / "new.npy")
    assert np.array_equal(np.load(tmp_path / "new.npy"), shipped.sample("hands-gan", 2, seed=3))
    assert [path.name for path in tmp_path.iterdir()] == ["new.npy"]


def test_the_command_samples_garments(monkeypatch, tmp_path):
    sample(monkeypatch, "garments", "--count", 12, "--seed", 3, "--out", tmp_path / "new.npy")
    images = np.load(tmp_path / "new.npy")
    assert images.shape == (12, 1, 28, 28) and images.dtype == np.uint8
    assert fidelity.nearest(images[:6], images[6:])[0].min() > 10, "they are not all the same"
    assert 0.35 < (images == 0).mean() < 0.65


def test_the_command_samples_heads(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "HEAD_STEPS", 2)
    sample(monkeypatch, "heads", "--count", 2, "--out", tmp_path / "heads.npy")
    heads = np.load(tmp_path / "heads.npy")
    assert heads.shape == (2, 1, 64, 64) and heads.dtype == np.uint8
    assert heads[:, :, 20:44, 20:44].mean() > 3 * heads[:, :, :3, :3].mean()  # a head with a dark background


def test_the_shipped_vae_made_the_hands_that_are_handed_in():
    saved = image_files.read(config.PROJECT / "VAE_hands", pattern="username_*").images[:20]
    made = image_files.as_saved(VAE.from_weights(shipped.HANDS_VAE).sample(300, seed=0)[:20])
    assert (np.abs(made.astype(int) - saved) <= 2).mean() > 0.95  # the weights are shipped in float16


def test_missing_weights_leave_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "HANDS_VAE", tmp_path / "none.safetensors")
    with pytest.raises(SystemExit) as error:
        sample(monkeypatch, "hands-vae", "--out", tmp_path / "new")
    assert "There are no weights at" in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, -3])
def test_fewer_than_one_image_is_refused_immediately(count, tmp_path):
    with pytest.raises(ValueError, match=f"is {count}, but must be at least 1"):
        shipped.write("hands-gan", count, 0, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_unknown_models_and_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no weights of 'feet' here, only of {', '.join(config.SHIPPED)}"):
        shipped.write("feet", 1, 0, tmp_path / "new")
    with pytest.raises(ValueError, match="format is 'gif', but must be one of jpeg, png"):
        shipped.write("hands-gan", 1, 0, tmp_path / "new", "gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["one.npz", "png.jpeg"])
def test_a_name_like_another_kind_of_file_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}' is neither a folder nor a .npy file"):
        shipped.write("hands-gan", 1, 1, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_array_has_no_image_format(tmp_path):
    with pytest.raises(ValueError, match="new.npy' is one .npy file, so it has no image format: leave out 'png'"):
        shipped.write("hands-gan", 1, 1, tmp_path / "new.npy", "png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["new", "new.npy"])
def test_existing_files_are_never_replaced(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="already exists"):
        shipped.write("hands-gan", 1, 0, tmp_path / name)
    assert [path.name for path in (tmp_path / name).iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("form", shipped.FORMATS)
def test_a_full_disk_leaves_no_images(form, monkeypatch, tmp_path):
    save, saved = Image.Image.save, []

    def full(image, path, *rest, **options):
        if not isinstance(path, io.BytesIO):  # the GAN looks at its images as JPEGs in memory
            if len(saved) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            saved.append(path)
        save(image, path, *rest, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        shipped.write("hands-gan", 3, 0, tmp_path / "new", form)
    assert not list((tmp_path / "new").iterdir())
