"""Makes a static site from the executed notebooks. It opens from disk and needs no network.

The first page is the README. Each notebook has a page, and the report of the final assignment has one too. If there
are real hands, there is also a test by eye.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from PIL import Image

from utils.config import TASKS
from utils.handin import export
from utils.notebooks import eye_test

DOCUMENTS = ("fashion_mnist/report.md",)  # other pages; their pictures are in figures/ in the same folder
FIRST, LAST = "# ", "\n## The data"  # the README is shown from FIRST up to LAST
EYE_TEST = (
    f"\n\n## Real or generated?\n\n[Test your eye]({eye_test.PAGE}): {2 * eye_test.COUNT} hands, one after the other."
)
NO_EYE_TEST = (
    f"\n\n## Real or generated?\n\nThe test by eye was left out: it needs {eye_test.COUNT} real hands in `real_hands/` "
    f"(`python -m utils data`) and {eye_test.COUNT} of ours in `GAN_hands/`."
)
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; }
.anchor-link { display: none; }
a { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
pre, .table { overflow-x: auto; }
pre { background: #8882; padding: .6rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: left; }
@media print { body { max-width: none; padding: 0; } a { color: inherit; } table { break-inside: avoid; } }
"""
MARK = '<meta name="generator" content="python -m utils report">'  # only a folder with this page is replaced
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
# Added to the pages of the notebooks, so that a phone can show them.
NARROW = """<style>
.jp-OutputArea-output, .jp-RenderedHTMLCommon table { overflow-x: auto; max-width: 100%; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
@media (max-width: 50rem) { .jp-InputPrompt, .jp-OutputPrompt { display: none; } main { padding: 0 .4rem; } }
</style>"""


def page_of(name: str) -> str:
    """The file name of the page for a notebook or document."""
    return Path(name).stem.replace(" ", "_") + ".html"


def smaller(page: str) -> str:
    """The page with its PNGs as lossless WebP, which has the same pixels in about half the bytes."""

    def webp(match: re.Match) -> str:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(match[1]))).save(buffer, "WEBP", lossless=True)
        return f'"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"'

    return re.sub(r'"data:image/png;base64,([^"]+)"', webp, page)


def notebook_page(path: Path) -> str:
    """A notebook as HTML that loads nothing from the network."""
    exporter = HTMLExporter(
        template_name="lab", mathjax_url="", require_js_url="", jquery_url="", widget_renderer_url=""
    )
    body, _ = exporter.from_notebook_node(nbformat.read(path, as_version=4))
    body = re.sub(r"<script[^>]*\bsrc=[^>]*>\s*</script>", "", body)
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    back = '<p style="padding: .6rem 1rem; margin: 0"><a href="index.html">All courseworks</a></p>'
    body = body.replace("</head>", f"{viewport}{NARROW}</head>", 1)
    return smaller(re.sub(r"(<body[^>]*>)", rf"\1{back}", body, count=1))


def page(shown: str, pages: dict[str, str], folder: Path) -> str:
    """Markdown as an HTML page.

    Args:
        shown: the Markdown text.
        pages: for each file, the page that a link to it opens instead.
        folder: the folder of the page. Links to files that are not in it become plain text.
    """
    for name, target in pages.items():
        for address in (name, Path(name).name):
            shown = shown.replace(f"({address})", f"({target})")
    shown = re.sub(r"\(#[^)]*\)", "()", shown).replace("]()", "](index.html)")
    html = markdown2html_mistune(export.without_dead_links(shown, folder))
    html = re.sub(r"(<table.*?</table>)", r'<div class="table">\1</div>', html, flags=re.S)
    title = shown.splitlines()[0].lstrip("# ")
    return PAGE.format(mark=MARK, title=title, style=STYLE, body=html)


def build(project: Path, out: Path) -> list[Path]:
    """Write the site to the folder `out` and return its pages. An older site there is replaced.

    Raises:
        NotADirectoryError: `out` is a file.
        FileExistsError: `out` holds something that is not a site.
        FileNotFoundError: a notebook is missing.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"'{out}' is a file, but the site is a folder. Choose a new folder.")
    index = out / "index.html"
    ours = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    if out.exists() and any(out.iterdir()) and not ours:
        raise FileExistsError(f"'{out}' holds something else. Choose a new folder, or remove it.")
    notebooks = [name for names in TASKS.values() for name in names]
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(project / "docs", building / "docs", ignore=shutil.ignore_patterns("*.md"))
    for name in notebooks:
        (building / page_of(name)).write_text(notebook_page(project / name), encoding="utf-8")
    pages = {name: page_of(name) for name in (*notebooks, *DOCUMENTS)}
    (building / "index.html").touch()  # the other pages link to it, so it must exist first
    for name in DOCUMENTS:
        shutil.copytree((project / name).parent / "figures", building / "figures", dirs_exist_ok=True)
        text = (project / name).read_text(encoding="utf-8")
        (building / page_of(name)).write_text(page(text, pages, building), encoding="utf-8")
    readme = (project / "README.md").read_text(encoding="utf-8")
    for name in DOCUMENTS:  # their pictures are in one folder now
        readme = readme.replace(f"({Path(name).parent.as_posix()}/figures/", "(figures/")
    shown = readme[readme.index(FIRST) : readme.index(LAST)]
    if test := eye_test.page(project):
        (building / eye_test.PAGE).write_text(test, encoding="utf-8")
    shown += EYE_TEST if test else NO_EYE_TEST
    (building / "index.html").write_text(page(shown, pages, building), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return sorted(out.glob("*.html"))
