"""Packs trainings into small archives, so that they can be carried from a GPU to another machine.

An archive is unpacked in the folder `runs/` there (`tar xf`). Then a notebook takes a finished training for what it is:
it loads the weights and says when and on which device they were trained.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from utils import config
from utils.training import checkpoints

LARGEST = 15 * 2**20  # bytes of an archive
MOST = 7  # archives; with the report, these are eight files
TOTAL = 60 * 2**20  # bytes of all archives
END = 2 * 10_240  # bytes at the end of an archive, at most
NOT_NEEDED = (".ckpt", ".part", ".damaged", ".safetensors")  # checkpoints are packed in another way


class Item(NamedTuple):
    """Files that go into the same archive: where they are, and their names in the archive."""

    name: str
    files: list[tuple[Path, str]]

    @property
    def size(self) -> int:
        """Bytes in an archive: each file has a head of 512 bytes and fills whole blocks of 512 bytes."""
        return sum(1024 + path.stat().st_size for path, _ in self.files)


class Training(NamedTuple):
    """A training that was found, and the name of its archive ("" if it is too large)."""

    name: str
    step: int
    steps: int
    minutes: float
    device: str
    date: str
    archive: str


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
    known = Training(name, found.step, steps, found.state["seconds"] / 60, found.device, found.date, "")
    return Item(name, [(packed, f"{name}/{path.name}")]), known


def other_items(folder: Path, runs: Path) -> list[Item]:
    """The other files of a folder: histories, executed notebooks, samples, searches. Each is an item of its own.

    The exported weights are not among them, because a notebook exports them again.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in NOT_NEEDED]
    names = [path.relative_to(runs).as_posix() for path in paths]
    return [Item(name, [(path, name)]) for path, name in zip(paths, names) if ".old_" not in name]


def distribute(items: list[Item]) -> tuple[list[list[Item]], list[Item]]:
    """Put each item into the first archive that has room. Returns the archives, and the items that fit nowhere."""
    archives: list[list[Item]] = []
    left_out, total = [], 0
    for item in items:
        room = [one for one in archives if sum(other.size for other in one) + item.size + END <= LARGEST]
        if total + item.size > TOTAL or item.size + END > LARGEST or not (room or len(archives) < MOST):
            left_out.append(item)
            continue
        if not room:
            room = [[]]
            archives += room
        room[0].append(item)
        total += item.size
    return archives, left_out


def pack(out: Path) -> tuple[list[Training], list[str]]:
    """Pack the trainings and the other files of this profile's runs into `out/runs_1.tar`, `runs_2.tar` ...

    Older archives in `out` are deleted.

    Returns:
        All trainings, and the names of what fits into no archive.
    """
    folder = config.run_folder()
    runs = folder.parent
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("runs_*.tar"):
        old.unlink()
    with tempfile.TemporaryDirectory() as work:
        found = [training_item(path, runs, Path(work)) for path in found_trainings(folder)]
        trainings = [pair for pair in found if pair]
        archives, left_out = distribute(other_items(folder, runs) + [item for item, _ in trainings])
        archive_of = {}
        for number, items in enumerate(archives, 1):
            path = out / f"runs_{number}.tar"
            with tarfile.open(path, "w") as archive:
                for file, name in (pair for item in items for pair in item.files):
                    archive.add(file, name)
            archive_of |= {item.name: path.name for item in items}
    known = [training._replace(archive=archive_of.get(training.name, "")) for _, training in trainings]
    return known, [item.name for item in left_out]
