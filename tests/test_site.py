"""The site opens from disk: all pages exist, load nothing from the network, and have no dead links."""

import base64
import io
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
from utils.notebooks import eye_test
from utils.notebooks import site as builder

pytestmark = pytest.mark.xdist_group("site")  # one process, because they share an expensive fixture

SMALL = {"tuning": ("username_DLcw2_hypertune.ipynb",)}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "site"
    builder.build(config.PROJECT, out)
    return out


@pytest.mark.slow
def test_the_first_page_links_to_a_page_for_every_notebook(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    for name in (name for names in config.TASKS.values() for name in names):
        page = builder.page_of(name)
        assert f'href="{page}"' in first and "<img" in (site / page).read_text(encoding="utf-8")
    assert "Results" in first and "<table" in first
    assert 'href="report.html"' in first and "<img" in (site / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_pages_load_nothing_from_the_network_and_have_no_dead_links(site):
    for path in site.glob("*.html"):
        text = re.sub(r"data:[^\"')]*", "data:", path.read_text(encoding="utf-8"))
        assert not re.findall(r"(?:src|<link[^>]*href)=[\"']https?:", text), path.name
        for address in re.findall(r"(?:src|href)=[\"']([^\"'#]+)[\"'#]", text):
            if not re.match(r"https?:|data:|mailto:|javascript:", address):
                assert (site / address).exists(), (path.name, address)


@pytest.mark.slow
def test_no_page_is_larger_than_three_megabytes(site):
    assert {path.name: path.stat().st_size for path in site.glob("*.html") if path.stat().st_size > 3e6} == {}


def test_smaller_pictures_have_the_same_pixels():
    picture = draw_pictures(1)[0, 0]
    page = builder.smaller(f'<p><img alt="" src="{eye_test.png(picture)}"></p>')
    kind, content = re.fullmatch(r'<p><img alt="" src="data:image/(\w+);base64,([^"]+)"></p>', page).groups()
    found = Image.open(io.BytesIO(base64.b64decode(content))).convert("L")
    assert kind == "webp" and (np.asarray(found) == picture).all()


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="there is no Chromium (on Debian: apt install chromium)")
def test_a_browser_shows_the_pages_without_errors(site, tmp_path):
    for page in sorted(site.glob("*.html")):
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
    (site / "index.html").write_text(f"<head>{builder.MARK}</head>", encoding="utf-8")
    (site / "old.html").touch()
    pages = {page.name for page in builder.build(config.PROJECT, site)}
    assert pages - {eye_test.PAGE} == {"index.html", "report.html", "username_DLcw2_hypertune.html"}
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
    assert "6.8 ± 1.4" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
