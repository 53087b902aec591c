"""The report and samples of the final assignment are the results of its notebook."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from utils import config
from utils.models import zoo

HERE = config.PROJECT / "fashion_mnist"
RESULTS = json.loads((HERE / "results.json").read_text(encoding="utf-8"))


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables in a Markdown text, by the text of their first cell."""
    found = {}
    for line in text.splitlines():
        if line.startswith("|"):
            first, *cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
            found.setdefault(first, []).append(cells)
    return found


@pytest.mark.parametrize("document", ["fashion_mnist/report.md", "docs/results.md"])
def test_the_numbers_in_report_and_results_come_from_the_notebook(document):
    tables = rows((config.PROJECT / document).read_text(encoding="utf-8"))
    for family, values in RESULTS["likelihood"].items():
        wanted = f"{values['bits/dim, test']:.3f}"
        assert any(wanted in cell for cells in tables[family] for cell in cells), (family, wanted)
    for family, values in RESULTS["samples"].items():
        wanted = [f"{values[name]:.2f}" for name in ("Frechet distance, classifier", "precision", "recall")]
        found = [{cell.split(" ")[0] for cell in cells} for cells in tables[family]]  # without deviations
        assert any(set(wanted) <= values for values in found), (family, wanted)


def test_the_results_are_valid_json():
    json.loads((HERE / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert RESULTS["samples"]["real, never seen (floor)"]["minutes of training"] is None  # real images have no cost


def test_the_notebook_writes_the_figures_of_the_report():
    shown = re.findall(r"\]\(figures/(\S+)\)", (HERE / "report.md").read_text(encoding="utf-8"))
    assert len(shown) == 2 and set(shown) == {path.name for path in (HERE / "figures").iterdir()}
    notebook = (HERE / "generative_models.ipynb").read_text(encoding="utf-8")
    assert [name for name in shown if name not in notebook] == []


def test_report_says_which_split_optimiser_and_sizes_were_used():
    text = (HERE / "report.md").read_text(encoding="utf-8")
    assert "55,000" in text and "5,000" in text and "AdamW" in text
    for family in zoo.MODELS:
        rate = config.hyperparameters(f"final_{family.lower()}").get("lr")
        assert rate is None or f"{rate:.1e}".replace("e-0", "e-") in text, family
    assert not re.search(r"\{[A-Z_]+\}", text)


def test_each_family_has_a_chosen_and_an_unchosen_grid():
    side = 3 * (10 * 29 - 1)  # ten images of 28 pixels, and nine gaps of one pixel, at three times their size
    named = {name.lower().replace(", ", "_").replace(" ", "_"): name for name in RESULTS["samples"]}
    for family in ("gan_with_classes", "gan_from_a_vae", "diffusion_longer", *map(str.lower, zoo.MODELS)):
        for kind in ("first_100", "chosen"):
            with Image.open(HERE / "samples" / f"{family}_{kind}.png") as picture:
                assert picture.width == side and np.ptp(np.asarray(picture.convert("L"))) > 100
                few = kind == "chosen" and RESULTS["samples"][named[family]]["rarest class"] < 0.01
                assert picture.height == side or few, "a class that is drawn too rarely has fewer images"
