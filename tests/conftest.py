"""Small real inputs for the tests: drawn pictures, a folder of JPEGs, and Fashion-MNIST's files with such pictures."""

import gzip
import os
import re
import tempfile

os.environ.setdefault("PROFILE", "smoke")
os.environ.setdefault("RUNS_FOLDER", tempfile.mkdtemp(prefix="runs_"))  # not the results of an earlier run
if os.environ.get("TEST_CUDA") != "1":  # tests/test_cuda.py needs a GPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # resuming is always bit-identical only on the CPU

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from utils import config
from utils.data import image_files

torch.set_num_threads(1)  # the tensors are tiny, so more threads would only wait for each other


def pytest_collection_modifyitems(items) -> None:
    """Run the longest tests first, so that no process works alone at the end."""
    items.sort(key=lambda item: not (item.get_closest_marker("first") or item.get_closest_marker("slow")))


def draw_pictures(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Bright ellipses in random places on black: uint8 (count, 1, size, size)."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        picture = Image.new("L", (size, size))
        x, y = rng.integers(size // 5, size // 2, 2)
        ImageDraw.Draw(picture).ellipse([x, y, x + size // 3, y + size // 2], fill=int(rng.integers(120, 255)))
        pictures.append(np.asarray(picture))
    return np.stack(pictures)[:, None]


def three_kinds(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of three classes that differ in their fine texture, as real and generated images do."""
    rng = np.random.default_rng(seed)
    images = draw_pictures(3 * count, seed=seed).astype(float)
    truth = np.repeat([0, 1, 2], count)
    images[truth == 1] += rng.normal(0, 25, images[truth == 1].shape)
    images[truth == 2, :, ::2] += 40
    return images.clip(0, 255).astype(np.uint8), truth


def idx(array: np.ndarray) -> bytes:
    """A uint8 array in the idx format."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_fashion_mnist(folder, count: int = 100, compressed: bool = False) -> None:
    """Write the four files of Fashion-MNIST with drawn pictures: `count` for training, a tenth of that for the test."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, size, seed in (("train", count, 0), ("t10k", count // 10, 1)):
        pictures = draw_pictures(size, 28, seed)[:, 0]
        for kind, content in (("images-idx3", idx(pictures)), ("labels-idx1", idx(np.arange(size) % 10))):
            name = f"{part}-{kind}-ubyte"
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture
def pictures():
    return draw_pictures(64)


@pytest.fixture
def picture_folder(tmp_path, pictures):
    folder = tmp_path / "a folder"
    image_files.write_jpegs(pictures, folder, "image", len(pictures))
    return folder


def documented(word: str) -> str:
    """The block of Python code in docs/scaling.md that contains this word."""
    blocks = re.findall(
        r"```python\n(.*?)```", (config.PROJECT / "docs" / "scaling.md").read_text(encoding="utf-8"), re.S
    )
    return next(block for block in blocks if word in block)
