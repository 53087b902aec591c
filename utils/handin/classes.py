"""Checks the hand-ins of a class, finds copies between students, and scores tables and arrays against a truth.

Each hand-in is read, reduced to a few numbers and forgotten, so a class needs little more memory than one hand-in.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data import head_images, likeness
from utils.files import printable
from utils.handin import compare
from utils.handin.checks import filled_heads, label_tables, samples
from utils.handin.compare import Line, Result
from utils.handin.inspection import Failed, Unchecked
from utils.handin.recognise import Work

MOST_SHOWN = 3  # faults in the line of a student
MOST_PAIRS = 20  # pairs of students that are listed below the matrix
LEAST_LINES = 4  # a code cell with fewer lines is no sign of copying
COMMON = 0.3  # a code cell in more than this share of the hand-ins is common property, such as the course's own
SAME_LABELS = 0.995  # share of equal labels; two good classifiers agree less
SAME_IMAGES = 3  # so many equal images are shown
SAME_CELLS = 3  # so many equal code cells are shown


class Prints(NamedTuple):
    """What is compared between students: images, digests of filled heads and of code cells, and the labels."""

    images: np.ndarray  # uint8 (N, 32, 32); those of another size are left out
    heads: frozenset[bytes]
    code: frozenset[bytes]
    labels: dict[str, str]


class Student(NamedTuple):
    """One hand-in of a class."""

    name: str
    results: list[Result]
    prints: Prints
    scores: list[str]


def folders(parent: Path) -> list[Path]:
    """The hand-ins in a folder: its folders and zip files, by name.

    Raises:
        NotADirectoryError: there is no such folder, or it holds no folders and no zip files.
    """
    if not parent.is_dir():
        raise NotADirectoryError(f"There is no folder '{parent}'.")
    found = [p for p in parent.iterdir() if not p.name.startswith((".", "__MACOSX")) and not p.is_symlink()]
    found = sorted(p for p in found if p.is_dir() or (p.suffix.lower() == ".zip" and p.is_file()))
    if not found:
        raise NotADirectoryError(f"'{parent}' holds no hand-ins: no folders and no zip files.")
    return found


def examine(path: Path, names: list[str] | None, truth: Path | None = None) -> Student:
    """Check one hand-in of a class. It never fails: a hand-in that cannot be read gets a line that says so."""
    try:
        results = compare.check(path, names)
    except Exception as error:  # whatever is wrong with one hand-in, the others are checked
        line = Line("a hand-in", "unchecked", [printable(error)], "Look at it yourself.", "")
        results = [Result(str(path), "none", "not recognised", [line], None)]
    works = [result.work for result in results if result.work]
    scores = [score(work, truth) for work in works] if truth else []
    heads, code = (frozenset().union(*(find(work) for work in works)) for find in (_heads, _code))
    prints = Prints(_images(works), heads, code, _labels(works))
    results = [r._replace(folder=path.name, work=None) for r in results]
    return Student(path.name, results, prints, [s for s in scores if s])


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _images(works: list[Work]) -> np.ndarray:
    found = {}
    for work in works:
        for role, file in work.brief.files.items():
            if file.kind == "images" and work.sample_groups(file):
                found |= {s.name: s.pixels for s in samples.samples(work, role)}
    small = [pixels for pixels in found.values() if pixels is not None and pixels.shape == (32, 32)]
    return np.stack(small) if small else np.zeros((0, 32, 32), np.uint8)


def _heads(work: Work) -> set[bytes]:
    found = set()
    for role in work.usable("array"):
        try:
            images = filled_heads.heads(work, role).images
        except (Failed, Unchecked):
            continue
        if images is not None:
            found |= {_digest(np.round(image, 3).astype(np.float32).tobytes()) for image in images}
    return found


def _code(work: Work) -> set[bytes]:
    found = set()
    for role in work.usable("notebook"):
        for cell in work.cells(role):
            lines = ["".join(line.split()) for line in work.own_lines(cell.source)] if cell.code else []
            lines = [line for line in lines if line[0] != "#"]
            if len(lines) >= LEAST_LINES:
                found.add(_digest("\n".join(lines).encode(errors="surrogatepass")))
    return found


def _labels(works: list[Work]) -> dict[str, str]:
    for work in works:
        for role in work.usable("table"):
            try:
                return label_tables.table(work, role).labels
            except (Failed, Unchecked):
                continue
    return {}


def score(work: Work, truth: Path) -> str:
    """The score of a table of labels or of filled images against the truth. "" if there is nothing to score.

    Raises:
        ValueError: the truth is neither a table nor an array.
    """
    kind = {".csv": "table", ".npy": "array"}.get(truth.suffix.lower())
    if kind is None:
        raise ValueError(f"'{truth}' cannot be used as the truth: give a .csv file of labels or a .npy file of images")
    for role in work.usable(kind):
        try:
            return _score_table(work, role, truth) if kind == "table" else _score_heads(work, role, truth)
        except (Failed, Unchecked, ValueError) as error:
            return f"no score: {error}"
    return ""


def _score_table(work: Work, role: str, truth: Path) -> str:
    from sklearn.metrics import accuracy_score, f1_score  # here, because a check without a truth does not need it

    truths = label_tables.Table(truth.read_text(encoding="utf-8-sig"), []).labels
    answers = label_tables.table(work, role).labels
    names = [name for name, label in truths.items() if label]
    if not names:
        return "no score: the truth has no labels"
    right, given = [truths[name] for name in names], [answers.get(name, "") for name in names]
    f1 = f1_score(right, given, labels=sorted(set(right)), average="macro")
    return f"accuracy {accuracy_score(right, given):.4f}, macro F1 {f1:.4f} on {len(names)} files"


def _score_heads(work: Work, role: str, truth: Path) -> str:
    found = filled_heads.heads(work, role)
    right = head_images.load_array(truth.read_bytes(), truth.name)
    if found.images is None or right.size != found.images.size:
        return f"no score: shapes {found.shape} and {right.shape} do not fit"
    missing = np.ones((64, 64), bool) if found.missing is None else found.missing
    error = (found.images - right.reshape(100, 64, 64).astype(np.float64))[:, missing]
    if not np.isfinite(error).all():
        return "no score: the array holds values that are no numbers"
    decibels = -10 * np.log10(max((error**2).mean(), 1e-12))
    return f"PSNR {decibels:.2f} dB, mean error {np.abs(error).mean():.4f} in the gaps"


def particular(student: Student, shared: Counter, count: int) -> str:
    """A student's faults in one line, the rarest in the class first."""
    faults = [
        (shared[r.brief, line.requirement], line) for r in student.results for line in r.lines if line.kind == "fault"
    ]
    if not faults:
        lost = [line for r in student.results for line in r.lines if line.kind == "unchecked" and r.brief == "none"]
        return f"not recognised: {lost[0].found[0][:120]}" if lost else "no fault"
    faults.sort(key=lambda pair: pair[0])
    own = [line for number, line in faults if number <= max(1, count // 2)]
    shown = [f"{line.requirement} ({line.found[0][:70]})" for line in own[:MOST_SHOWN]]
    further = len(faults) - len(shown)
    if not shown:
        return f"{further} faults, which most of the class have too"
    return "; ".join(shown) + (f"; and {further} more" if further else "")


def copies(students: list[Student]) -> list[tuple[str, str, dict[str, str]]]:
    """Each pair of students who share images, filled images, labels or code cells, and how much they share."""
    often = Counter(code for student in students for code in student.prints.code)
    most = max(2, COMMON * len(students))
    found = []
    for a, b in combinations(students, 2):
        shared = {}
        images = likeness.shared(a.prints.images, b.prints.images)
        if images >= SAME_IMAGES:
            shared["images"] = str(images)
        heads = a.prints.heads & b.prints.heads
        if heads:
            shared["heads"] = str(len(heads))
        cells = sum(often[code] <= most for code in a.prints.code & b.prints.code)
        if cells >= SAME_CELLS:
            shared["code"] = str(cells)
        names = a.prints.labels.keys() & b.prints.labels.keys()
        if len(names) > 10:
            same = sum(a.prints.labels[n] == b.prints.labels[n] for n in names) / len(names)
            if same >= SAME_LABELS and len({a.prints.labels[n] for n in names}) > 1:
                shared["labels"] = f"{same:.1%}"
        if shared:
            found.append((a.name, b.name, shared))
    return found


def matrix(pairs: list[tuple[str, str, dict[str, str]]]) -> str:
    """A matrix of the students who share something, and a line for each pair with how much it is."""
    names = sorted({name for a, b, _ in pairs for name in (a, b)})
    cells = {}
    for a, b, shared in pairs:
        cells[a, b] = cells[b, a] = "".join(kind[0] for kind in shared)
    width = max(len(printable(name)) for name in names)
    head = " " * (width + 5) + "".join(f"{number:>4}" for number in range(1, len(names) + 1))
    rows = [
        f"{number:>3}  {printable(name):<{width}}" + "".join(f"{cells.get((name, other), '.'):>4}" for other in names)
        for number, name in enumerate(names, start=1)
    ]
    title = "Shared by two students: i images, h filled heads, c code cells, l labels"
    lines = [
        f"  {printable(a)} and {printable(b)}: " + ", ".join(f"{kind} {number}" for kind, number in shared.items())
        for a, b, shared in sorted(pairs, key=lambda pair: -len(pair[2]))[:MOST_PAIRS]
    ]
    further = [f"  ... and {len(pairs) - MOST_PAIRS} more pairs"] if len(pairs) > MOST_PAIRS else []
    return "\n".join([title, head, *rows, *lines, *further])


def report_all(parent: Path, names: list[str] | None, form: str = "table", truth: Path | None = None) -> bool:
    """Check every hand-in in `parent` and print the results. Returns False if there is a fault.

    Args:
        names: briefs; by default those that each hand-in answers.
        form: table, json or csv.
        truth: a table of labels, or an array of filled images, to score with.

    Raises:
        NotADirectoryError, FileNotFoundError: there are no hand-ins in `parent`, or there is no file `truth`.
    """
    if truth and not truth.is_file():
        raise FileNotFoundError(f"There is no file '{truth}'.")
    students = [examine(path, names, truth) for path in folders(parent)]
    results = [result for student in students for result in student.results]
    if form == "json":
        print(json.dumps([entry | {"scores": s.scores} if truth else entry
                          for s in students for entry in compare.as_json(s.results)], indent=1))  # fmt: skip
    elif form == "csv":
        print(as_csv(results), end="")
    else:
        _print_table(students)
    return not any(line.kind == "fault" for result in results for line in result.lines)


def as_csv(results: list[Result]) -> str:
    """The results as a table, with one row for each line."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["folder", "brief", "requirement", "kind", "found", "advice"])
    for r in results:
        for line in r.lines:
            rows.writerow(
                [printable(r.folder), r.brief, line.requirement, line.kind, "; ".join(line.found), line.advice]
            )
    return text.getvalue()


def _print_table(students: list[Student]) -> None:
    shared = Counter({
        (r.brief, line.requirement): 0 for s in students for r in s.results for line in r.lines
    })  # fmt: skip
    for student in students:
        shared.update({(r.brief, li.requirement) for r in student.results for li in r.lines if li.kind == "fault"})
    width = max((len(printable(student.name)) for student in students), default=0)
    print(
        f"{'':<{width}}  {'briefs':<12} {'right':>5} {'fault':>5} {'remark':>6} {'?':>3}  faults that few others have"
    )
    for student in students:
        number = compare.counts(student.results)
        briefs = ",".join(r.brief for r in student.results)
        counts = f"{number['ok']:>5} {number['fault']:>5} {number['remark']:>6} {number['unchecked']:>3}"
        scores = f"{'; '.join(student.scores)}; " if student.scores else ""
        own = particular(student, shared, len(students))
        print(f"{printable(student.name):<{width}}  {briefs:<12} {counts}  {scores}{own}")
    common = [(n, key) for key, n in shared.items() if n > len(students) / 2 and len(students) > 2]
    if common:
        print("\nFaults of more than half of the class:")
        for n, (brief, requirement) in sorted(common, reverse=True):
            print(f"  {n} of {len(students)}: {brief}, {requirement}")
    pairs = copies(students)
    print()
    print(matrix(pairs) if pairs else "No two students share images, filled heads, labels or code cells.")
