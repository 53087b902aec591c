"""The form of a page of the site, and grids of small images. It needs only Python, so that `run` can begin with it."""

from __future__ import annotations

import base64
import html
from pathlib import Path

STYLE = Path(__file__).with_name("site.css")
MARK = '<meta name="generator" content="python -m utils report">'  # only a folder with this page is replaced
SOURCES = (
    'Hands: derived from MedNIST (Dr. Bradley J. Erickson, Mayo Clinic), licence <a href="https://creativecommons.org/'
    'licenses/by-sa/4.0/">CC BY-SA 4.0</a>. Code: MIT licence.'
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><nav aria-label="Site">{links}</nav></header>
{body}
<footer><p>{sources}</p></footer>
</body>
</html>
"""
HOME = '<a href="index.html">All courseworks</a>'


def page(title: str, body: str, style: str = "", links: str = HOME) -> str:
    """A page of the site as HTML.

    Args:
        title: plain text.
        body: HTML with one element `main`.
        style: CSS for this page, after the common one.
        links: HTML in the page's head.
    """
    whole = STYLE.read_text(encoding="utf-8") + style
    return PAGE.format(mark=MARK, title=html.escape(title), style=whole, links=links, body=body, sources=SOURCES)


def address(content: bytes, kind: str) -> str:
    """The address of an image that is embedded in a page. `kind` is for example `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def grid(images: list[tuple[str, str]]) -> str:
    """A grid of small images, each shown with its pixels, as HTML. Each image is its address and its text."""
    shown = (f'<li><img class="pixels" alt="{html.escape(alt)}" src="{source}"></li>' for source, alt in images)
    return f'<ul class="grid">{"".join(shown)}</ul>'


def hands(folder: Path) -> str:
    """All our hands in a folder as a grid, three times as large or more, as HTML. The course's images are not shown.

    Raises:
        FileNotFoundError: there are no hands of ours.
    """
    paths = [path for path in sorted(folder.glob("*.jpeg")) if "_hand_" not in path.name]
    if not paths:
        raise FileNotFoundError(f"'{folder}' holds no hands of ours. Get them back: git checkout -- {folder.name}")
    return grid([(address(path.read_bytes(), "jpeg"), path.stem) for path in paths])
