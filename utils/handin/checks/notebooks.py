"""Checks of a notebook. A check gets the work and the role of the notebook, and yields findings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from utils.handin import source
from utils.handin.briefs import check
from utils.handin.checks.texts import PLACEHOLDER, headings, pieces
from utils.handin.inspection import Cell, Finding, fault, ok, remark, some, unchecked
from utils.handin.recognise import FIELD, LEAST_WORDS, Work, normal

MAX_BARE_CELLS = 6  # so many code cells in a row without a word in text or comments are a remark
LEAST_JUSTIFICATION = 10  # words
MOST_TITLE = 5  # words; a longer heading in an answer is a sentence of it
NEXT = re.compile(r"\b(data|import|librar|set-?up|load|install|network|design|implement|model|train|prepar)", re.I)
LOSS = re.compile(r"loss|entropy|elbo|objective|nll|\bmse\b|bits per|history|curves?\b|err_?[dg]\b", re.I)
LOSS_FIGURE = re.compile(  # a few words may stand between the two
    r"(loss|training|learning)\W+(\w+\W+){0,3}(plot|curve|evolution|graph|figure)"
    r"|(plot|curve|graph)s?\W+(\w+\W+){0,3}(loss|training)",
    re.I,
)


@check
def signed(work: Work, role: str) -> Iterator[Finding]:
    """Name, username and CID at the top are filled in."""
    texts = [cell for cell in work.cells(role)[:6] if not cell.code]
    seen: dict[str, str] = {}
    for cell in texts:
        for piece in pieces(cell.source):
            for field, value in FIELD.findall(piece.text):
                bracketed = re.search(rf"{field}\W*:\W*\[([^\]]*)\]", piece.text, re.I)
                seen.setdefault(field.lower(), normal(bracketed[1] if bracketed else value))
    own_template = seen.get("username") == "username"
    left = [f for f, v in seen.items() if not v or PLACEHOLDER.fullmatch(v) or set(v) == {"0"} or v == f]
    if not seen:
        yield unchecked("no line with a name was found at the top: check who the author is")
    elif own_template:
        yield unchecked("the author's name was not filled in: python -m utils rename USERNAME --name NAME --cid CID")
    elif left:
        yield fault(f"not filled in: {', '.join(left)}")
    else:
        yield ok(f"filled in: {', '.join(seen)}")


@check
def executed(work: Work, role: str) -> Iterator[Finding]:
    """Each cell shows the outputs that its code must have, and none ended in an error."""
    notebook = work.code(role)
    cells = [cell for cell in notebook.cells if work.own_lines(cell.source) and source.is_python(cell.source)]
    silent = [cell for cell in cells if not cell.outputs and notebook.must_show(cell)]
    for cell in cells:
        for error in cell.errors():
            if error == "KeyboardInterrupt" and cell.shows():
                yield remark(
                    f"code cell {cell.code_number} was interrupted by hand; check whether its training is complete"
                )
            elif error == "KeyboardInterrupt":
                yield fault(f"code cell {cell.code_number} was interrupted before it showed anything")
            else:
                yield fault(f"code cell {cell.code_number} ended in {error}: {_first_line(cell)}")
    if not cells:
        yield remark("it has no code of its own, so there is nothing to execute; check whether its text is enough")
    elif not any(cell.outputs for cell in cells):
        yield fault(f"none of its {len(cells)} code cells shows an output")
    elif silent:
        numbers = some([cell.code_number for cell in silent], 12)
        shows, its = ("shows", "its") if len(silent) == 1 else ("show", "their")
        what = f"{shows} no output, although {its} code prints or draws something"
        yield fault(f"{len(silent)} of {len(cells)} code cells {what}: {numbers}")
    else:
        yield ok(f"{len(cells)} code cells, {sum(bool(cell.outputs) for cell in cells)} with outputs")
    unsure = [
        c for c in cells if c.count is None and not c.outputs and c not in silent and _does_something(notebook, c)
    ]
    counted = sum(cell.count is not None for cell in cells)
    if unsure and counted > len(cells) / 2 and any(cell.outputs for cell in cells):
        numbers = some([cell.code_number for cell in unsure], 12)
        yield remark(f"{len(unsure)} code cells have neither a number nor an output; perhaps not executed: {numbers}")
    broken = [cell.code_number for cell in cells if notebook.trees[cell.number] is None and not cell.errors()]
    if broken:
        yield remark(f"code cells that are not valid Python: {some(broken)}")


def _first_line(cell: Cell) -> str:
    return cell.source.strip().splitlines()[0][:60]


def _does_something(notebook: source.Notebook, cell: Cell) -> bool:
    """Is there more in the cell than imports, definitions and IPython's own lines?"""
    tree = notebook.trees[cell.number]
    quiet = (ast.Import, ast.ImportFrom, *source.FUNCTIONS, ast.ClassDef, ast.Pass)
    return tree is not None and any(not isinstance(statement, quiet) for statement in tree.body)


