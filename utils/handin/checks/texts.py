"""Reads Markdown with a parser, and checks texts: references, answers, the report, and the place of the code.

A check gets the work and the role of a file. It yields findings: what is right, faults, remarks, and what it cannot
know.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt

from utils.handin import source
from utils.handin.briefs import check
from utils.handin.inspection import Finding, fault, folder_of, last_part, ok, remark, some, unchecked
from utils.handin.recognise import Work, normal

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
QUESTION = re.compile(r"\W*(?:question|q)\W*(\d)\b", re.I)
ANSWER = re.compile(
    r"\W*(?:my\s+)?ans(?:wer)?\b\W*(?:to\b|for\b|of\b)?\W*(?:the\b)?\W*(?:question|q)?\W*(\d)?\b[\W_]*", re.I
)
SOURCES = re.compile(r"\W*(references?|bibliography|sources|works cited)\W*$", re.I)
PLACEHOLDER = re.compile(
    r"(your|the) (answer|text|name|cid|username)( here| goes here)?|reference \d+|etc|todo|tbc|tba"
)
IMAGE_TAG = re.compile(r"""<img\b[^>]*?\bsrc\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.I)
SIGNED = re.compile(r"\W*(student )?(name|cid|username)\b", re.I)  # in a table, the student's own is beside it
LEAST_ANSWER = 5  # words; with fewer, a question is not answered


class Piece(NamedTuple):
    """A line of a Markdown text, as a reader sees it.

    Attributes:
        kind: heading, text, cell, code or html.
        level: of a heading, from 1; otherwise 0.
        text: without any marks.
        strong: does it begin in bold?
        italic: is all of it in italics?
        figures: the addresses of its pictures.
    """

    kind: str
    level: int
    text: str
    strong: bool = False
    italic: bool = False
    figures: tuple[str, ...] = ()


@lru_cache(maxsize=500)
def pieces(text: str) -> tuple[Piece, ...]:
    """The lines of a Markdown text. HTML tags and comments are left out, and a table is one figure named `table`."""
    text = re.sub(r"^(#{1,6})(?=[^\s#!])", r"\1 ", text, flags=re.M)  # '###Answer' is meant as a heading
    found: list[Piece] = []
    level, cell = 0, False
    for token in PARSER.parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        elif token.type in ("th_open", "td_open"):
            cell = True
        elif token.type in ("th_close", "td_close"):
            cell = False
        elif token.type == "table_open":
            found.append(Piece("cell", 0, "", figures=("table",)))
        elif token.type in ("fence", "code_block"):
            drawn = ("diagram",) if token.info.strip().lower().startswith(("mermaid", "dot", "plantuml")) else ()
            found.append(Piece("code", 0, "" if drawn else token.content, figures=drawn))
        elif token.type == "html_block":
            found += _html(token.content)
        elif token.type == "inline":
            found += _inline(token.children or [], "heading" if level else "cell" if cell else "text", level)
    return tuple(found)


def _image_tags(content: str) -> list[str]:
    """The addresses of the pictures in HTML."""
    return [html.unescape("".join(match.groups(""))) for match in IMAGE_TAG.finditer(content)]


def _html(content: str) -> list[Piece]:
    """The lines of a block of HTML."""
    content = re.sub(r"<!--.*?(-->|\Z)", " ", content, flags=re.S)
    found = []
    for line in content.splitlines():
        figures = tuple(_image_tags(line))
        heading = re.search(r"<h([1-6])\b", line, re.I)
        tables = ("table",) * len(re.findall(r"<table\b", line, re.I))
        plain = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", line)).split())
        if plain or figures or tables:
            kind = "heading" if heading else "html"
            found.append(Piece(kind, int(heading[1]) if heading else 0, plain, False, False, figures + tables))
    return found


class _Line:
    """A line that is being read: its text, its text without italics, whether it begins in bold, and its figures."""

    def __init__(self):
        self.text = self.upright = ""
        self.strong = False
        self.figures: list[str] = []


