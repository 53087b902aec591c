"""Makes a static site from the executed notebooks. It opens from disk and needs no network.

The first page has a card for each coursework, with the figures of the README's table. Each notebook has a page, and so
have the results, the report, the answers, all hands, all heads and the samples of all families.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

from utils.config import TASKS
from utils.handin import export
from utils.notebooks import eye_test, galleries, pages
from utils.notebooks.convert import document_page, markdown, notebook_page, title_of

DOCUMENTS = ("docs/results.md", "fashion_mnist/report.md", "references.md")
ANSWERS = "answers.html"  # the two answers of the README
# For each row of the README's table, by its beginning: its picture, and its pages with their names.
CARDS = {
    "Coursework 1": (
        "docs/pictures/hands.png",
        {
            "username_DLcw1_clean.html": "notebook", "username_DLcw1_hypertune.html": "tuning",
            "hands.html": "all 300 hands", eye_test.PAGE: "test your eye",
        },
    ),
    "Coursework 2": (
        "docs/pictures/classes.png",
        {
            "username_DLcw2_clean.html": "notebook", "username_DLcw2_hypertune.html": "tuning",
            ANSWERS: "the two answers",
        },
    ),
    "Portfolio": ("docs/pictures/portfolio.png", {"hands.html#VAE_hands": "all 300 hands of the VAE"}),
    "MRI imputation": (
        "docs/pictures/heads.png", {"Assessment.html": "notebook", "heads.html": "100 heads, before and after"},
    ),
    "Final assignment": (
        "docs/pictures/garments.png",
        {
            "generative_models.html": "notebook", "hypertune.html": "tuning", "report.html": "report",
            "garments.html": "samples of all families",
        },
    ),
}  # fmt: skip
NO_EYE_TEST = (
    f"The page <em>Real or generated?</em> was left out: it needs {eye_test.COUNT} real hands in "
    f"<code>real_hands/</code> (<code>python -m utils data</code>) and {eye_test.COUNT} of ours in "
    "<code>GAN_hands/</code>."
)


def page_of(name: str) -> str:
    """The file name of the page for a notebook or document."""
    return Path(name).stem.replace(" ", "_") + ".html"


def in_site(page: str, folder: Path, project: Path, site: Path, known: dict[str, str]) -> str:
    """The page with its links and pictures in the site.

    Args:
        page: HTML whose addresses are relative to `folder`.
        folder: where the page's source is, in the project.
        site: the folder of the site. Pictures are copied to `pictures/` in it.
        known: the pages of the site, by the path of their source in the project. Other links become plain text.
    """

    def source(address: str) -> str | None:
        """The path in the project of what an address means, or None if it is outside."""
        path = (folder / address.split("#")[0]).resolve()
        return path.relative_to(project.resolve()).as_posix() if path.is_relative_to(project.resolve()) else None

    def link(match: re.Match) -> str:
        address, text = html.unescape(match[1]), match[2]
        if re.match(r"[a-z]+:|#", address) or address.split("#")[0] in known.values():
            return match[0]
        return f'<a href="{known[source(address)]}">{text}</a>' if source(address) in known else text

    def picture(match: re.Match) -> str:
        if re.match(r"[a-z]+:", match[1]) or (site / match[1]).is_file():
            return match[0]
        name = (source(match[1]) or "").replace("/", "_")
        shutil.copyfile(folder / match[1], site / "pictures" / name)
        return f'src="pictures/{name}"'

    return re.sub(r'src="([^"]+)"', picture, re.sub(r'<a href="([^"]+)"[^>]*>(.*?)</a>', link, page, flags=re.S))


def table(readme: str) -> list[list[str]]:
    """The cells of the README's table of results, without its head. A row is a coursework."""
    rows = re.findall(r"^\|(.+)\|$", readme[readme.index("\n## Results") :], re.M)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2 : 2 + len(CARDS)]]