@check
def in_order(work: Work, role: str) -> Iterator[Finding]:
    """The cells were executed once, from top to bottom."""
    cells = [cell for cell in work.cells(role) if cell.code]
    counts = [cell.count for cell in cells if cell.count is not None]
    if not cells:
        yield ok("it has no code cells")
    elif not counts:
        yield remark("no execution numbers were saved, so the order of execution cannot be seen")
    elif len(counts) <= len(cells) / 2:
        yield remark(f"{len(cells) - len(counts)} of {len(cells)} code cells have no execution number")
    elif counts != list(range(counts[0], counts[0] + len(counts))):
        yield remark(f"not executed once from top to bottom: the numbers are {some(counts, 12)}")
    else:
        yield ok(f"numbers {counts[0]} to {counts[-1]}")


@check
def explained(work: Work, role: str) -> Iterator[Finding]:
    """There are words of the student's own between the code cells. Comments count."""
    words = in_a_row = longest = 0
    for cell in work.cells(role):
        if cell.code:
            lines = source.comments("\n".join(work.own_lines(cell.source)))
        else:
            lines = [p.text for p in pieces(cell.source) if not work.is_template(p.text) and not FIELD.match(p.text)]
            lines = [line for line in lines if not PLACEHOLDER.fullmatch(normal(line))]
        new = sum(len(normal(line).split()) for line in lines)
        words += new
        in_a_row = in_a_row + 1 if cell.code and not new else 0
        longest = max(longest, in_a_row)
    if words < LEAST_WORDS:
        yield fault(f"only {words} words explain the code, in text cells and comments together")
        return
    yield ok(f"{words} words in text cells and comments")
    if longest > MAX_BARE_CELLS:
        yield remark(f"{longest} code cells in a row have neither text nor comments")


@check
def justified(work: Work, role: str, heading: str, least_words: int = LEAST_JUSTIFICATION) -> Iterator[Finding]:
    """Below the heading that matches, there is an answer of the student's own."""
    inside, own, seen, level = False, [], False, 0
    for cell in work.cells(role):
        if cell.code:
            if inside and own:
                break
            continue
        for piece in pieces(cell.source):
            if piece.kind == "heading" and re.search(heading, piece.text, re.I):
                inside, seen, level = True, True, piece.level
                continue
            if piece.kind == "heading" and piece.level <= max(level, 2) and _is_title(work, piece.text):
                inside = False
            text = re.sub(r"^\W*answer\W*", "", piece.text, flags=re.I)
            if inside and not work.is_template(text) and not PLACEHOLDER.fullmatch(normal(text)):
                own.append(text)
    count = sum(len(normal(text).split()) for text in own)
    if not seen:
        yield unchecked("there is no such heading, so the answer must be looked for by eye")
    elif count < least_words:
        yield fault("it is unanswered" if count < 3 else f"the answer has only {count} words")
    else:
        yield ok(f"{count} words")


def _is_title(work: Work, heading: str) -> bool:
    """Is it the title of the next section, and no part of an answer, such as 'Why a GAN' or a whole sentence?"""
    return work.is_template(heading) or (len(heading.split()) <= MOST_TITLE and bool(NEXT.search(heading)))