def _inline(children: list, kind: str, level: int) -> list[Piece]:
    """The lines of a paragraph, a heading or a cell of a table."""
    lines, strong, italic = [_Line()], 0, 0
    for child in children:
        line, tag = lines[-1], child.content.lower() if child.type == "html_inline" else ""
        if child.type in ("softbreak", "hardbreak") or (tag.startswith("<br") and kind == "text"):
            lines.append(_Line())
        elif child.type in ("strong_open", "strong_close"):
            strong += child.nesting
        elif child.type in ("em_open", "em_close"):
            italic += child.nesting
        elif child.type == "image":
            line.figures.append(str(child.attrs.get("src", "")))
        elif child.type == "html_inline":
            line.figures += _image_tags(child.content)
            line.text += " " if tag.startswith(("<br", "<img", "<p", "</p", "<td", "<li")) else ""
        elif child.content:
            if not line.text.strip() and child.content.strip():
                line.strong = strong > 0
            line.text += child.content
            line.upright += "" if italic else child.content
    return [
        Piece(
            kind, level, li.text.strip(), li.strong, not li.upright.strip() and bool(li.text.strip()), tuple(li.figures)
        )
        for li in lines
        if li.text.strip() or li.figures
    ]


def headings(text: str) -> list[str]:
    """The headings of a text: those of Markdown and HTML, and lines that are all bold."""
    return [p.text for p in pieces(text) if p.kind == "heading" or (p.strong and len(p.text.split()) < 12)]


def count_words(found: list[Piece]) -> tuple[int, int]:
    """The number of words, counted strictly and generously.

    The generous number leaves out what need not count as a word: numbers, marks of references, and captions.
    """
    strict = generous = 0
    for piece in found:
        tokens = [word for word in piece.text.split() if re.search(r"\w", word)]
        strict += len(tokens)
        if not re.match(r"\W*(fig(ure)?|table)\.?\s*\d+\s*[:.]", piece.text, re.I):
            generous += sum(bool(re.search(r"[^\W\d_]", re.sub(r"\[\d+\]", "", word))) for word in tokens)
    return generous, strict


def figures(work: Work, name: str, found: list[Piece]) -> tuple[int, list[str]]:
    """The number of figures and tables in a text, and the addresses of pictures that are not in the hand-in."""
    shown = [address for piece in found for address in piece.figures]
    lost = []
    known = {n.lower() for n in work.handin.names}
    for address in shown:
        if address in ("table", "diagram") or re.match(r"\w+:|//", address):
            continue
        path = unquote(address).replace("\\", "/").split("#")[0].split("?")[0]
        parts: list[str] = [] if path.startswith("/") else [p for p in folder_of(name).split("/") if p]
        for part in path.split("/"):
            if part == ".." and parts:
                parts.pop()
            elif part not in ("", ".", ".."):
                parts.append(part)
        if "/".join(parts).lower() not in known:
            lost.append(address)
    return len(shown), lost


def answers(text: str, work: Work) -> dict[int, list[Piece]]:
    """The answer to each numbered question in a text. It is found under a label, or below the question itself."""
    labelled: dict[int, list[Piece]] = {}
    below: dict[int, list[Piece]] = {}
    number, answering, level, around = 0, False, 0, 0
    for piece in pieces(text):
        is_label = (
            piece.kind == "heading"
            or piece.strong
            or re.match(r"\W*ans\w*\W{0,3}(to )?\w*\s*\d?\W*:", piece.text, re.I)
        )
        answer = ANSWER.match(piece.text) if is_label and piece.kind != "cell" else None
        question = QUESTION.match(piece.text) if is_label and (level == 0 or piece.kind == "heading") else None
        if answer and (answer[1] or number):
            number, answering = int(answer[1] or number), True
            level = piece.level or around
            labelled.setdefault(number, [])
            rest = piece.text[answer.end() :]
            if rest and piece.kind != "heading":
                labelled[number].append(piece._replace(text=rest, strong=False))
            continue
        if question and len(piece.text.split()) < 12:
            number, answering, level = int(question[1]), False, piece.level
            below.setdefault(number, [])
            continue
        ends = piece.kind == "heading" and (piece.level <= level or not number)
        if ends or (number and SOURCES.match(piece.text) and (piece.kind == "heading" or piece.strong)):
            number, answering, level = 0, False, 0
        if piece.kind == "heading":
            around = around if answering else piece.level
        if number:
            (labelled if answering else below).setdefault(number, []).append(piece)
    found = {}
    for n in labelled.keys() | below.keys():
        every = labelled.get(n) or below.get(n, [])
        own = [p for p in every if not work.is_template(p.text) and not PLACEHOLDER.fullmatch(normal(p.text))]
        if own and (own[0].italic and own[0].text.rstrip(" *_").endswith("?")):
            own = own[1:]  # the question itself
        found[n] = own
    return found


