"""The cache file of an image folder: it holds the same images, and it is made again only when necessary."""

import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils import config
from utils.data import cache, image_files
from utils.models.vae import VAE
from utils.training import devices, loop


@pytest.fixture
def folder(tmp_path):
    image_files.write_jpegs(draw_pictures(30, 16), tmp_path / "pictures", "picture", 30)
    (tmp_path / "pictures" / "broken.jpeg").write_bytes(b"no picture")
    return tmp_path / "pictures"


def test_the_cache_holds_the_images_of_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 7 * 16 * 16)
    found, skipped = cache.images(folder, (16, 16), tmp_path / "cache" / "images")
    wanted = image_files.read(folder, (16, 16), resize=True)
    assert torch.equal(found, image_files.to_float(wanted.images)) and skipped == wanted.skipped
    monkeypatch.setattr(image_files, "decode", lambda *_: pytest.fail("it is there already"))
    assert torch.equal(found, cache.images(folder, (16, 16), tmp_path / "cache" / "images")[0])


def test_the_cache_is_made_again_if_the_folder_the_size_or_the_file_has_changed(folder, tmp_path):
    file = tmp_path / "images"
    first, _ = cache.images(folder, (16, 16), file)
    first = first.clone()
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(first, cache.images(folder, (16, 16), file)[0])
    assert cache.images(folder, (8, 8), file)[0].shape == (30, 1, 8, 8)
    (folder / "broken.jpeg").unlink()
    assert cache.images(folder, (16, 16), file)[1] == []
    image_files.write_jpegs(draw_pictures(30, 16, seed=1), folder.with_name("others"), "picture", 30)
    others, _ = cache.images(folder.with_name("others"), (16, 16), file)  # the same names, other pictures
    assert not torch.equal(first, others)


def test_the_cache_is_a_npy_file_that_a_caller_cannot_change(folder, tmp_path):
    found, _ = cache.images(folder, (16, 8), tmp_path / "images")
    array = np.load(tmp_path / "images", mmap_mode="r")
    assert array.dtype == np.float32 and array.shape == (30, 1, 16, 8) and np.array_equal(array, found)
    found += 1  # this changes only the memory
    assert not np.array_equal(array, found) and np.array_equal(array, np.load(tmp_path / "images"))


def test_a_cache_with_a_wrong_header_length_or_description_is_made_again(folder, tmp_path):
    file = tmp_path / "images"
    wanted = cache.images(folder, (16, 16), file)[0].clone()
    whole, described = file.read_bytes(), (tmp_path / "images.json").read_text(encoding="utf-8")
    assert b"(30, 1, 16, 16)" in whole
    damaged = (whole.replace(b"(30, 1, 16, 16)", b"(15, 2, 16, 16)"), b"", whole[:-1], whole + b"0", whole[128:])
    for content in damaged:
        file.write_bytes(content)
        assert torch.equal(cache.images(folder, (16, 16), file)[0], wanted) and file.read_bytes() == whole
    counted = [described.replace('"count": 30', f'"count": {count}') for count in ("29", '"30"', "[]")]
    for text in ("", "[]", *counted):
        file.with_name("images.json").write_text(text, encoding="utf-8")
        assert torch.equal(cache.images(folder, (16, 16), file)[0], wanted)
        assert file.with_name("images.json").read_text(encoding="utf-8") == described


def test_a_file_that_is_larger_than_memory_can_be_mapped(tmp_path):
    count = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    with open(tmp_path / "images", "wb") as file:
        room = file.write(cache._header(count, (512, 512)))
        file.truncate(room + count * 2**20)  # needs no space on the disk
    found = cache._mapped(tmp_path / "images")
    assert found.shape == (count, 1, 512, 512) and float(found[-1].sum()) == 0


