"""The page "real or generated?": what it holds, and whether it counts the answers right in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import config
from utils.data import hand_images, image_files
from utils.notebooks import eye_test, site

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Answers all hands: the first 5 real ones and the first 7 generated ones wrong, by button and by key in turn.
VISITOR = """<script>
const truths = TRUTHS, left = {real: 5, generated: 7}, alts = [], order = [], wrong = [];
const heights = ["real", "generated"].map(id => document.getElementById(id).offsetHeight);
const shown = () => document.getElementById("hand");
const press = (key, ctrlKey = false) => document.dispatchEvent(new KeyboardEvent("keydown", {key, ctrlKey}));
press("r", true);  // reloads the page, and is no answer
press("x");
press("g");
document.getElementById("back").click();
for (let i = 0; i < 60; i++) {
  const truth = truths[shown().src], lie = left[truth]-- > 0;
  alts.push(shown().alt.replace(i + 1, "N"));
  order.push(shown().src);
  if (lie) wrong.push(shown().src);
  const real = (truth === "real") !== lie;
  if (i % 3 === 0) document.getElementById(real ? "real" : "generated").click();
  else press(i % 3 === 1 ? (real ? "ArrowLeft" : "ArrowRight") : (real ? "R" : "g"));
}
press("r");  // after the end: no answer any more
const listed = [...document.querySelectorAll("#wrong img")].map(image => image.src);
document.title = JSON.stringify({
  result: document.getElementById("result").textContent, alts: [...new Set(alts)], order, wrong, listed,
  captions: [...document.querySelectorAll("#wrong li")].map(item => truths[item.firstChild.src] + item.textContent),
  scaling: getComputedStyle(shown()).imageRendering,
  tooWide: document.documentElement.scrollWidth > innerWidth,
  height: heights,
});
</script>"""


def pixels(address: str) -> bytes:
    """The grey levels of an image in a page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))).tobytes()


@pytest.fixture
def project(tmp_path):
    """A project with 40 real hands, and 40 of ours beside images of the course."""
    image_files.write_jpegs(draw_pictures(40), tmp_path / "real_hands", "real_hand", 40)
    image_files.write_jpegs(255 - draw_pictures(40), tmp_path / "GAN_hands", "username", 40)
    Image.new("L", (32, 32)).save(tmp_path / "GAN_hands" / "GAN_hand_001.jpeg")
    return tmp_path


def truths(page: str) -> dict[str, str]:
    """The kind of each image in a page, by its address: real ones are drawn on black, and generated ones on white."""
    return {src: "generated" if pixels(src)[0] > 128 else "real" for src in re.findall(r"data:image/png[^\"]*", page)}


def test_the_page_holds_thirty_hands_of_each_kind_and_loads_nothing(project):
    page = eye_test.page(project)
    kinds = list(truths(page).values())
    assert kinds.count("real") == kinds.count("generated") == 30 == len(kinds) / 2
    real, own = (
        {image.tobytes() for image in image_files.read(project / folder, pattern=pattern).images}
        for folder, pattern in (("real_hands", "*"), ("GAN_hands", "username_*"))
    )
    assert {pixels(src) for src in truths(page)} <= real | own
    assert not re.search(r"<(?:link|script)[^>]+(?:src|href)=|@import|url\(", page)
    for word in ("Erickson", "Mayo Clinic", "CC BY-SA 4.0", "RSNA Bone Age"):
        assert word in page


def test_there_is_no_page_without_real_hands(project):
    shutil.rmtree(project / "real_hands")
    assert eye_test.page(project) is None
    prefix = hand_images.STAND_IN_PREFIX.rstrip("_")
    image_files.write_jpegs(draw_pictures(40), project / "real_hands", prefix, 40)
    assert eye_test.page(project) is None
    shutil.rmtree(project / "real_hands")
    image_files.write_jpegs(draw_pictures(29), project / "real_hands", "real_hand", 29)
    assert eye_test.page(project) is None


@pytest.mark.parametrize("there", [True, False])
def test_the_site_has_the_page_or_says_why_not(project, tmp_path, monkeypatch, there):
    made = eye_test.page(project) if there else None
    monkeypatch.setattr(site, "TASKS", {"tuning": config.TUNING[1:]})
    monkeypatch.setattr(eye_test, "page", lambda _: made)
    pages = {path.name: path for path in site.build(config.PROJECT, tmp_path / "site")}
    first = pages["index.html"].read_text(encoding="utf-8")
    assert (eye_test.PAGE in pages) == (f'href="{eye_test.PAGE}"' in first) == there
    assert ("left out: it needs 30 real hands" in first) != there


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium (on Debian: apt install chromium)")
def test_a_browser_counts_the_answers_and_shows_the_wrong_ones(project):
    page = eye_test.page(project)
    path = project / eye_test.PAGE
    visitor = VISITOR.replace("TRUTHS", json.dumps(truths(page)))
    path.write_text(page.replace("</body>", f"{visitor}</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--window-size=390,800", "--dump-dom", path.as_uri()]
    visits = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
        assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr[-500:]
        visits.append(json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    seen = visits[0]
    assert seen["result"].startswith("You were right about 25 of 30 real hands and 23 of 30 generated hands.")
    assert len(seen["listed"]) == 12 and seen["listed"] == seen["wrong"]
    assert all(re.fullmatch(r"(real|generated)Hand \d+ is \1\.", caption) for caption in seen["captions"])
    assert seen["alts"] == ["X-ray of a hand, number N, real or generated"]
    assert seen["scaling"] == "pixelated" and not seen["tooWide"] and min(seen["height"]) >= 48
    assert len(set(seen["order"])) == 60 and seen["order"] != visits[1]["order"]