@check
def answered(work: Work, role: str, question: int, most_words: int, figures_allowed: int = 99) -> Iterator[Finding]:
    """The text answers a question, in at most so many words, with at most so many figures and tables."""
    name = work.taken[role]
    found = answers(work.handin.text(name)[0], work)
    if question not in found:
        yield fault(f"{last_part(name)} has no question {question}, and no answer to it")
        return
    least, count = count_words(found[question])
    if count < LEAST_ANSWER:
        yield fault(f"question {question} is unanswered")
        return
    if least > most_words:
        yield fault(f"{least} words: {least - most_words} too many")
    elif count > most_words:
        yield remark(f"{least} words, or {count} if numbers, captions and citation marks count too")
    else:
        yield ok(f"{count} words")
    number, lost = figures(work, name, found[question])
    if number > figures_allowed:
        verb = "is" if figures_allowed == 1 else "are"
        yield fault(f"{number} figures and tables, but at most {figures_allowed} {verb} allowed")
    for address in lost:
        yield remark(f"it shows {address[:80]}, which is not in the hand-in")


@check
def by_hand(work: Work, role: str, how: str) -> Iterator[Finding]:
    """Something that no file shows. The line says how it can be checked."""
    yield unchecked(how)


@check
def references(work: Work, role: str) -> Iterator[Finding]:
    """The file lists sources of the student's own."""
    name = work.taken[role]
    text, notes = work.handin.text(name)
    every = pieces(text)
    lines = [p.text for p in every if p.kind != "heading"]
    signed = [
        after
        for before, after in zip(every, every[1:])
        if before.kind == after.kind == "cell" and SIGNED.match(before.text)
    ]
    own = [p.text for p in every if p.kind != "heading" and p not in signed and not SIGNED.match(p.text)]
    own = [line for line in own if not work.is_template(line) and not PLACEHOLDER.fullmatch(normal(line))]
    sources = [line for line in own if len(normal(line)) > 8 and not re.fullmatch(r"[\d\W]*", line)]
    if not sources:
        yield fault(f"{last_part(name)} lists no source: it is the untouched template, or empty")
        return
    yield ok(f"{len(sources)} lines")
    if any(PLACEHOLDER.fullmatch(normal(line)) for line in lines):
        yield remark(f"{last_part(name)} still has placeholders of the template")
    for note in notes:
        yield remark(f"{last_part(name)}: {note}")


@check
def one_utils(work: Work, role: str) -> Iterator[Finding]:
    """The modules that the notebooks import are in one folder called utils."""
    notebooks = work.usable("notebook")
    trees = [tree for r in notebooks for tree in work.code(r).trees.values() if tree is not None]
    wanted = source.imports(trees)
    outside = []
    scripts = [n for n in work.handin.names if n.endswith(".py")]
    for script in scripts:
        parts = script.removesuffix("/__init__.py").removesuffix(".py").split("/")
        dotted_names = {".".join(parts[i:]) for i in range(len(parts))}
        if dotted_names & wanted and "utils" not in script.split("/")[:-1]:
            outside.append(script)
    if outside:
        yield fault(f"notebooks import {some(outside)}, outside utils/")
    elif not notebooks:
        yield unchecked("there is no notebook whose imports can be read")
    else:
        yield ok("all modules are in utils/" if scripts else "there are no modules")


@check
def report(work: Work, role: str, parts: list, usual_words: list, possible_words: list) -> Iterator[Finding]:
    """The report deals with each part, shows figures, and has about the right length.

    Args:
        parts: for each part its name and a regular expression, as `name: expression`.
        usual_words: the usual smallest and largest number of words. Outside of them is a remark.
        possible_words: the smallest and largest number that could still be meant. Outside of them is a fault.
    """
    name = work.taken[role]
    if not name.lower().endswith((".md", ".txt")):
        yield unchecked(f"{last_part(name)} must be read by eye: its text cannot be read here")
        return
    text, notes = work.handin.text(name)
    found = list(pieces(text))
    plain = " ".join(piece.text for piece in found)
    missing = [p.partition(":")[0] for p in parts if not re.search(p.partition(":")[2].strip(), plain, re.I)]
    for part in missing:
        yield fault(f"it says nothing about {part}")
    number, lost = figures(work, name, found)
    if not number:
        yield fault("it shows no figure, so no training curve")
    for address in lost:
        yield fault(f"it shows {address[:80]}, which is not in the hand-in")
    _, count = count_words(found)
    if not possible_words[0] <= count <= possible_words[1]:
        yield fault(f"{count} words; about two pages are {usual_words[0]} to {usual_words[1]}")
    elif not usual_words[0] <= count <= usual_words[1]:
        yield remark(f"{count} words; about two pages are {usual_words[0]} to {usual_words[1]}")
    else:
        yield ok(f"{count} words, {number} figures and tables")
    for note in notes:
        yield remark(note)
