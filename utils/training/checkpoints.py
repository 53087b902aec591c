"""Checkpoints that survive a killed process and a full disk, and weights as safetensors.

A checkpoint is one file with three parts: a line with the SHA-256 of the rest; a line of JSON with the settings of the
run, the step, the date and the device; and the output of `torch.save`. It is written under another name and renamed
when it is complete. It is read with `weights_only=True`, so loading a file never executes it.
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

KEEP = 2  # the newest, and the one before it in case the newest gets damaged
NAME = re.compile(r"step_\d{8,}\.ckpt")  # only these files are checkpoints
PART_NAME = re.compile(r"\.step_\d{8,}\.ckpt\.\d+\.part")
PART_BYTES = 4_500_000  # largest size of a file of weights, because a repository should not hold large files
Model = TypeVar("Model", bound=torch.nn.Module)


class CheckpointMismatch(ValueError):
    """The checkpoint belongs to another run."""


class CheckpointDamaged(ValueError):
    """The file is not a complete checkpoint."""


class Checkpoint(NamedTuple):
    """The content of a file: the step, the state at this step, the run's settings, and the date and device."""

    step: int
    state: dict
    config: dict
    date: str  # local time, "2025-11-26 20:31"
    device: str


def fingerprint(*modules: torch.nn.Module) -> str:
    """A hash of 16 hexadecimal digits. It changes if any weight or buffer of the modules changes."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder, oldest first. A sync client's copy, "step_00000020 (1).ckpt", does not count."""
    found = [path for path in Path(folder).glob("step_*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step_")))


def save(
    folder: str | Path, step: int, state: dict, config: dict, device: str = "cpu", date: str | None = None
) -> Path:
    """Save `state` (tensors and plain data) as `folder/step_00001234.ckpt`, and keep the last two checkpoints.

    `date` is the date in the file; default: now.

    Raises:
        OSError: the file cannot be written. Earlier checkpoints have not changed.
        TypeError: `state` holds something that `read` would refuse to load, for example a NumPy number.
    """
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        torch.load(io.BytesIO(buffer.getvalue()), map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(f"a checkpoint can hold tensors, plain numbers, strings, lists and dicts: {error}") from error
    date = date or datetime.now().strftime("%Y-%m-%d %H:%M")
    head = json.dumps({"config": config, "step": step, "date": date, "device": device})
    content = head.encode() + b"\n" + buffer.getvalue()
    for part in folder.glob(".step_*.part"):
        if PART_NAME.fullmatch(part.name):  # a process was killed while it wrote this
            part.unlink(missing_ok=True)
    path = folder / f"step_{step:08d}.ckpt"
    write_atomically(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    for old in find(folder)[:-KEEP]:
        old.unlink()
    return path


def read(path: str | Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointDamaged: the file is incomplete, has been changed, or is not a checkpoint.
    """
    check_sum, _, content = Path(path).read_bytes().partition(b"\n")
    try:
        if hashlib.sha256(content).hexdigest().encode() != check_sum:
            raise ValueError("its check sum is wrong")
        head, _, state = content.partition(b"\n")
        meta = json.loads(head)
        state = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return Checkpoint(int(meta["step"]), state, dict(meta["config"]), str(meta["date"]), str(meta["device"]))
    except Exception as error:  # torch.load raises many kinds of error, for example an IndexError
        raise CheckpointDamaged(f"'{printable(path)}' is not a complete checkpoint: {error}") from error


def latest(folder: str | Path, config: dict, report: Callable[[str], object] = print) -> Checkpoint | None:
    """The newest complete checkpoint of a folder, or None if there is none.

    A damaged file is reported, renamed to `*.damaged` and skipped.

    Raises:
        CheckpointMismatch: the newest checkpoint belongs to another run. The message names the differences and says
            what to do.
    """
    older = find(folder)
    while older:
        path = older.pop()
        try:
            found = read(path)
            if path.name != f"step_{found.step:08d}.ckpt":
                raise CheckpointDamaged(f"'{printable(path)}' holds step {found.step}, but its name says another one")
        except FileNotFoundError:  # another process of this run has just renamed it
            continue
        except CheckpointDamaged as error:
            aside = path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):
                path.replace(aside)
            then = "goes on from the checkpoint before it" if older else "starts from the beginning"
            report(f"{error}. It was renamed to {aside.name}. The training {then}.")
            continue
        wanted = json.loads(json.dumps(config))
        if found.config != wanted:
            lines = "\n  ".join(identity.differences(found.config, wanted))
            raise CheckpointMismatch(
                f"'{printable(path)}', written on {found.date}, belongs to another run:\n  {lines}\n"
                "Use another folder. Or start from the beginning; then the old run is kept under another name: "
                "`python -m utils run --fresh` for the notebooks, `python -m utils train --fresh` for the command "
                "`train`, or fresh=True in `fit`."
            )
        return found
    return None


def export_weights(path: str | Path, module: torch.nn.Module, config: dict) -> Path:
    """Write a module's weights, in float16, and its constructor arguments as safetensors. Returns `path`.

    Weights of more than PART_BYTES go into several files: `name.safetensors`, `name_part_2.safetensors`, ...
    Each file is written completely or not at all.
    """
    tensors = {
        name: tensor.detach().cpu().to(torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    parts: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if parts[-1] and sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    metadata = {"class": type(module).__name__, "config": json.dumps(config), "parts": str(len(parts))}
    for number, part in reversed(list(enumerate(parts, start=1))):  # the first one last: reading starts with it
        write_atomically(_part(Path(path), number), save_tensors(part, metadata | {"export": fingerprint(module)}))
    return Path(path)


def _part(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}_part_{number}")


def read_weights(path: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read what `export_weights` wrote: (constructor arguments, float32 tensors by name).

    Raises:
        FileNotFoundError: there is no such file, or one of its parts is missing.
        CheckpointDamaged: the file is not a safetensors file of this project, or its parts are from different exports.
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
    """A model in eval mode from a file that `export_weights` wrote. `build` is called with the constructor arguments.

    Raises:
        FileNotFoundError: see `read_weights`.
        CheckpointDamaged: see `read_weights`; or the weights belong to another model.
    """
    config, tensors = read_weights(path)
    try:
        model = build(**config)
        model.load_state_dict(tensors)
    except Exception as error:  # a constructor may raise any error
        raise CheckpointDamaged(f"'{printable(path)}' does not hold weights of {build.__name__}: {error}") from error
    return model.eval()
