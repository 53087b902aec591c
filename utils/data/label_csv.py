"""The CSV of labels: one line for each test file, such as `test_hand_0001.jpeg, 2`, in name order, without a header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.files import printable, write_atomically

LABELS = (0, 1, 2)  # real, VAE, GAN


def write(path: str | Path, names: list[str], labels: np.ndarray) -> Path:
    """Write a label for each file name, sorted by name. The file is written completely or not at all.

    Raises:
        ValueError: the numbers of names and labels differ, a name occurs twice, is empty, has spaces around it or holds
            a line break, or a label is not 0, 1 or 2.
        OSError: see `files.write_atomically`.
    """
    labels = np.asarray(labels)
    if len(names) != len(labels):
        raise ValueError(f"{len(names)} names but {len(labels)} labels")
    if len(set(names)) != len(names):
        raise ValueError("a file name occurs twice")
    for name in names:
        if [name.strip()] != name.splitlines():
            raise ValueError(f"the file name '{printable(name)}' is empty, holds a line break, or has spaces around it")
    if not np.isin(labels, LABELS).all():
        raise ValueError(f"labels must be 0 (real), 1 (VAE) or 2 (GAN), not {sorted(set(labels.tolist()) - {*LABELS})}")
    lines = [f"{name}, {int(label)}\n" for name, label in sorted(zip(names, labels))]
    write_atomically(Path(path), "".join(lines).encode("utf-8"))
    return Path(path)


def read(path: str | Path) -> dict[str, int]:
    """Labels by file name, in the file's order. The file may be from Windows (a byte order mark, CRLF line endings).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8 text, a line is not `name, label` with a label of 0, 1 or 2, or two lines have
            the same name. The message says where.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{printable(path)}' is not UTF-8 text: {error}") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name, comma, label = (part.strip() for part in line.rpartition(","))
        if not name or not comma or label not in map(str, LABELS):
            shown = printable(line[:60])
            raise ValueError(f"'{printable(path)}', line {number}: '{shown}' is not a file name, a comma and 0, 1 or 2")
        if name in found:
            raise ValueError(f"'{printable(path)}', line {number}: '{printable(name)}' occurs a second time")
        found[name] = int(label)
    return found


def compare(path: str | Path, truth: dict[str, int]) -> np.ndarray:
    """Confusion matrix (3, 3) of a CSV and the truth. Rows are the true labels, columns are the labels in the CSV.

    Raises:
        ValueError: the two do not name the same files. The message says which are missing or unknown.
    """
    given = read(path)
    missing, extra = sorted(truth.keys() - given.keys()), sorted(given.keys() - truth.keys())
    if missing or extra:
        both = {"missing": missing, "unknown": extra}
        parts = [f"{len(names)} {what}, first {printable(names[0])}" for what, names in both.items() if names]
        raise ValueError(f"'{printable(path)}' does not name the files of the truth: {'; '.join(parts)}")
    matrix = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    for name, label in truth.items():
        matrix[label, given[name]] += 1
    return matrix
