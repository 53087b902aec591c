"""A folder by way of a file on disk: the same images, made once, made again when it must be."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils import cache, folders, runs, training
from utils.vae import VAE


@pytest.fixture
def folder(tmp_path):
    folders.write_jpegs(draw_pictures(30, 16), tmp_path / "pictures", "picture", 30)
    (tmp_path / "pictures" / "broken.jpeg").write_bytes(b"no picture")
    return tmp_path / "pictures"


def test_it_holds_what_the_folder_holds(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 7)
    found, skipped = cache.images(folder, (16, 16), tmp_path / "cache" / "images")
    wanted = folders.read(folder, (16, 16), resize=True)
    assert torch.equal(found, folders.to_float(wanted.images)) and skipped == wanted.skipped
    monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("it is there already"))
    assert torch.equal(found, cache.images(folder, (16, 16), tmp_path / "cache" / "images")[0])


def test_it_is_made_again_when_the_folder_the_size_or_the_file_has_changed(folder, tmp_path):
    file = tmp_path / "images"
    first, _ = cache.images(folder, (16, 16), file)
    first = first.clone()
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(first, cache.images(folder, (16, 16), file)[0])
    assert cache.images(folder, (8, 8), file)[0].shape == (30, 1, 8, 8)
    (folder / "broken.jpeg").unlink()
    assert cache.images(folder, (16, 16), file)[1] == []
    folders.write_jpegs(draw_pictures(30, 16, seed=1), folder.with_name("others"), "picture", 30)
    others, _ = cache.images(folder.with_name("others"), (16, 16), file)  # the same names, other pictures
    assert not torch.equal(first, others)


def test_what_is_wrong_is_said_and_nothing_stays_behind(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        cache.images(tmp_path / "nowhere", (16, 16), tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no usable image"):
        cache.images(tmp_path / "empty", (16, 16), tmp_path / "images")
    old, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # stands in for a full disk
        with pytest.raises(OSError):
            cache.images(folder, (16, 16), tmp_path / "full" / "images")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert list((tmp_path / "full").iterdir()) == []


def test_training_on_it_is_training_on_the_images(folder, tmp_path):
    mapped, _ = cache.images(folder, (16, 16), tmp_path / "images")
    ends = []
    for name, data in (("mapped", mapped), ("memory", mapped.clone())):
        runs.seed_everything(0)
        model = VAE((16, 16), latent_dim=3, base=4)
        training.fit(model, data, 6, 4, tmp_path / name, model.config, plot=False)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


MEMORY = """
import sys, torch
from pathlib import Path
from utils import cache, runs, training
from utils.vae import VAE

def anonymous():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l).split()[1]) / 1024

model = VAE((64, 64), latent_dim=3, base=4)
small = torch.rand(64, 1, 64, 64)
training.fit(model, small, 30, 16, sys.argv[1] + "/warm", {}, plot=False)
before = anonymous()
count = 16_000
data = torch.from_file(sys.argv[2], size=count * 64 * 64, dtype=torch.float32).view(count, 1, 64, 64)
training.fit(model, data, 300, 16, sys.argv[1] + "/run", {}, plot=False)
print(anonymous() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")  # noqa: PTH110
def test_memory_does_not_grow_with_the_images(tmp_path):
    np.zeros((16_000, 64, 64), np.float32).tofile(tmp_path / "images")  # 262 MB
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(tmp_path / "images")],
        cwd=runs.PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout.splitlines()[-1]) < 60


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
def test_broken_links_and_odd_names_are_set_aside_as_by_the_reader(picture_folder, tmp_path):
    (picture_folder / "link.jpeg").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(picture_folder) + b"/\xff.jpeg")).write_bytes(b"no image")
    (tmp_path / ".images.4711.part").touch()
    found, skipped = cache.images(picture_folder, (32, 32), tmp_path / "images")
    known = folders.read(picture_folder)
    assert len(found) == len(known.images) and sorted(s.name for s in skipped) == sorted(s.name for s in known.skipped)
    assert not list(tmp_path.glob(".images.*"))