def card(cells: list[str], there: set[str], texts: dict[str, str]) -> str:
    """A card of the first page: picture, figures and links of a coursework, as HTML.

    Args:
        cells: a row of `table`: name, what is measured, ours, floor, best public figure.
        there: the pages of the site; links to others are left out.
        texts: what each picture shows, by its path.
    """
    plain = re.sub(r"[*\[]|\]\([^)]*\)", "", cells[0])
    picture, links = CARDS[next(name for name in CARDS if plain.startswith(name))]
    name, measured, ours, floor, public = (
        re.sub(r"</?(?:p|strong)>", "", markdown(cell)) for cell in (plain, *cells[1:])
    )
    to = " · ".join(f'<a href="{page}">{text}</a>' for page, text in links.items() if page.split("#")[0] in there)
    return (
        f'<section class="card"><h2>{name}</h2><img src="{picture}" alt="{html.escape(texts[picture])}">'
        f'<p><span class="figure">{ours}</span><br>{measured}</p>'
        f"<dl><dt>Floor</dt><dd>{floor}</dd><dt>Public</dt><dd>{public}</dd></dl><p>{to}</p></section>"
    )


def first_page(readme: str, there: set[str]) -> str:
    """The first page: what this is, a card for each coursework, and links to all pages in `there`."""
    title, about = title_of(readme), readme.split("\n\n")[1]
    texts = {path: text for text, path in re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", readme)}
    cards = "".join(card(cells, there, texts) for cells in table(readme))
    notes = re.search(r"\|\n\n(.+?)\n\n", readme[readme.index("\n## Results") :], re.S)[1]
    eye = "" if eye_test.PAGE in there else f"<p>{NO_EYE_TEST}</p>"
    body = (
        f'<main><h1>{html.escape(title)}</h1>{markdown(about)}<div class="cards">{cards}</div>'
        f"{markdown(notes)}{eye}</main>"
    )
    return pages.page(title, body, links="")


def write_pages(project: Path, out: Path) -> None:
    """Write all pages to the folder `out`, which exists and is empty.

    Raises:
        FileNotFoundError: a notebook, a document or a picture is missing.
    """
    (out / "pictures").mkdir()
    readme = (project / "README.md").read_text(encoding="utf-8")
    notebooks = [name for names in TASKS.values() for name in names]
    known = {name: page_of(name) for name in (*notebooks, *DOCUMENTS)} | {"README.md": "index.html"}
    made = {
        page_of(name): (notebook_page(project / name), (project / name).parent) for name in dict.fromkeys(notebooks)
    }
    for name in DOCUMENTS:
        made[page_of(name)] = (document_page((project / name).read_text(encoding="utf-8")), (project / name).parent)
    made[ANSWERS] = (document_page(export.answers(readme)), project)
    made["hands.html"] = (galleries.hands(project), project)
    made["heads.html"] = (galleries.heads(), project)
    made["garments.html"] = (galleries.garments(project, out), project)
    if test := eye_test.page(project):
        made[eye_test.PAGE] = (test, project)
    made["index.html"] = (first_page(readme, set(made)), project)
    known |= {name: name for name in made}
    for name, (page, folder) in made.items():
        (out / name).write_text(in_site(page, folder, project, out, known), encoding="utf-8")


def build(project: Path, out: Path) -> list[Path]:
    """Write the site to the folder `out` and return its pages. An older site there is replaced.

    Raises:
        NotADirectoryError: `out` is a file.
        FileExistsError: `out` holds something that is not a site.
        FileNotFoundError: see `write_pages`.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"'{out}' is a file, but the site is a folder. Choose a new folder.")
    index = out / "index.html"
    ours = index.is_file() and pages.MARK in index.read_text(encoding="utf-8", errors="replace")
    if out.exists() and any(out.iterdir()) and not ours:
        raise FileExistsError(f"'{out}' holds something else. Choose a new folder, or remove it.")
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    write_pages(project, building)
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return sorted(out.glob("*.html"))
