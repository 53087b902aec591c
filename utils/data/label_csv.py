"""The classification's CSV: one line a test file, `test_hand_0001.jpeg, 2`, in name order, no header."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

LABELS = (0, 1, 2)  # real, VAE, GAN


def write(path: str | Path, names: list[str], labels: np.ndarray) -> Path:
    """Write a label for each file name, sorted by name; an older file is replaced in one step or not at all.

    Raises:
        ValueError: the numbers differ, a name comes twice, or a label is not 0, 1 or 2.
    """
    labels = np.asarray(labels)
    if len(names) != len(labels):
        raise ValueError(f"{len(names)} names but {len(labels)} labels")
    if len(set(names)) != len(names):
        raise ValueError("a file name comes twice")
    if not np.isin(labels, LABELS).all():
        raise ValueError(f"labels must be 0 (real), 1 (VAE) or 2 (GAN), not {sorted(set(labels.tolist()) - {*LABELS})}")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "w", newline="", encoding="utf-8") as file:
            file.writelines(f"{name}, {int(label)}\n" for name, label in sorted(zip(names, labels)))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def read(path: str | Path) -> dict[str, int]:
    """Labels by file name, in the file's order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not `name, label` with a label of 0, 1 or 2, or a name comes twice; says where.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        name, comma, label = (part.strip() for part in line.partition(","))
        if not name or not comma or label not in map(str, LABELS):
            raise ValueError(f"'{path}', line {number}: '{line[:60]}' is not a file name, a comma and 0, 1 or 2")
        if name in found:
            raise ValueError(f"'{path}', line {number}: '{name}' comes a second time")
        found[name] = int(label)
    return found


def compare(path: str | Path, truth: dict[str, int]) -> np.ndarray:
    """Confusion matrix (3, 3) of a CSV against the truth: rows are true labels, columns those in the file.

    Raises:
        ValueError: the two do not name the same files; says which are missing or too many.
    """
    given = read(path)
    missing, extra = sorted(truth.keys() - given.keys()), sorted(given.keys() - truth.keys())
    if missing or extra:
        both = {"missing": missing, "unknown": extra}
        parts = [f"{len(names)} {what}, first {names[0]}" for what, names in both.items() if names]
        raise ValueError(f"'{path}' does not name the files of the truth: {'; '.join(parts)}")
    matrix = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    for name, label in truth.items():
        matrix[label, given[name]] += 1
    return matrix