@check
def from_scratch(work: Work, role: str) -> Iterator[Finding]:
    """The code loads no pre-trained weights, in the notebook or in the modules that it imports."""
    notebook = work.code(role)
    trees = {f"code cell {c.code_number}": notebook.trees[c.number] for c in notebook.cells}
    trees = {place: tree for place, tree in trees.items() if tree is not None}
    wanted = source.imports(list(trees.values()))
    for name in work.handin.names:
        parts = name.removesuffix(".py").split("/")
        if name.endswith(".py") and any(".".join(parts[i:]) in wanted for i in range(len(parts))):
            tree = work.module(name)
            if tree is not None:
                trees[name] = tree
    found = source.pretrained(trees)
    for place, code, for_a_measure in found:
        if for_a_measure:
            yield remark(f"{place}: {code} (pre-trained; is it only used as a measure?)")
        else:
            yield fault(f"{place}: {code}")
    if not found:
        yield ok("no code that loads pre-trained weights")


@check
def own_network(work: Work, role: str) -> Iterator[Finding]:
    """The network is not taken from torchvision."""
    trees = [tree for tree in work.code(role).trees.values() if tree is not None]
    for name in source.library_networks(trees):
        yield fault(f"it uses torchvision's {name}")


@check
def loss_plot(work: Work, role: str) -> Iterator[Finding]:
    """A code cell shows a picture, and its code or outputs mention the loss, or a text next to it a loss curve."""
    every, notebook = work.cells(role), work.code(role)
    shown = [cell for cell in every if cell.code and cell.pictures()]
    for cell in shown:
        beside = " ".join(o.source for o in every[max(0, cell.number - 2) : cell.number + 1] if not o.code)
        if LOSS.search(notebook.near(cell) + cell.output_texts()[:5000]) or LOSS_FIGURE.search(beside):
            yield ok(f"code cell {cell.code_number}")
            return
    texts = [piece for cell in every if not cell.code for piece in pieces(cell.source)]
    for piece in texts:
        if piece.figures and (LOSS.search(piece.text) or any(LOSS.search(address) for address in piece.figures)):
            yield unchecked("a picture in a text cell may show the loss: look at it yourself")
            return
    yield fault("no code cell shows a picture of a loss" if shown else "no code cell shows a picture")


@check
def sections(work: Work, role: str, titles: list) -> Iterator[Finding]:
    """There is a heading for each title, given as `title: regular expression`. Another order is a remark."""
    found = [text for cell in work.cells(role) if not cell.code for text in headings(cell.source)]
    places = []
    for title in titles:
        name, _, pattern = title.partition(":")
        place = next((i for i, text in enumerate(found) if re.search(pattern.strip(), text, re.I)), None)
        if place is None:
            yield fault(f"there is no section '{name}'")
        else:
            last = max(i for i, text in enumerate(found) if re.search(pattern.strip(), text, re.I))
            places.append((place, last, name))
    for (place, _, name), (_, last, following) in zip(places, places[1:]):
        if last < place:
            yield remark(f"'{following}' comes before '{name}'")
    if len(places) == len(titles):
        yield ok(f"{len(titles)} sections")


@check
def questions_answered(work: Work, role: str, titles: list) -> Iterator[Finding]:
    """Below the heading of each title, there is code of the student's own with an output."""
    current, code, shown = "", dict[str, int](), set[str]()
    for cell in work.cells(role):
        if not cell.code:
            for text in headings(cell.source):
                for title in titles:
                    name, _, pattern = title.partition(":")
                    if re.search(pattern.strip(), text, re.I):
                        current = name
                        code.setdefault(name, 0)
        elif current:
            own = [line for line in work.own_lines(cell.source) if not line.lstrip().startswith("#")]
            code[current] += len(own)
            if own and cell.shows():
                shown.add(current)
    for title in titles:
        name = title.partition(":")[0]
        if name not in code:
            yield unchecked(f"{name}: there is no such heading")
        elif code[name] < 2:
            yield fault(f"{name} is unanswered: it has no code of its own")
        elif name not in shown:
            yield remark(f"{name}: none of its cells shows an output")
    if code:
        yield ok(", ".join(f"{name}: {lines} lines" for name, lines in code.items()))


@check
def mentions(work: Work, role: str, things: list) -> Iterator[Finding]:
    """The notebook mentions each of the things, given as `name: regular expression`."""
    text = "\n".join(cell.source for cell in work.cells(role))
    for word in things:
        name, _, pattern = word.partition(":")
        if not re.search(pattern.strip(), text, re.I):
            yield fault(f"no {name} was found")
