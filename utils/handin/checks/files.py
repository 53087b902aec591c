"""Checks of any file of a hand-in: is it there, and does it have its name and its place? They yield findings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from utils.handin.briefs import check
from utils.handin.inspection import Failed, Finding, Unchecked, fault, folder_of, last_part, ok, remark, some, unchecked
from utils.handin.recognise import Work, named_like

COURSE_DATA = re.compile(r"real_hands|test_hands|raw_data|hands_cw|cw1_files|mednist|fashion|celeba|\.gz$", re.I)


@check
def present(work: Work, role: str) -> Iterator[Finding]:
    """The file is there, can be read, and is more than the template. Says which file was taken for it."""
    file = work.brief.files[role]
    problem = work.problem(role)
    if problem:
        hint = ""
        archives = [n for n in work.handin.archives if not COURSE_DATA.search(last_part(n))]
        if role not in work.taken and archives:
            yield unchecked(f"{problem}, but perhaps it is in {some(archives)}: unpack it, check again")
            return
        if role not in work.taken and file.kind == "notebook" and work.handin.notebooks:
            left = [n for n in work.handin.notebooks if n not in work.taken.values()]
            hint = f"; other notebooks: {some(left)}" if left else ""
        try:
            if role in work.taken:
                work.handin.read(work.taken[role])
        except Unchecked as error:
            yield unchecked(str(error))
            return
        except Failed:
            pass
        yield fault(problem + hint)
        return
    if file.kind == "images":
        groups = work.sample_groups(file)
        yield ok(", ".join(f"{len(names)} images in {place}" for place, names in groups.items()))
        return
    name = work.taken[role]
    if file.kind != "notebook":
        yield ok(name)
        return
    alike = [n for n in work.handin.notebooks if n not in work.taken.values() and last_part(n) == last_part(name)]
    beside = f"; not checked: {some(alike)}" if alike else ""
    yield ok(f"{name}, {len(work.cells(role))} cells{beside}")


@check
def code_there(work: Work, role: str) -> Iterator[Finding]:
    """There is code: a notebook, or Python files."""
    notebooks = [n for r, n in work.taken.items() if work.brief.files[r].kind == "notebook"]
    scripts = [n for n in work.handin.names if n.endswith(".py")]
    if notebooks or scripts:
        yield ok(some([last_part(n) for n in notebooks + scripts], 3))
    elif work.handin.archives:
        yield unchecked(f"there is no code, but perhaps it is in {some(work.handin.archives)}")
    else:
        yield fault("there are no notebooks and no Python files")


@check
def named(work: Work, role: str) -> Iterator[Finding]:
    """The file has the name that the brief asks for. Other capital letters, hyphens or spaces are a remark."""
    name, pattern = last_part(work.taken[role]), work.brief.files[role].names[0]
    if not named_like(name, pattern):
        yield fault(f"{name} was taken for it; the brief calls it {pattern.replace('*', '<username>')}")
    elif re.match(r"your_?username", name, re.I):
        yield fault(f"{name} still bears the template's username")
    elif not re.fullmatch(re.escape(pattern).replace(r"\*", ".+"), name):
        yield remark(f"{name} is written a little differently from {pattern.replace('*', '<username>')}")
    else:
        yield ok(name)


@check
def no_other_notebooks(work: Work, role: str) -> Iterator[Finding]:
    """There are no further notebooks for this brief."""
    if not work.usable("notebook"):
        yield unchecked("there are no notebooks for this brief that can be read")
    for name in work.spare:
        yield fault(f"{name} is a further notebook")


@check
def at_the_top(work: Work, role: str) -> Iterator[Finding]:
    """The file is not in a sub-folder."""
    name = work.taken[role]
    if folder_of(name) in work.tops:
        yield ok(folder_of(name) or "at the top")
    else:
        yield fault(f"it is in the folder {folder_of(name)}")
