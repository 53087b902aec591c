"""Fuzzing: every reader gets damaged or random input, and may only raise the errors in its documentation.

    make fuzz        or        python -m benchmarks.fuzz --inputs 1000000

Hypothesis draws up to five edits of a valid file (bytes are replaced, inserted or removed) and a cut. If an input
fails, Hypothesis makes it smaller. Drawing takes longer than reading, so every combination of the edits is tried. A
damaged checkpoint is tried twice: as it is, and with a corrected check sum. Otherwise the check sum would stop every
input before the parser.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from itertools import compress, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from utils.data import archives, head_images, image_files, label_csv, public_images
from utils.models.pixelcnn import PixelCNN
from utils.training import checkpoints

Trial = Callable[[Path, set[bytes]], int]  # reads each content in a folder; returns how many could be read
Edit = tuple[int, int, bytes]  # place in the file, number of bytes to remove, bytes to insert
MAX_EDITS = 5  # in one drawing
DRAWINGS = 100  # the inputs are counted after this number of drawings


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(32 * 32).reshape(32, 32) % 256).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1, 64, 64), np.float16))
    return buffer.getvalue()


def idx() -> bytes:
    """Three images of 28 x 28 in the format of Fashion-MNIST."""
    return bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (3, 28, 28)) + bytes(3 * 28 * 28)


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("real_hands/000000.jpeg", "real_hands/000001.jpeg"):
            info = tarfile.TarInfo(name)
            info.size = len(picture("JPEG"))
            archive.addfile(info, io.BytesIO(picture("JPEG")))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("real_hands/000000.jpeg", "real_hands/000001.jpeg"):
            archive.writestr(name, picture("JPEG"))
    return buffer.getvalue()


def checkpoint(folder: Path) -> bytes:
    return checkpoints.save(folder, 1, {"weights": torch.arange(3.0), "history": [{"step": 1}]}, {"a": 1}).read_bytes()


def weights(folder: Path) -> bytes:
    model = PixelCNN((8, 8), width=2, layers=1, hidden=2, components=2)
    return checkpoints.export_weights(folder / "weights.safetensors", model, model.config).read_bytes()


def with_check_sum(path: Path) -> None:
    """Correct the check sum of a damaged checkpoint."""
    _, _, content = path.read_bytes().partition(b"\n")
    path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_archive(path: Path) -> object:
    return list(archives.members(path))


def read_repaired(path: Path) -> object:
    with_check_sum(path)
    return checkpoints.read(path)


def read_idx(path: Path) -> object:
    """Read a data folder in which one of the four files is damaged."""
    raw = path.parent / public_images.RAW
    if not raw.exists():
        raw.mkdir(parents=True)
        for name in public_images.FILES:
            (raw / name).write_bytes(idx() if "images" in name else bytes([0, 0, 8, 1, 0, 0, 0, 3, 0, 0, 0]))
    path.replace(raw / public_images.FILES[0])
    return public_images.fashion_mnist(path.parent, network=False)


def one_by_one(file: str, read: Callable[[Path], object], documented: type[Exception]) -> Trial:
    """A trial that reads each content as a separate file."""

    def trial(folder: Path, contents: set[bytes]) -> int:
        good = 0
        for content in contents:
            (folder / file).write_bytes(content)
            try:
                read(folder / file)
                good += 1
            except documented:
                pass
        return good

    return trial


def together(ending: str) -> Trial:
    """A trial that reads all contents as one folder of images."""

    def trial(folder: Path, contents: set[bytes]) -> int:
        place = folder / "images"
        place.mkdir()
        for number, content in enumerate(contents):
            (place / f"{number}{ending}").write_bytes(content)
        try:
            found = image_files.read(place)
            if len(found.names) + len(found.skipped) != len(contents):
                raise AssertionError("a file is neither read nor reported")
            return len(found.names)
        except ValueError:  # no image can be used
            return 0
        finally:
            shutil.rmtree(place)

    return trial


def drawings(length: int) -> st.SearchStrategy[tuple[list[Edit], int]]:
    """Edits of a file of `length` bytes, and the number of bytes to cut off at its end."""
    place = st.integers(0, length - 1)
    edit = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))
    return st.tuples(st.lists(edit, min_size=1, max_size=MAX_EDITS), place)


def variants(valid: bytes, edits: list[Edit], end: int) -> set[bytes]:
    """The file with every combination of the edits, whole and cut, and also the inserted bytes alone."""
    found = set()
    for chosen in product((False, True), repeat=len(edits)):
        content = valid
        # From the last place to the first, so that no edit moves the place of another edit.
        for where, taken, put in sorted(compress(edits, chosen), reverse=True):
            content = content[:where] + put + content[where + taken :]
        found |= {content, content[: len(content) - end]}
    return (found | {b"".join(put for _, _, put in edits)}) - {valid}


def readers(folder: Path) -> dict[str, tuple[bytes, Trial]]:
    """A valid content, and the trial for damaged contents, by the name of the reader."""
    csv = b"test_hand_0001.jpeg, 2\ntest_hand_0002.jpeg, 0\n"
    damaged = checkpoints.CheckpointDamaged
    return {
        "image folder (JPEG)": (picture("JPEG"), together(".jpeg")),
        "image folder (PNG)": (picture("PNG"), together(".png")),
        "tar.gz": (tar(), one_by_one("a.tar.gz", read_archive, ValueError)),
        "zip": (zipped(), one_by_one("a.zip", read_archive, ValueError)),
        "npy": (npy(), one_by_one("a.npy", head_images.read, ValueError)),
        "idx": (idx(), one_by_one("a.idx", read_idx, ValueError)),
        "CSV": (csv, one_by_one("a.csv", label_csv.read, ValueError)),
        "checkpoint": (checkpoint(folder), one_by_one("a.ckpt", checkpoints.read, damaged)),
        "checkpoint, check sum repaired": (checkpoint(folder), one_by_one("a.ckpt", read_repaired, damaged)),
        "weights (safetensors)": (weights(folder), one_by_one("a.safetensors", checkpoints.read_weights, damaged)),
    }


def fuzz(name: str, inputs: int) -> dict[str, float]:
    """Try at least `inputs` inputs on one reader, and count them.

    Raises:
        Exception: the reader raised an error that is not in its documentation.
    """
    with tempfile.TemporaryDirectory() as place:
        valid, trial = readers(Path(place, "valid"))[name]
        tried = Path(place, "tried")
        tried.mkdir()
        counts, start = {"tried": 0, "read": 0}, time.monotonic()

        @settings(
            max_examples=DRAWINGS, database=None, deadline=None, derandomize=False, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(drawings(len(valid)))
        def attempt(drawing: tuple[list[Edit], int]) -> None:
            contents = variants(valid, *drawing)
            counts["read"] += trial(tried, contents)
            counts["tried"] += len(contents)

        while counts["tried"] < inputs:
            attempt()
        refused = counts["tried"] - counts["read"]
        return counts | {"refused": refused, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Give damaged input to every reader, and stop at the first undocumented error."
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for all readers together; default: 1,000,000")
    parser.add_argument("--only", help="the name of one reader")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        names = [options.only] if options.only else list(readers(Path(place)))
    table = {}
    for name in names:
        table[name] = fuzz(name, -(-options.inputs // len(names)))
        print(f"{name}: {table[name]}", flush=True)
    print(pd.DataFrame(table).T.to_string())
    print(f"{sum(row['tried'] for row in table.values()):,} inputs, no undocumented error")


if __name__ == "__main__":
    main()
