"""Checkpoints that survive a kill, a full disk and a mix-up; weights as safetensors.

A checkpoint is one file: a line with the SHA-256 of the rest, a line of JSON (what the run is, the step, when and on
which device it was written), then what `torch.save` wrote. It is written under another name and renamed when it is
complete. It is read with `weights_only=True`, so loading a file never executes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from utils.files import printable, write_atomically
from utils.training import identity

KEEP = 2  # the newest, and the one before it in case the newest is damaged later
NAME = re.compile(r"step_\d{8,}\.ckpt")  # only these files are checkpoints
PART_NAME = re.compile(r"\.step_\d{8,}\.ckpt\.\d+\.part")
PART_BYTES = 4_500_000  # the largest file of weights: repositories and reviewers like small files
Model = TypeVar("Model", bound=torch.nn.Module)


class CheckpointMismatch(ValueError):
    """The checkpoint belongs to another run."""


class CheckpointDamaged(ValueError):
    """The file is not a complete checkpoint."""


class Checkpoint(NamedTuple):
    """What a file holds: the state at a step, what the run is, and when and where the file was written."""

    step: int
    state: dict
    config: dict
    date: str  # local time, "2025-11-26 20:31"
    device: str


def fingerprint(*modules: torch.nn.Module) -> str:
    """16 hexadecimal digits that differ where any weight or buffer of the modules differs."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder, oldest first. Other files, as a sync client's "step_00000020 (1).ckpt", are not."""
    found = [path for path in Path(folder).glob("step_*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step_")))


def save(folder: str | Path, step: int, state: dict, config: dict, device: str = "cpu") -> Path:
    """Save `state` (tensors and plain data) as `folder/step_00001234.ckpt`; keep the last two.

    Raises:
        OSError: could not be written; earlier checkpoints are untouched.
        TypeError: `state` holds something (a NumPy number, say) that `read` would refuse to load.
    """
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        torch.load(io.BytesIO(buffer.getvalue()), map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(f"a checkpoint may hold tensors and plain numbers, texts, lists and dicts: {error}") from error
    date = datetime.now().strftime("%Y-%m-%d %H:%M")
    head = json.dumps({"config": config, "step": step, "date": date, "device": device})
    content = head.encode() + b"\n" + buffer.getvalue()
    for part in folder.glob(".step_*.part"):
        if PART_NAME.fullmatch(part.name):  # a process was killed while it wrote
            part.unlink(missing_ok=True)
    path = folder / f"step_{step:08d}.ckpt"
    write_atomically(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    for old in find(folder)[:-KEEP]:
        old.unlink()
    return path


def read(path: str | Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointDamaged: the file is cut short, altered, or no checkpoint at all.
    """
    check_sum, _, content = Path(path).read_bytes().partition(b"\n")
    try:
        if hashlib.sha256(content).hexdigest().encode() != check_sum:
            raise ValueError("its check sum is wrong")
        head, _, state = content.partition(b"\n")
        meta = json.loads(head)
        state = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return Checkpoint(int(meta["step"]), state, dict(meta["config"]), str(meta["date"]), str(meta["device"]))
    except Exception as error:  # torch's reader of pickles raises many kinds of error, an IndexError for one
        raise CheckpointDamaged(f"'{printable(path)}' is no complete checkpoint: {error}") from error


def latest(folder: str | Path, config: dict, report: Callable[[str], object] = print) -> Checkpoint | None:
    """The newest whole checkpoint of a folder, or None where there is none.

    A damaged file is reported, renamed to `*.damaged` and passed over.

    Raises:
        CheckpointMismatch: the newest checkpoint is of another run; names the differences and what to do.
    """
    for path in reversed(find(folder)):
        try:
            found = read(path)
            if path.name != f"step_{found.step:08d}.ckpt":
                raise CheckpointDamaged(f"'{printable(path)}' says that it is of step {found.step}")
        except FileNotFoundError:  # another process of this run has just renamed it
            continue
        except CheckpointDamaged as error:
            aside = path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):
                path.replace(aside)
            report(f"{error}. It was renamed to {aside.name}; training goes on from the one before it.")
            continue
        wanted = json.loads(json.dumps(config))
        if found.config != wanted:
            lines = "\n  ".join(identity.differences(found.config, wanted))
            raise CheckpointMismatch(
                f"'{printable(path)}', of {found.date}, belongs to another run:\n  {lines}\n"
                "Use another folder. Or start anew with fresh=True (`--fresh` of `python -m utils train`): "
                "the old run is kept under another name."
            )
        return found
    return None


def export_weights(path: str | Path, module: torch.nn.Module, config: dict, dtype=torch.float16) -> Path:
    """Write a module's weights and its constructor arguments as safetensors; returns `path`.

    Weights of more than PART_BYTES go into several files: `name.safetensors`, `name_part_2.safetensors`, ...
    Each file is written whole or not at all.
    """
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    parts: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if parts[-1] and sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    metadata = {"class": type(module).__name__, "config": json.dumps(config), "parts": str(len(parts))}
    for number, part in reversed(list(enumerate(parts, start=1))):  # the first file last: it says how many there are
        write_atomically(_part(Path(path), number), save_tensors(part, metadata | {"export": fingerprint(module)}))
    return Path(path)


def _part(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}_part_{number}")


def read_weights(path: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read what `export_weights` wrote: (constructor arguments, float32 tensors by name).

    Raises:
        FileNotFoundError: no such file, or one of its parts is missing.
        CheckpointDamaged: not a safetensors file of this project, or parts of different exports.
    """
    head, tensors, number, parts = None, {}, 0, 1
    while number < parts:
        number += 1
        part = _part(Path(path), number)
        if not part.is_file():
            raise FileNotFoundError(f"There are no weights at '{printable(part)}'.")
        try:
            with safe_open(part, framework="pt") as file:
                metadata = file.metadata()
                config, parts = json.loads(metadata["config"]), int(metadata.get("parts", 1))
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointDamaged(f"'{printable(part)}' does not hold weights of this project: {error}") from error
        head = head or metadata
        if metadata != head:
            raise CheckpointDamaged(
                f"'{printable(part)}' and '{printable(path)}' were not written together; export the weights again"
            )
    return config, {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def load_weights(path: str | Path, build: Callable[..., Model]) -> Model:
    """A model in eval mode from what `export_weights` wrote; `build` makes it from its constructor arguments.

    Raises:
        FileNotFoundError: as in `read_weights`.
        CheckpointDamaged: as in `read_weights`, or the weights are those of another model.
    """
    config, tensors = read_weights(path)
    try:
        model = build(**config)
        model.load_state_dict(tensors)
    except Exception as error:  # a constructor may raise any error
        raise CheckpointDamaged(f"'{printable(path)}' does not hold weights of {build.__name__}: {error}") from error
    return model.eval()
