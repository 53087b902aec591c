"""Results that are kept in files. They are made again only if something that they depend on has changed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.files import write_atomically


def kept_values(path: Path, wanted: dict, make: Callable[[], dict]) -> dict:
    """The result of `make`: plain values and arrays by name. It is kept in the npz file `path`.

    If the file was made for another `wanted`, or cannot be read, the values are made again.

    Args:
        wanted: everything that the result depends on, as plain values, for example the hash of a model.
    """
    found = _read_values(path)
    asked = json.dumps(wanted, sort_keys=True)
    if found is None or found.pop("wanted") != asked:
        found = make()
        arrays = {name: x for name, x in found.items() if isinstance(x, np.ndarray)}
        plain = {name: x for name, x in found.items() if name not in arrays}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays, plain=json.dumps(plain), wanted=asked)
        write_atomically(path, buffer.getvalue())
    return found


def _read_values(path: Path) -> dict | None:
    try:
        with np.load(path) as stored:
            found = {name: stored[name] for name in stored.files}
        return found | json.loads(str(found.pop("plain"))) | {"wanted": str(found["wanted"])}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # absent or damaged
        return None
