"""The figures of the README and of docs/results.md are printed by the notebooks that they name, or cited."""

import html
import json
import re
from pathlib import Path

import nbformat
import pytest

from utils import config
from utils.data import hand_images, labelled_hands

NUMBER = re.compile(r"(?<![\w.,/-])[-+]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?( ?%)?(?![\w/])")
README = (config.PROJECT / "README.md").read_text(encoding="utf-8")
RESULTS = (config.PROJECT / "docs" / "results.md").read_text(encoding="utf-8")
PUBLIC = (config.PROJECT / "references.md").read_text(encoding="utf-8").split("## Public figures")[1].split("\n## ")[0]


def figures(text: str) -> list[tuple[str, float, int]]:
    """The measured figures in a text: what is written, the value, and the number of decimals.

    Whole numbers without a percent sign are counts, such as 300 images, and are left out.
    """
    found = []
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "]", text)
    text = re.sub(r"([\d.]+) (± [\d.]+ %)", r"\1 % \2", text)  # both are percentages
    text = re.sub(r"([\d.]+) \[([\d.]+), ([\d.]+)\] %", r"\1 % [\2 %, \3 %]", text)
    for match in NUMBER.finditer(text):
        whole, decimals, percent = match.groups()
        if decimals or percent:
            value = float(whole.replace(",", "") + (decimals or ""))
            found.append(
                (match[0].strip(), value / 100 if percent else value, len(decimals or ".") - 1 + 2 * bool(percent))
            )
    return found


def printed(notebook: Path, sections: list[str]) -> list[str]:
    """The lines that a notebook prints in sections such as 6.4, or in all. Tables that were wrapped are joined."""
    lines, number = [], ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            number = (re.findall(r"^#+ (?:Question )?(\d+(?:\.\d+)*)", cell.source, re.M) or [number])[-1]
        elif not sections or any(number == wanted or number.startswith(f"{wanted}.") for wanted in sections):
            for output in cell.outputs:
                data = output.get("data", {})
                text = output.get("text") or data.get("text/plain", "")
                if "Styler" in text:
                    rows = re.findall(r"<tr>.*?</tr>", data.get("text/html", ""), re.S)
                    text = "\n".join(html.unescape(re.sub(r"<[^>]+>", " ", row)).replace("\n", " ") for row in rows)
                lines += text.splitlines()
    results = notebook.with_name("results.json")
    return lines + (stored(json.loads(results.read_text(encoding="utf-8"))) if results.is_file() else [])


def stored(results: dict, name: str = "results") -> list[str]:
    """A line for each part of a file of results, as if it were printed: its name, then its numbers."""
    lines = [f"{name}  {'  '.join(str(value) for value in results.values() if isinstance(value, int | float))}"]
    for key, value in results.items():
        lines += stored(value, key) if isinstance(value, dict) else []
    return lines


def values(lines: list[str]) -> list[float]:
    """All numbers in printed lines; a percentage also as a share."""
    found = []
    for match in re.finditer(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(%?)", "\n".join(lines)):
        value = float(match[0].rstrip("%").replace(",", ""))
        found += [value, value / 100] if match[1] else [value]
    return found


def by_label(lines: list[str]) -> dict[str, list[float]]:
    """The numbers in printed lines, by the words with which the lines begin: the rows of tables."""
    found: dict[str, list[float]] = {}
    for line in lines:
        if match := re.match(r" *([^\d\s].*?)(?:  +|$)", line):
            found.setdefault(match[1], []).extend(values([line[match.end() :]]))
    return found


def is_among(value: float, decimals: int, found: list[float]) -> bool:
    """Is a rounded value one of these numbers? A share may be printed as a share or in percent."""
    near = 0.5001 * 10**-decimals
    return any(abs(abs(x) - value) <= near or abs(abs(x) - 100 * value) <= 100 * near for x in found)


def paragraphs() -> list[tuple[str, Path, list[str], str]]:
    """Each line of docs/results.md: its section, the notebook that prints it, the notebook's sections, and the line."""
    found = []
    for part in RESULTS.split("\n## ")[1:]:
        title = part.splitlines()[0]
        said = re.search(r"Printed by \[[^\]]+\]\(([^)]+)\), sections? ([\d., and]+)", part)
        assert said, f"docs/results.md, '{title}': no sentence 'Printed by [NOTEBOOK](PATH), section N'"
        notebook = config.PROJECT / "docs" / said[1]
        sections = re.findall(r"\d+(?:\.\d+)*", said[2])
        lines = [line for line in part.splitlines() if line.startswith(("|", "-"))]
        found += [(title, notebook, sections, line) for line in lines]
    return found


@pytest.mark.parametrize("title", [part.splitlines()[0] for part in RESULTS.split("\n## ")[1:]])
def test_every_figure_of_the_results_is_printed_by_its_notebook_or_cited(title):
    public = values([PUBLIC])
    for section, notebook, sections, line in paragraphs():
        if section == title:
            known = values(printed(notebook, sections))
            assert known, f"docs/results.md, '{title}': {notebook.name} prints nothing in {sections}"
            wrong = [said for said, value, decimals in figures(line) if not is_among(value, decimals, known + public)]
            assert not wrong, (
                f"docs/results.md, '{title}': {notebook.name} does not print {wrong} in {sections}: {line}"
            )


def rows() -> list[list[str]]:
    """The cells of the README's table of results."""
    table = README[README.index("\n## Results") :]
    return [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\|(.+)\|$", table, re.M)[2:7]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", " ", row[0])[:25])