def test_errors_are_clear_and_leave_no_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        cache.images(tmp_path / "nowhere", (16, 16), tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no usable image"):
        cache.images(tmp_path / "empty", (16, 16), tmp_path / "images")
    old, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # acts as a full disk
        with pytest.raises(OSError):
            cache.images(folder, (16, 16), tmp_path / "full" / "images")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert list((tmp_path / "full").iterdir()) == []


def test_training_on_the_cache_gives_the_same_weights(folder, tmp_path):
    mapped, _ = cache.images(folder, (16, 16), tmp_path / "images")
    ends = []
    for name, data in (("mapped", mapped), ("memory", mapped.clone())):
        devices.seed_everything(0)
        model = VAE((16, 16), latent_dim=3, base=4)
        loop.fit(model, data, 6, 4, tmp_path / name, model.config, plot=False)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


MEMORY = """
import sys, torch
from pathlib import Path
from utils.data import cache
from utils.models.vae import VAE
from utils.training import loop

def anonymous():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l).split()[1]) / 1024

def use(name):
    data, _ = cache.images(place / name, (64, 64), place / f"{name}_cache")
    loop.fit(model, data, 30, 16, place / f"{name}_run", {}, plot=False)
    sum(float(some.mean()) for some in data.split(1000))  # every page is read
    return data

place, model = Path(sys.argv[1]), VAE((64, 64), latent_dim=3, base=4)
use("few")  # the libraries keep some memory
before = anonymous()
data = use("many")
mapped = anonymous() - before
copy = data.clone()
print(len(data), mapped, anonymous() - before - mapped)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")  # noqa: PTH110
def test_memory_does_not_grow_with_the_images(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    image_files.write_jpegs(draw_pictures(1000, 64), few, "picture", 1000)
    many.mkdir()
    for path in few.iterdir():
        for copy in range(16):  # 262 MB of images, but few different files
            (many / f"{path.stem}_{copy}.jpeg").hardlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], cwd=config.PROJECT, capture_output=True, text=True, check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"},  # otherwise glibc keeps about 40 MiB of freed memory
    )  # fmt: skip
    count, mapped, copied = map(float, done.stdout.splitlines()[-1].split())
    assert count == 16_000 and mapped < copied / 4


TOGETHER = """
import sys, zlib
from utils.data import cache, image_files

def wait(images):
    print("decoded", flush=True)
    input()
    return to_float(images)

to_float, image_files.to_float = image_files.to_float, wait
found, skipped = cache.images(sys.argv[1], (16, 16), sys.argv[2])
print(zlib.crc32(found.numpy()), len(skipped))
"""


def test_two_processes_may_make_the_same_cache_at_the_same_time(folder, tmp_path, monkeypatch):
    file = tmp_path / "cache" / "images"
    command = [sys.executable, "-c", TOGETHER, str(folder), str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=config.PROJECT, **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in both] == ["decoded\n"] * 2  # both are half done, and wait
        assert len(list(file.parent.iterdir())) == 2
        for process in both:
            print(file=process.stdin, flush=True)
        said = [process.communicate(timeout=60)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    wanted = image_files.to_float(image_files.read(folder, (16, 16)).images)
    assert said == [f"{zlib.crc32(wanted.numpy())} 1\n"] * 2
    assert sorted(path.name for path in file.parent.iterdir()) == ["images", "images.json"]
    monkeypatch.setattr(image_files, "decode", lambda *_: pytest.fail("it is there already"))
    assert torch.equal(cache.images(folder, (16, 16), file)[0], wanted)


def test_a_cache_that_another_process_replaces_with_other_images_is_refused(folder, tmp_path, monkeypatch):
    write = cache.write_atomically

    def then_another(path, content):
        write(path, content)
        monkeypatch.undo()
        cache.images(folder, (8, 8), tmp_path / "images")

    monkeypatch.setattr(cache, "write_atomically", then_another)
    with pytest.raises(OSError, match="another process"):
        cache.images(folder, (16, 16), tmp_path / "images")


def test_only_the_files_of_killed_processes_are_deleted(folder, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [f".images.{gone.pid}.part", f".images.json.{gone.pid}.part"]
    kept = [f".images.{os.getppid()}.part", f".other.{gone.pid}.part", ".images.word.part"]
    for name in left + kept:
        (tmp_path / name).touch()
    cache.images(folder, (16, 16), tmp_path / "images")
    assert {path.name for path in tmp_path.glob(".*")} == set(kept)


@pytest.mark.skipif(os.name == "nt", reason="file names on Windows are Unicode")
def test_broken_links_and_strange_names_are_set_aside_as_by_the_reader(picture_folder, tmp_path):
    (picture_folder / "link.jpeg").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(picture_folder) + b"/\xff.jpeg")).write_bytes(b"no image")
    found, skipped = cache.images(picture_folder, (32, 32), tmp_path / "images")
    known = image_files.read(picture_folder)
    assert len(found) == len(known.images) and sorted(s.name for s in skipped) == sorted(s.name for s in known.skipped)
