"""Turns notebooks and Markdown texts into pages of the site, with formulas, contents and a switch for the code."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import nbformat
from latex2mathml import converter
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from PIL import Image
from pygments.formatters import HtmlFormatter

from utils.notebooks import pages

LARGEST = 2_900_000  # bytes of a page; with more, its pictures are compressed with small losses
QUALITY = 90  # of these pictures
SWITCH = '<label class="switch"><input type="checkbox" id="code">Show the code</label>'
FORMULA = re.compile(
    r"(?P<code><(?P<tag>code|pre)\b.*?</(?P=tag)>)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.S
)
FIGURE = re.compile(r"[^.!?]*\b(?:figures?|drawing|histogram|curves?|rows?|panels?)\b[^.!?]*[.!?]", re.I)


def compressed(page: str, **options) -> str:
    """The page with its embedded PNGs as WebP. `options` are Pillow's; `lossless=True` keeps every pixel."""

    def webp(match: re.Match) -> str:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(match[1]))).save(buffer, "WEBP", **options)
        return f'"{pages.address(buffer.getvalue(), "webp")}"'

    return re.sub(r'"data:image/png;base64,([^"]+)"', webp, page)


def smaller(page: str) -> str:
    """The page with the same pixels in about half the bytes, or with small losses if that is still too large."""
    lossless = compressed(page, lossless=True)
    return lossless if len(lossless) <= LARGEST else compressed(page, quality=QUALITY)


def formulas(text: str) -> str:
    """HTML in which the formulas between dollar signs are MathML, which browsers show without a program."""

    def mathml(match: re.Match) -> str:
        if match["code"]:
            return match[0]
        tex = html.unescape(match["block"] or match["inline"])
        tex = re.sub(r"\\[bB]igg?[lrm]?(?![a-zA-Z])", "", tex)  # sizes of brackets
        return converter.convert(tex, display="block" if match["block"] else "inline")

    return FORMULA.sub(mathml, text)


def markdown(text: str) -> str:
    """Markdown as HTML, with formulas, and with tables that can be scrolled."""
    shown = formulas(markdown2html_mistune(text))
    return re.sub(r"(<table.*?</table>)", r'<div class="table">\1</div>', shown, flags=re.S)


def describe_figures(notebook: nbformat.NotebookNode) -> None:
    """Give each figure a text for those who cannot see it: its section, and what the text above says about it."""
    heading, said = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ +(.+)$", cell.source, re.M) or [heading])[-1]
            plain = " ".join(re.sub(r"^#.*$|[*`|$\\]", "", cell.source, flags=re.M).split())
            said = " ".join(sentence.strip() for sentence in FIGURE.findall(plain)[:2])
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.metadata["alt"] = " ".join(filter(None, [f"Figure in section {heading}.", said]))


def contents(body: str) -> str:
    """The table of contents of a page: its headings of the levels 2 and 3, as HTML."""
    found = re.findall(r'<h([23]) id="([^"]+)">(.*?)(?:<a class="anchor-link".*?)?</h\1>', body, re.S)
    lines = (
        f'<li{" class=below" if level == "3" else ""}><a href="#{place}">{re.sub("<.*?>", "", title)}</a></li>'
        for level, place, title in found
    )
    return f'<nav class="contents" aria-label="Contents"><strong>Contents</strong><ol>{"".join(lines)}</ol></nav>'


def code_style() -> str:
    """The colours of code, in light and in dark."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight {{ background: none; }}\n"


def title_of(text: str) -> str:
    """The first heading of a Markdown text, without marks."""
    return re.sub(r"[*`]", "", re.search(r"^#+ +(.+)$", text, re.M)[1])


def notebook_page(path: Path) -> str:
    """A notebook as HTML that loads nothing from the network, with a table of contents and a switch for the code."""
    notebook = nbformat.read(path, as_version=4)
    describe_figures(notebook)
    exporter = HTMLExporter(template_name="basic")
    exporter.register_filter("markdown2html", markdown)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<style(?: scoped=\"\")?>.*?</style>|<script.*?</script>", "", body, flags=re.S)
    body = f'<div class="notebook">{contents(body)}<main>{body}</main></div>'
    links = f"{pages.HOME} {SWITCH}"
    return smaller(pages.page(title_of(notebook.cells[0].source), body, code_style(), links))


def document_page(text: str) -> str:
    """A Markdown text as a page."""
    return pages.page(title_of(text), f"<main>{markdown(text)}</main>")
