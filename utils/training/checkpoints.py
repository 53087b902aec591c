"""Checkpoints that survive a kill, a full disk and a mix-up; weights as safetensors.

A checkpoint is one file: a line of JSON (configuration, step, SHA-256 of what follows), then
what `torch.save` wrote. It is written under another name and renamed when it is complete, and it
is read with `weights_only=True`, so loading one never executes anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from utils.files import write_atomically

KEEP = 2  # the newest, and one before it in case the newest is damaged later
PART_BYTES = 4_500_000  # a file of weights is not larger: repositories and reviewers like small ones
Model = TypeVar("Model", bound=torch.nn.Module)


class CheckpointMismatch(ValueError):
    """The checkpoint belongs to another model or configuration."""


class CheckpointDamaged(ValueError):
    """The file is not a complete checkpoint."""


def fingerprint(*modules: torch.nn.Module) -> str:
    """16 hexadecimal digits that differ where any weight or buffer of the modules differs."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def differences(saved: dict, wanted: dict) -> list[str]:
    """The settings in which two configurations differ, one readable line each."""
    return [
        f"{key}: {saved.get(key, 'absent')} in the file, {wanted.get(key, 'absent')} wanted"
        for key in sorted(saved.keys() | wanted.keys())
        if saved.get(key) != wanted.get(key)
    ]


def save(folder: str | Path, step: int, state: dict, config: dict) -> Path:
    """Save `state` (tensors and plain data) as `folder/step_00001234.ckpt`; keep the last two.

    Raises:
        OSError: could not be written; earlier checkpoints are untouched.
        TypeError: `state` holds something (a NumPy number, say) that `read` would refuse to load.
    """
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    try:
        torch.load(io.BytesIO(content), map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(f"a checkpoint may hold tensors and plain numbers, texts, lists and dicts: {error}") from error
    head = {"config": config, "step": step, "sha256": hashlib.sha256(content).hexdigest()}
    path = folder / f"step_{step:08d}.ckpt"
    for left in folder.glob(".step_*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    write_atomically(path, json.dumps(head).encode() + b"\n" + content)
    for old in sorted(folder.glob("step_*.ckpt"))[:-KEEP]:
        old.unlink()
    return path


def read(path: str | Path) -> tuple[int, dict, dict]:
    """Read one checkpoint: (step, state, config).

    Raises:
        CheckpointDamaged: truncated, altered, or not a checkpoint at all.
    """
    head, _, content = Path(path).read_bytes().partition(b"\n")
    try:
        meta = json.loads(head)
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise ValueError("its check sum is wrong")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return meta["step"], state, meta["config"]
    except Exception as error:  # torch's reader of pickles raises whatever it stumbles over, an IndexError for one
        raise CheckpointDamaged(f"'{path}' is no complete checkpoint: {error}") from error


def latest(folder: str | Path, config: dict, report=print) -> tuple[int, dict] | None:
    """The newest whole checkpoint of a folder as (step, state), or None where there is none.

    A damaged file is reported, renamed to `*.damaged` and passed over.

    Raises:
        CheckpointMismatch: it was made by another model or configuration; names the differences.
    """
    for path in sorted(Path(folder).glob("step_*.ckpt"), reverse=True):
        try:
            step, state, saved = read(path)
            if path.stem != f"step_{step:08d}":  # its head is not under the check sum
                raise CheckpointDamaged(f"'{path}' says that it is of step {step}")
        except FileNotFoundError:  # another process of this run has just set it aside
            continue
        except CheckpointDamaged as error:
            aside = path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):
                path.replace(aside)
            report(f"{error}. Set aside as {aside.name}; going on from the one before it.")
            continue
        if saved != json.loads(json.dumps(config)):
            lines = "\n  ".join(differences(saved, json.loads(json.dumps(config))))
            raise CheckpointMismatch(
                f"'{path}' belongs to another run:\n  {lines}\n"
                f"Use another run folder, or delete '{folder}' to start anew."
            )
        return step, state
    return None


def export_weights(path: str | Path, module: torch.nn.Module, config: dict, dtype=torch.float16) -> Path:
    """Write a module's weights and its constructor arguments as safetensors, each file atomically.

    What is larger than PART_BYTES goes into several files: `name.safetensors`, `name_part_2.safetensors`, ...
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
    for number, part in reversed(list(enumerate(parts, start=1))):  # the first one last: it says how many there are
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
            raise FileNotFoundError(f"There are no weights at '{part}'.")
        try:
            with safe_open(part, framework="pt") as file:
                metadata = file.metadata()
                config, parts = json.loads(metadata["config"]), int(metadata.get("parts", 1))
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointDamaged(f"'{part}' does not hold weights of this project: {error}") from error
        head = head or metadata
        if metadata != head:
            raise CheckpointDamaged(f"'{part}' and '{path}' were not written together; export the weights again")
    return config, {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def load_weights(path: str | Path, build: Callable[..., Model]) -> Model:
    """A model in eval mode from what `export_weights` wrote; `build` makes it from its constructor arguments.

    Raises:
        FileNotFoundError, CheckpointDamaged: as of `read_weights`, or the weights are another model's.
    """
    config, tensors = read_weights(path)
    try:
        model = build(**config)
        model.load_state_dict(tensors)
    except Exception as error:  # a constructor refuses what it likes
        raise CheckpointDamaged(f"'{path}' does not hold weights of {build.__name__}: {error}") from error
    return model.eval()