def test_every_figure_of_the_readme_is_printed_by_its_notebook_or_cited(row):
    name, _, ours, floor, public = row
    notebook = config.PROJECT / re.search(r"\]\(([^)]+)\)", name)[1]
    known = values(printed(notebook, []))
    assert figures(ours)
    for column, cell, sources in (
        ("ours", ours, known),
        ("floor", floor, known),
        ("public", public, known + values([PUBLIC])),
    ):
        wrong = [said for said, value, decimals in figures(cell) if not is_among(value, decimals, sources)]
        where = f"{notebook.name}" if column != "public" else f"{notebook.name} or references.md"
        assert not wrong, f"README.md, Results, row '{name}', column '{column}': {wrong} is not in {where}"
    for said, *_ in figures(ours):
        assert said.removesuffix(" %") in RESULTS, (
            f"README.md, Results, row '{name}': docs/results.md does not have {said}"
        )


def test_a_wrong_figure_is_found():
    known = values(["GAN, the 300   6.317  1.009", "right: 84.4% of 302"])
    wanted = figures("6.3, 84 % and 84.4 %, but not 6.4 or 85 %; 300 images, [6.9](a_6.9.md), `lr 0.5`")
    assert [said for said, value, decimals in wanted if not is_among(value, decimals, known)] == ["6.4", "85 %", "6.9"]


def test_the_figures_of_coursework_2_are_cited_with_all_that_limits_them():
    assert "73 images" in PUBLIC and "glow" in PUBLIC.lower() and "benchmarks.students" in PUBLIC


@pytest.mark.skipif(
    hand_images.kind() != "course" or not labelled_hands.has_course_fakes(config.PROJECT),
    reason="the course's images are not here",
)
@pytest.mark.slow
def test_the_distances_of_students_hands_are_those_of_the_benchmark(monkeypatch):
    monkeypatch.setenv("PROFILE", "full")
    from benchmarks import students

    for kind, distances in students.measure().items():
        if kind.startswith("students'"):
            for distance in distances.values():
                assert f"{distance:.1f}" in PUBLIC, (kind, distance)


def test_the_readme_is_short():
    assert len(README.split("\n## Answer to question 1")[0]) <= 9000


def sentences(path: Path) -> set[str]:
    """The sentences of a page with eight words or more, without marks and addresses."""
    text = re.sub(r"```.*?```|\]\([^)]*\)|[*`\[\]!|]", " ", path.read_text(encoding="utf-8"), flags=re.S)
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.!?:;])\s|\n", text))
    return {sentence for sentence in found if len(sentence.split()) >= 8}


def test_no_sentence_stands_on_two_pages():
    owner: dict[str, str] = {}
    for path in (config.PROJECT / "README.md", *sorted((config.PROJECT / "docs").glob("*.md"))):
        for sentence in sentences(path):
            assert sentence not in owner, f"{path.name} and {owner[sentence]}: {sentence}"
            owner[sentence] = path.name
