"""Fashion-MNIST and CelebA, in small files with the original layout, and clear errors for bad files."""

import gzip
import hashlib
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from tests.conftest import draw_pictures, idx, write_fashion_mnist
from utils.data import public_images
from utils.data.public_images import FILES, RAW, Part


@pytest.fixture
def no_package(monkeypatch, tmp_path):
    monkeypatch.setattr(public_images, "DEBIAN", tmp_path / "no package")


def test_fashion_mnist_is_split_the_same_way_every_time(tmp_path, no_package):
    write_fashion_mnist(tmp_path / RAW)
    parts = public_images.fashion_mnist(tmp_path, validation=5, network=False)
    assert parts.validation.images.shape == (5, 1, 28, 28) and parts.validation.images.dtype == np.uint8
    assert len(parts.train.images) > 80 and len(parts.test.images) == 10 and parts.origin == f"{tmp_path.name}/"
    assert parts.train.labels.dtype == np.int64 and len(parts.train.labels) == len(parts.train.images)
    again = public_images.fashion_mnist(tmp_path, validation=5, network=False)
    assert np.array_equal(again.train.images, parts.train.images)
    other = public_images.fashion_mnist(tmp_path, validation=5, seed=1, network=False)
    assert not np.array_equal(other.validation.images, parts.validation.images)
    few = public_images.fashion_mnist(tmp_path, limit=20, network=False)
    assert len(few.train.images) <= 20 and len(few.test.images) == 2


def test_copies_are_removed_from_the_earlier_parts():
    pictures = draw_pictures(6)
    train = Part(pictures, np.arange(6))
    kept = public_images.without(train, Part(pictures[1:2], np.zeros(1)), Part(pictures[4:5], np.zeros(1)))
    assert kept.labels.tolist() == [0, 2, 3, 5] and np.array_equal(kept.images, pictures[[0, 2, 3, 5]])


def test_debians_package_is_unpacked_and_completes_a_folder_with_missing_files(tmp_path, monkeypatch):
    monkeypatch.setattr(public_images, "DEBIAN", tmp_path / "package")
    write_fashion_mnist(tmp_path / "package", compressed=True)
    root = tmp_path / "data"
    (root / RAW).mkdir(parents=True)
    name = FILES[0]
    (root / RAW / name).write_bytes(gzip.decompress((tmp_path / "package" / f"{name}.gz").read_bytes()))
    parts = public_images.fashion_mnist(root, network=False)
    assert "Debian" in parts.origin and sorted(p.name for p in (root / RAW).iterdir()) == sorted(FILES)
    damaged = tmp_path / "package" / f"{FILES[1]}.gz"
    damaged.write_bytes(damaged.read_bytes()[:20])
    (root / RAW / FILES[1]).unlink()
    with pytest.raises(ValueError, match="damaged.*reinstall"):
        public_images.fashion_mnist(root, network=False)


def test_without_data_the_error_names_the_three_ways(tmp_path, no_package, monkeypatch):
    write_fashion_mnist(tmp_path / RAW)
    (tmp_path / RAW / FILES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {FILES[2]}.*unpacked.*apt install.*torchvision"):
        public_images.fashion_mnist(tmp_path, network=False)

    def unreachable(self):
        raise RuntimeError("Error downloading: no route to host")

    monkeypatch.setattr(datasets.FashionMNIST, "download", unreachable)
    with pytest.raises(FileNotFoundError, match="no route to host"):
        public_images.fashion_mnist(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "header only", "empty", "text", "labels of another number"])
def test_damaged_idx_files_are_named(tmp_path, no_package, damage):
    write_fashion_mnist(tmp_path / RAW)
    path = tmp_path / RAW / FILES[0]
    content = {"truncated": path.read_bytes()[:-100], "header only": path.read_bytes()[:16], "empty": b""}
    if damage == "labels of another number":
        (tmp_path / RAW / FILES[1]).write_bytes(idx(np.zeros(7)))
    else:
        path.write_bytes(content.get(damage, b"<html>not found</html>"))
    with pytest.raises(ValueError, match="truncated or not an idx file.*Empty that folder"):
        public_images.fashion_mnist(tmp_path, network=False)


MNIST_LABELS = bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4])  # labels of its first ten training images


def test_mnists_digits_with_the_same_file_names_are_refused(tmp_path, no_package):
    write_fashion_mnist(tmp_path / RAW)
    header = idx(np.zeros(60_000))[:8]
    (tmp_path / RAW / FILES[1]).write_bytes(header + MNIST_LABELS * 6_000)  # the same number as in Fashion-MNIST
    with pytest.raises(ValueError, match=f"{FILES[1]}' is not Fashion-MNIST's.*MNIST's digits.*Empty"):
        public_images.fashion_mnist(tmp_path, network=False)


@pytest.mark.skipif(not public_images.DEBIAN.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_sizes_and_hashes_of_the_published_files_are_right():
    for name, (size, sha256) in public_images.ORIGINALS.items():
        content = gzip.decompress((public_images.DEBIAN / f"{name}.gz").read_bytes())
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)


