"""The pages of the site that show our results as pictures: hands, heads before and after, garments."""

from __future__ import annotations

import html
from itertools import groupby
from pathlib import Path

import numpy as np

from utils import config
from utils.data import head_images
from utils.notebooks import eye_test, pages

SLIDER = """<div class="bar"><label for="shown">Stripes</label>
<input id="shown" type="range" min="0" max="100" value="50"
 aria-valuetext="half filled"> <label for="shown">filled</label></div>
<script>
"use strict";
const slider = document.getElementById("shown");
function show() {
  document.documentElement.style.setProperty("--shown", `${slider.value}%`);
  slider.setAttribute("aria-valuetext", `${slider.value} % of each image filled`);
}
slider.addEventListener("input", show);
show();
</script>"""


def hands(project: Path) -> str:
    """The page with the 300 hands of each model."""
    found = [project / "GAN_hands", project / "VAE_hands"]
    parts = []
    for path in found:
        shown = pages.hands(path)
        parts.append(f'<h2 id="{path.name}">{path.name[:3]}: {shown.count("<img")} hands</h2>{shown}')
    said = (
        "All hands that the two models made, as they were handed in; none was left out. The files have 32 x 32 pixels. "
        + ", ".join(f'<a href="#{path.name}">{path.name[:3]}</a>' for path in found)
        + "."
    )
    return pages.page("The 300 hands", f"<main><h1>The 300 hands</h1><p>{said}</p>{''.join(parts)}</main>")


def heads() -> str:
    """The page with the 100 heads, before and after, with one slider for all of them."""
    before, _ = head_images.load_test()
    after = head_images.read(head_images.ANSWER)
    shown = []
    for number, pair in enumerate(zip(before, after), start=1):
        sources = [eye_test.png((image[0] * 255).round().astype(np.uint8)) for image in pair]
        images = "".join(
            f'<img class="pixels" alt="Head {number}, {state}" src="{source}">'
            for state, source in zip(("with its stripes", "filled"), sources)
        )
        shown.append(f'<li class="before-after">{images}</li>')
    said = (
        "The 100 test images of the course, all of them, with their missing stripes and with our answer. Move the "
        "slider, with the mouse or with the arrow keys: left of the border, the images are filled. No known pixel was "
        "changed."
    )
    body = (
        f'<main><h1>100 heads, before and after</h1><p>{said}</p>{SLIDER}<ul class="grid">{"".join(shown)}</ul></main>'
    )
    return pages.page("100 heads, before and after", body)


def garments(project: Path, site: Path) -> str:
    """The page with the sample sheets of all families. The sheets are copied to `samples/` in the site's folder."""
    folder = project / "fashion_mnist" / "samples"
    (site / "samples").mkdir(exist_ok=True)
    order = [*config.FAMILIES, "More samples"]

    def family_of(path: Path) -> str:
        return next((name for name in config.FAMILIES if name.lower() in path.stem.lower().split("_")), order[-1])

    paths = folder.glob("*.png")
    paths = sorted(paths, key=lambda path: (order.index(family_of(path)), "chosen" in path.stem, path.stem))
    parts = []
    for family, sheets in groupby(paths, family_of):
        parts.append(f'<h2 id="{family}">{family}</h2>')
        for path in sheets:
            (site / "samples" / path.name).write_bytes(path.read_bytes())
            kind = html.escape(" ".join(word for word in path.stem.split("_") if word != family.lower()))
            parts.append(
                f'<figure class="sheet"><figcaption>{kind}</figcaption><img class="pixels" loading="lazy" '
                f'src="samples/{path.name}" alt="Sheet of samples of {family}: {kind}"></figure>'
            )
    said = (
        "Samples of every family of the final assignment. <em>first 100</em>: the first ones that the model made, none "
        "left out. <em>chosen</em>: those that a classifier is surest of. All are generated; no real image is shown."
    )
    return pages.page(
        "Samples of all families", f"<main><h1>Samples of all families</h1><p>{said}</p>{''.join(parts)}</main>"
    )
