"""The site opens from disk: all pages exist, load nothing from the network, and have no dead links."""

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import config
from utils.notebooks import convert, eye_test, pages
from utils.notebooks import site as builder

pytestmark = pytest.mark.xdist_group("site")  # one process, because they share an expensive fixture

SMALL = {"tuning": ("username_DLcw2_hypertune.ipynb",)}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "site"
    builder.build(config.PROJECT, out)
    return out


def visit(page, script: str, width: int = 500) -> dict:
    """What a script in a page of the site finds in a browser. The script assigns an object to `found`."""
    visited = page.with_name("visited.html")
    end = (
        f"<script>const found = {{}}; (() => {{ {script} }})(); document.title = JSON.stringify(found);</script></body>"
    )
    visited.write_text(page.read_text(encoding="utf-8").replace("</body>", end), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--window-size={width},900", "--dump-dom", visited.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    visited.unlink()
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr[-500:]
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]))


@pytest.mark.slow
def test_the_first_page_has_a_card_for_each_coursework_and_a_way_to_every_page(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    readme = (config.PROJECT / "README.md").read_text(encoding="utf-8")
    cards = first.split('<section class="card">')[1:]
    assert len(cards) == len(builder.CARDS) == len(builder.table(readme))
    for cells, card in zip(builder.table(readme), cards):
        for figure in re.findall(r"\d+\.\d+", " ".join(cells[2:])):
            assert figure in card
        assert card.count("<img") == 1
    for name in (name for names in config.TASKS.values() for name in names):
        page = builder.page_of(name)
        assert f'href="{page}"' in first and "<img" in (site / page).read_text(encoding="utf-8")
    linked = {"index.html", *re.findall(r'href="(?!https?:)([^"#]+)', first)}
    assert {page.name for page in site.glob("*.html")} == linked


@pytest.mark.slow
def test_pages_load_nothing_from_the_network_and_have_no_dead_links(site):
    for path in site.glob("*.html"):
        text = re.sub(r"data:[^\"')]*", "data:", path.read_text(encoding="utf-8"))
        assert not re.findall(r"(?:src|<link[^>]*href)=[\"']https?:", text), path.name
        for address in re.findall(r"(?:src|href)=[\"']([^\"'#]+)[\"'#]", text):
            if not re.match(r"https?:|data:|mailto:|javascript:", address):
                assert (site / address).exists(), (path.name, address)
        places = re.findall(r' id="([^"]+)"', text)
        for place in re.findall(r'class="contents".*?</nav>', text, re.S):
            assert set(re.findall(r'href="#([^"]+)"', place)) <= set(places), path.name


@pytest.mark.slow
def test_no_page_with_its_pictures_is_larger_than_three_megabytes(site):
    for path in site.glob("*.html"):
        loaded = {site / source for source in re.findall(r'src="([^":]+)"', path.read_text(encoding="utf-8"))}
        assert path.stat().st_size + sum(picture.stat().st_size for picture in loaded) < 3e6, path.name


@pytest.mark.slow
def test_every_image_has_a_text_and_every_formula_is_shown(site):
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        if path.name != eye_test.PAGE:  # its images get their texts in the browser
            for image in re.findall(r"<img[^>]*>", text):
                assert re.search(r'alt="[^"]{5,}"', image), (path.name, image[:200])
            assert "No description" not in text
        assert "$$" not in text and "\\mathrm" not in text, path.name
    assert (site / "username_DLcw1_clean.html").read_text(encoding="utf-8").count("<math") > 10


def test_a_formula_becomes_mathml_but_code_stays():
    shown = convert.markdown("$$\\big(\\sigma^2\\big)$$ and $x < 1$, `$HOME`, 5 $ and more")
    assert shown.count("<math") == 2 and "<code>$HOME</code>" in shown and "big" not in shown and "5 $ and" in shown


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium (on Debian: apt install chromium)")
@pytest.mark.slow
def test_one_switch_shows_the_code_and_the_contents_lead_to_the_sections(site):
    found = visit(
        site / "username_DLcw2_clean.html",
        """
        const hidden = () => [...document.querySelectorAll(".input")].filter(x => x.offsetHeight === 0).length;
        found.cells = document.querySelectorAll(".input").length;
        found.before = hidden();
        document.getElementById("code").click();
        found.after = hidden();
        found.sections = [...document.querySelectorAll(".contents a")].map(
          a => document.getElementById(decodeURIComponent(a.hash.slice(1))) !== null);
        """,
    )
    assert found["before"] == found["cells"] > 10 and found["after"] == 0
    assert len(found["sections"]) > 10 and all(found["sections"])


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium (on Debian: apt install chromium)")
@pytest.mark.slow
def test_the_slider_uncovers_the_filled_heads(site):
    found = visit(
        site / "heads.html",
        """
        const filled = document.querySelectorAll(".before-after img")[1];
        const slider = document.getElementById("shown");
        found.cuts = [0, 50, 100].map(value => {
          slider.value = value;
          slider.dispatchEvent(new Event("input"));
          return getComputedStyle(filled).clipPath;
        });
        found.heads = document.querySelectorAll(".before-after").length;
        """,
    )
    assert found["heads"] == 100
    assert [re.search(r"(\d+)%\)? ", cut + " ")[1] if "%" in cut else "0" for cut in found["cuts"]] == [
        "100",
        "50",
        "0",
    ]


def test_smaller_pictures_have_the_same_pixels():
    picture = draw_pictures(1)[0, 0]
    page = convert.smaller(f'<p><img alt="" src="{eye_test.png(picture)}"></p>')
    kind, content = re.fullmatch(r'<p><img alt="" src="data:image/(\w+);base64,([^"]+)"></p>', page).groups()
    found = Image.open(io.BytesIO(base64.b64decode(content))).convert("L")
    assert kind == "webp" and (np.asarray(found) == picture).all()


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="there is no Chromium (on Debian: apt install chromium)")
def test_a_browser_shows_the_pages_without_errors(site, tmp_path):
    for page in sorted(site.glob("*.html")):
        assert not visit(page, "found.wide = document.documentElement.scrollWidth > innerWidth")["wide"], page.name
        picture = tmp_path / f"{page.stem}.png"
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command += ["--window-size=390,1600", f"--screenshot={picture}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and picture.stat().st_size > 10_000
        assert "CONSOLE" not in done.stderr, done.stderr[-500:]


def test_an_older_site_is_replaced_but_other_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "TASKS", SMALL)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(f"<head>{pages.MARK}</head>", encoding="utf-8")
    (site / "old.html").touch()
    built = {page.name for page in builder.build(config.PROJECT, site)}
    others = {"answers", "garments", "hands", "heads", "index", "references", "report", "results"}
    assert built - {eye_test.PAGE} == {f"{name}.html" for name in (*others, "username_DLcw2_hypertune")}
    (tmp_path / "thesis.txt").touch()
    (tmp_path / "index.html").touch()  # somebody's own page
    with pytest.raises(FileExistsError, match="something else"):
        builder.build(config.PROJECT, tmp_path)
    with pytest.raises(NotADirectoryError, match="thesis.txt' is a file"):
        builder.build(config.PROJECT, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").exists()


def test_pages_are_utf_8_on_a_system_with_another_encoding(tmp_path):
    program = (
        "import sys, locale; from pathlib import Path; from utils import config; from utils.notebooks import site\n"
        f"site.TASKS = {SMALL}; site.build(config.PROJECT, Path(sys.argv[1])); print(locale.getpreferredencoding())"
    )
    system = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-c", program, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=config.PROJECT, env=system, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if os.name != "nt":
        assert done.stdout.strip() not in ("UTF-8", "utf-8")  # otherwise this test could not fail
    assert "±" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