def test_a_split_with_empty_parts_is_refused(tmp_path, no_package):
    write_fashion_mnist(tmp_path / RAW)
    with pytest.raises(ValueError, match="5 training, 0 validation, 0 test images.*at least 10"):
        public_images.fashion_mnist(tmp_path, limit=5, network=False)


def write_celeba(root, count: int = 12) -> None:
    """Write pictures in CelebA's layout: half for training, a quarter each for validation and test."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 255, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name)
    split = [0 if i < count // 2 else 1 + (i % 2) for i in range(count)]

    def write(name, rows, header=()):
        (folder / name).write_text("".join(f"{line}\n" for line in [*header, *rows]), encoding="utf-8")

    write("list_eval_partition.txt", [f"{n} {s}" for n, s in zip(names, split)])
    write("identity_CelebA.txt", [f"{n} {i}" for i, n in enumerate(names)])
    write("list_attr_celeba.txt", [f"{n} {2 * (i % 2) - 1} -1" for i, n in enumerate(names)], [count, "Male Smiling"])
    write("list_bbox_celeba.txt", [f"{n} 1 2 3 4" for n in names], [count, "image_id x_1 y_1 width height"])
    write("list_landmarks_align_celeba.txt", [f"{n} 1 2" for n in names], [count, "lefteye_x lefteye_y"])


@pytest.fixture
def any_checksum(monkeypatch):
    monkeypatch.setattr(datasets.CelebA, "file_list", [(a, None, c) for a, _, c in datasets.CelebA.file_list])


def test_celeba_is_cropped_and_resized(tmp_path, any_checksum):
    write_celeba(tmp_path)
    grey, colour = (public_images.celeba(tmp_path, colour=c) for c in (False, True))
    assert grey.train.labels.tolist() == [0, 1, 0, 1, 0, 1] and grey.classes[1] == "man"
    assert grey.train.images.shape == (6, 1, 40, 32) and colour.test.images.shape == (3, 3, 40, 32)
    assert grey.validation.images.dtype == np.uint8 and np.ptp(colour.train.images) > 20
    assert len(public_images.celeba(tmp_path, limit=2).train.images) == 2


@pytest.mark.parametrize("in_tar", [False, True])
def test_a_part_of_celeba_without_its_lists_is_read(tmp_path, in_tar):
    """Smooth pictures, at half of CelebA's size and at its full size, give the same faces."""
    folder = tmp_path / "half" / "celeba"
    (folder / "some").mkdir(parents=True)
    (tmp_path / "full" / "celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(30):
        small = Image.fromarray(rng.integers(0, 255, (5, 4, 3), dtype=np.uint8))
        for path, size in ((folder / "some", (89, 109)), (tmp_path / "full" / "celeba", (178, 218))):
            small.resize(size, Image.Resampling.BICUBIC).save(path / f"{i + 1:06d}.jpg", quality=95)
    if in_tar:
        with tarfile.open(folder / "some.tar", "w") as archive:
            archive.add(folder / "some", "some")
        shutil.rmtree(folder / "some")
    half, full = (public_images.celeba(tmp_path / name, colour=True) for name in ("half", "full"))
    assert [len(part.images) for part in half[:3]] == [24, 3, 3] and half.train.images.shape[1:] == (3, 40, 32)
    assert "a part of CelebA" in half.origin and half.classes == ("face",) and half.train.labels.max() == 0
    for one, other in zip(half[:3], full[:3]):
        assert np.abs(one.images.astype(int) - other.images).mean() < 4
    grey = public_images.celeba(tmp_path / "half", limit=10)
    assert grey.train.images.shape == (10, 1, 40, 32) and len(grey.test.images) == 1
    assert np.abs(grey.train.images[:, 0] - half.train.images[:10].mean(1)).mean() < 30  # the same images


def test_missing_and_damaged_files_of_celeba_are_named(tmp_path, any_checksum):
    with pytest.raises(FileNotFoundError, match="holds no CelebA.*list_eval_partition"):
        public_images.celeba(tmp_path)
    write_celeba(tmp_path)
    (tmp_path / "celeba" / "img_align_celeba" / "000001.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="000001.jpg"):
        public_images.celeba(tmp_path)
    (tmp_path / "celeba" / "list_attr_celeba.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no complete CelebA"):
        public_images.celeba(tmp_path)


def test_images_of_celeba_with_another_shape_are_refused(tmp_path, any_checksum):
    write_celeba(tmp_path)
    Image.new("RGB", (178, 178)).save(tmp_path / "celeba" / "img_align_celeba" / "000001.jpg")
    with pytest.raises(ValueError, match="000001.jpg' has 178 x 178 pixels .* 218 x 178"):
        public_images.celeba(tmp_path)


def test_a_part_of_celeba_without_images_is_refused(tmp_path, any_checksum):
    write_celeba(tmp_path)
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    partition.write_text(partition.read_text(encoding="utf-8").replace(" 2", " 1"), encoding="utf-8")
    with pytest.raises(ValueError, match="names no images of the part 'test'"):
        public_images.celeba(tmp_path)
