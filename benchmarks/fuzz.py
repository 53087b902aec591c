"""Damaged and made-up input for every reader: only the errors that they document may come out.

    make fuzz        or        python -m benchmarks.fuzz --inputs 1000000

Hypothesis draws edits of a valid file (bytes replaced, put in, taken out, the end cut off) or random bytes, and shrinks
what fails. A checkpoint is tried twice: as it is, and with its check sum made right again after the damage, so that the
parser behind it is reached too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from utils import checkpoints, folders, heads, labels, public_images
from utils.vae import VAE

Reader = Callable[[Path], object]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(32 * 32).reshape(32, 32) % 256).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(32 * 32).reshape(32, 32) % 256).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1, 64, 64), np.float16))
    return buffer.getvalue()


def idx() -> bytes:
    """Three images of 28 x 28 in the format of Fashion-MNIST."""
    return bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (3, 28, 28)) + bytes(3 * 28 * 28)


def checkpoint(folder: Path) -> bytes:
    return checkpoints.save(folder, 1, {"weights": torch.arange(3.0), "history": [{"step": 1}]}, {"a": 1}).read_bytes()


def weights(folder: Path) -> bytes:
    model = VAE((8, 8), latent_dim=2, base=2)
    return checkpoints.export_weights(folder / "weights.safetensors", model, model.config).read_bytes()


def with_check_sum(path: Path) -> None:
    """Make a damaged checkpoint's check sum right."""
    head, _, content = path.read_bytes().partition(b"\n")
    try:
        head = json.dumps(json.loads(head) | {"sha256": hashlib.sha256(content).hexdigest()}).encode()
    except (ValueError, TypeError):
        return
    path.write_bytes(head + b"\n" + content)


def read_repaired(path: Path) -> object:
    with_check_sum(path)
    return checkpoints.read(path)


def read_folder(path: Path) -> object:
    return folders.read(path.parent)


def read_idx(path: Path) -> object:
    """A data folder in which one of the four files is the damaged one."""
    root = path.parent
    raw = root / public_images.RAW
    raw.mkdir(parents=True, exist_ok=True)
    count = 3
    for name in public_images.FILES:
        good = idx() if "images" in name else bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)
        (raw / name).write_bytes(path.read_bytes() if name == public_images.FILES[0] else good)
    return public_images.fashion_mnist(root, network=False)


def edited(valid: bytes) -> st.SearchStrategy[bytes]:
    """Files that differ from a valid one in up to six places, or that are random bytes."""
    place = st.integers(0, len(valid) - 1)
    edit = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
        content = valid
        for where, taken, put in edits:
            content = content[:where] + put + content[where + taken :]
        return content[: len(content) - end]

    return st.builds(apply, st.lists(edit, min_size=1, max_size=6), st.just(0) | place) | st.binary(max_size=400)


def readers(folder: Path) -> dict[str, tuple[str, bytes, Reader, tuple[type[Exception], ...]]]:
    """By name: the file's name, a valid content, what reads it, and the errors it documents."""
    csv = b"test_hand_0001.jpeg, 2\ntest_hand_0002.jpeg, 0\n"
    damaged = (checkpoints.CheckpointDamaged,)
    return {
        "image folder (JPEG)": ("a.jpeg", jpeg(), read_folder, (ValueError,)),
        "image folder (PNG)": ("a.png", png(), read_folder, (ValueError,)),
        "npy": ("a.npy", npy(), heads.read, (ValueError,)),
        "idx": ("a.idx", idx(), read_idx, (ValueError,)),
        "CSV": ("a.csv", csv, labels.read, (ValueError,)),
        "checkpoint": ("a.ckpt", checkpoint(folder), checkpoints.read, damaged),
        "checkpoint, check sum repaired": ("a.ckpt", checkpoint(folder), read_repaired, damaged),
        "weights (safetensors)": ("a.safetensors", weights(folder), checkpoints.read_weights, damaged),
    }


def fuzz(name: str, inputs: int) -> dict[str, float]:
    """Try so many inputs on one reader; what is neither a result nor a documented error is raised."""
    with tempfile.TemporaryDirectory() as place:
        file, valid, read, documented = readers(Path(place, "valid"))[name]
        path = Path(place, "tried", file)
        path.parent.mkdir()
        counts, start = {"tried": 0, "read": 0, "refused": 0}, time.monotonic()

        @settings(
            max_examples=inputs, database=None, deadline=None, derandomize=False, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(edited(valid))
        def attempt(content: bytes) -> None:
            path.write_bytes(content)
            counts["tried"] += 1
            try:
                read(path)
                counts["read"] += 1
            except documented:
                counts["refused"] += 1

        attempt()
        return counts | {"seconds": time.monotonic() - start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Damaged input for every reader; stops at the first undocumented error."
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all readers")
    parser.add_argument("--only", help="one reader's name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        names = [options.only] if options.only else list(readers(Path(place)))
    total = 0
    for name in names:
        found = fuzz(name, options.inputs // len(names))
        total += found["tried"]
        print(f"{name}: {found}", flush=True)
    print(f"{total:,} inputs, no undocumented error")


if __name__ == "__main__":
    main()
