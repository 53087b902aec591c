"""The site opens from disk: every page is there, loads nothing from elsewhere, and its links lead somewhere."""

import re
import shutil
import subprocess

import pytest

from utils import config
from utils.notebooks import site as builder

pytestmark = pytest.mark.xdist_group("report")  # one process: they share what was expensive to make


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "site"
    builder.build(config.PROJECT, out)
    return out


def test_every_notebook_has_a_page_that_the_first_one_leads_to(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    for name in (name for names in config.TASKS.values() for name in names):
        page = builder.page_of(name)
        assert f'href="{page}"' in first and "<img" in (site / page).read_text(encoding="utf-8")
    assert "Results" in first and "<table" in first
    assert 'href="report.html"' in first and "<img" in (site / "report.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere_and_no_link_is_dead(site):
    for path in site.glob("*.html"):
        text = re.sub(r"data:[^\"')]*", "data:", path.read_text(encoding="utf-8"))
        assert not re.findall(r"(?:src|<link[^>]*href)=[\"']https?:", text), path.name
        for address in re.findall(r"(?:src|href)=[\"']([^\"'#]+)[\"'#]", text):
            if not re.match(r"https?:|data:|mailto:|javascript:", address):
                assert (site / address).exists(), (path.name, address)


def test_an_older_site_is_replaced_and_nothing_else(site, tmp_path):
    (site / "old.html").touch()
    builder.build(config.PROJECT, site)
    assert not (site / "old.html").exists()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="something else"):
        builder.build(config.PROJECT, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium (apt install chromium)")
def test_pages_show_up_in_a_browser(site, tmp_path):
    for page in sorted(site.glob("*.html")):
        picture = tmp_path / f"{page.stem}.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command += ["--window-size=390,1600", f"--screenshot={picture}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and picture.stat().st_size > 10_000
        assert "CONSOLE" not in done.stderr, done.stderr[-500:]
