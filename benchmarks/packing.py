"""Packs trainings into one archive in small pieces, so that they can be carried from a GPU to another machine.

The archive is unpacked in the folder `runs/` there. Then a notebook takes a finished training for what it is: it loads
the weights and says when and on which device they were trained.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from utils import config
from utils.training import checkpoints

LARGEST = 15 * 2**20  # bytes of a piece
TOTAL = 60 * 2**20  # bytes of all pieces
END = 2 * 10_240  # bytes at the end of an archive, at most
NOT_NEEDED = (".ckpt", ".part", ".damaged", ".safetensors")  # checkpoints are packed in another way


class Item(NamedTuple):
    """Files that belong together: where they are, and their names in the archive."""

    name: str
    files: list[tuple[Path, str]]

    @property
    def size(self) -> int:
        """Bytes in an archive: each file has a head of 512 bytes and fills whole blocks of 512 bytes."""
        return sum(1024 + path.stat().st_size for path, _ in self.files)


class Training(NamedTuple):
    """A training that was found, and whether the archive had room for it."""

    name: str
    step: int
    steps: int
    minutes: float
    device: str
    date: str
    packed: bool


def final_state(state: dict) -> dict:
    """The state of a finished training without what only a further step needs: about a quarter of the bytes.

    The averaged weights replace the others, as `fit` does at its end. The optimisers lose their moments.
    """
    model = dict(state["model"])
    for name, average in state["ema"].items():
        weights = {key.removeprefix("module."): x for key, x in average.items() if key.startswith("module.")}
        model |= {f"{name}.{key}": x for key, x in weights.items()}
    optimizers = {name: optimizer | {"state": {}} for name, optimizer in state["optimizers"].items()}
    return state | {"model": model, "optimizers": optimizers}


def found_trainings(folder: Path) -> list[Path]:
    """The newest checkpoint of each training in a folder, in the order in which they were written."""
    places = {path.parent for path in folder.rglob("step_*.ckpt") if ".old_" not in str(path.relative_to(folder))}
    newest = [checkpoints.find(place)[-1] for place in places if checkpoints.find(place)]
    return sorted(newest, key=lambda path: path.stat().st_mtime)


def training_item(path: Path, runs: Path, work: Path) -> tuple[Item, Training] | None:
    """The files of a training, and what is known about it. None if it was trained on a CPU.

    A finished training is made smaller; the new checkpoint is in the folder `work`. An unfinished one is left as it is.
    """
    found = checkpoints.read(path)
    if found.device == "cpu":
        return None
    name, steps = path.parent.relative_to(runs).as_posix(), found.config["steps"]
    packed = path
    if found.step == steps:
        state = final_state(found.state)
        packed = checkpoints.save(work / name, found.step, state, found.config, found.device, found.date)
    known = Training(name, found.step, steps, found.state["seconds"] / 60, found.device, found.date, False)
    return Item(name, [(packed, f"{name}/{path.name}")]), known


def other_items(folder: Path, runs: Path) -> list[Item]:
    """The other files of a folder: histories, executed notebooks, samples, searches. Each is an item of its own.

    The exported weights are not among them, because a notebook exports them again.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in NOT_NEEDED]
    names = [path.relative_to(runs).as_posix() for path in paths]
    return [Item(name, [(path, name)]) for path, name in zip(paths, names) if ".old_" not in name]


def choose(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Take each item that there is still room for. Returns the items that are taken, and the others."""
    room, taken, left_out = TOTAL - END, [], []
    for item in items:
        fits = item.size <= room
        (taken if fits else left_out).append(item)
        room -= item.size if fits else 0
    return taken, left_out


class Pieces(io.RawIOBase):
    """A file to write to, which becomes files of at most LARGEST bytes: `path.1`, `path.2` ..."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.room = path, 0, 0

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        """Add all of the content to the last piece, and to new ones if there is no room."""
        rest = memoryview(content)
        while rest:
            if not self.room:
                self.number, self.room = self.number + 1, LARGEST
            with self.path.with_name(f"{self.path.name}.{self.number}").open("ab") as piece:
                piece.write(rest[: self.room])
            taken = min(len(rest), self.room)
            rest, self.room = rest[taken:], self.room - taken
        return len(content)


def write(path: Path, items: list[Item]) -> None:
    """Write the items to a tar archive in pieces. Older pieces are deleted."""
    for old in path.parent.glob(f"{path.name}.*"):
        old.unlink()
    with tarfile.open(fileobj=Pieces(path), mode="w|", bufsize=2**20) as archive:
        for file, name in (pair for item in items for pair in item.files):
            archive.add(file, name)


def pack(out: Path) -> tuple[list[Training], list[str]]:
    """Pack the trainings and the other files of this profile's runs into `out/runs.tar.1`, `runs.tar.2` ...

    Returns:
        All trainings, and the names of what the archive has no room for.
    """
    folder = config.run_folder()
    runs = folder.parent
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        found = [training_item(path, runs, Path(work)) for path in found_trainings(folder)]
        trainings = [pair for pair in found if pair]
        taken, left_out = choose(other_items(folder, runs) + [item for item, _ in trainings])
        write(out / "runs.tar", taken)
    known = [training._replace(packed=item in taken) for item, training in trainings]
    return known, [item.name for item in left_out]
