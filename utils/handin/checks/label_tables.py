"""Checks of the table of labels (CSV). A check gets the work and the role of the table, and yields findings."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator

from utils.files import printable
from utils.handin.briefs import check
from utils.handin.inspection import Finding, fault, ok, remark, some
from utils.handin.recognise import Work

LABEL = re.compile(r"([012])(\.0+)?")


class Table:
    """A table of labels, read line by line.

    Attributes:
        labels: the label of each file, in the file's order; of a file that is named twice, the first.
        wrong: lines that cannot be read, with their numbers.
        twice: files that are named more than once.
        notes: what is unusual about the form.
    """

    def __init__(self, text: str, notes: list[str]):
        self.labels: dict[str, str] = {}
        self.wrong: list[str] = []
        self.twice: list[str] = []
        self.notes = list(notes)
        lines = text.split("\n")
        blank = [n for n, line in enumerate(lines[:-1], start=1) if not line.strip()]
        if blank:
            self.notes.append(f"blank lines: {some(blank, 3)}")
        seen: Counter[str] = Counter()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._read(number, line.strip("\r"), seen)
        words = {
            "quoted": "names or labels are in quotes", "column": "there are more columns than name and label",
            "path": "the names have folders in front", "other": "the columns are not separated by a comma",
            "decimal": "labels are written as decimals, such as 2.0", "spaces": "there are spaces around lines",
            "ending": "the names have no ending, or another one than .jpeg",
        }  # fmt: skip
        self.notes += [f"{words[key]} ({count} lines)" for key, count in seen.items() if count]

    def _read(self, number: int, line: str, seen: Counter[str]) -> None:
        parts = [part.strip() for part in re.split(r"[,;\t]", line)]
        bare = [part.strip("\"' ") for part in parts]
        place = next((i for i, part in enumerate(bare) if re.search(r"test_hand_?\d+", part)), None)
        if place is None:
            if number == 1 and not re.search(r"\d{3}", line):
                self.notes.append(f"line 1 is a header: {printable(line[:40])}")
            else:
                self.wrong.append(f"line {number}: {printable(line[:40])}")
            return
        name = bare[place].replace("\\", "/").rpartition("/")[2]
        name = sys.intern(re.sub(r"\.\w+$", "", name) + ".jpeg")  # the tables of a class share their names
        label = bare[place + 1] if place + 1 < len(bare) else ""
        match = LABEL.fullmatch(label)
        if not match:
            self.wrong.append(f"line {number}: {printable(line[:40])} has no label 0, 1 or 2")
            self.labels.setdefault(name, "")
            return
        seen["quoted"] += parts != bare
        seen["column"] += len(bare) != 2
        seen["path"] += "/" in bare[place].replace("\\", "/")
        seen["ending"] += not bare[place].endswith(".jpeg")
        seen["decimal"] += bool(match[2])
        seen["other"] += "," not in line
        seen["spaces"] += line != line.strip()
        if name in self.labels:
            self.twice.append(name)
        self.labels.setdefault(name, match[1])


def table(work: Work, role: str) -> Table:
    """The table of labels with this role."""
    return work.kept(("table", role), lambda: Table(*work.handin.text(work.taken[role])))


@check
def labelled(work: Work, role: str, names: str, count: int, no_images: list) -> Iterator[Finding]:
    """There is one line with a label for each test file. Files that are no images may be left out.

    Args:
        names: how the test files are called, such as `test_hand_{:04d}.jpeg`.
        count: their number.
        no_images: files of the test folder that are no images.
    """
    found = table(work, role)
    wanted = [names.format(number) for number in range(1, count + 1)]
    problems = [
        *found.wrong,
        *(f"{n} is named more than once" for n in dict.fromkeys(found.twice)),
    ]
    missing = [name for name in wanted if name not in found.labels]
    unknown = sorted(found.labels.keys() - set(wanted))
    if not found.labels:
        yield fault("it has no line with a test file and a label")
        return
    if set(missing) - set(no_images):
        left = [name for name in missing if name not in no_images]
        yield fault(f"{len(left)} test files have no line: {some(left, 10)}")
    if unknown:
        yield fault(f"{len(unknown)} lines name files that do not exist: {some([printable(n) for n in unknown], 10)}")
    for problem in problems[:10]:
        yield fault(problem)
    if len(problems) > 10:
        yield fault(f"... and {len(problems) - 10} more lines")
    labels = Counter(label for label in found.labels.values() if label)
    yield ok(
        f"{len(found.labels)} files: " + ", ".join(f"{n} with label {label}" for label, n in sorted(labels.items()))
    )
    if len(labels) == 1 and len(found.labels) > 10:
        yield remark(f"all labels are {next(iter(labels))}")


@check
def table_form(work: Work, role: str) -> Iterator[Finding]:
    """The table is written as in the brief's example, in name order."""
    found = table(work, role)
    for note in found.notes:
        yield remark(note)
    if list(found.labels) != sorted(found.labels):
        yield remark("the lines are not in name order")
    if not found.notes:
        yield ok("as in the brief's example")
