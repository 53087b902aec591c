"""Draws the pictures of the README and of the site's first page: real images beside ours."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from utils import config
from utils.data import hand_images, head_images, image_files, label_csv
from utils.notebooks import figures

FOLDER = Path("docs") / "pictures"
LARGEST = 1200  # pixels of a side
COUNT = 12  # images in a row
HEADS = range(0, 96, 12)  # of the test set, counted from 0


def hands(project: Path) -> dict[str, dict[str, np.ndarray]]:
    """The rows of the pictures that show hands: the first ones of each folder, so none was picked by hand.

    Raises:
        ValueError: the course's images are not here; stand-ins would look like real hands.
    """
    if hand_images.kind(project) != "course":
        raise ValueError("real_hands/ does not hold the course's images, which the pictures show: python -m utils data")
    real = hand_images.read_real(project).images
    gan, vae = (image_files.read(project / f"{kind}_hands", pattern="username_*").images for kind in ("GAN", "VAE"))
    return {
        "hands": {"real": real[:COUNT], "GAN": gan[:COUNT]},
        "portfolio": {"real": real[:COUNT], "VAE": vae[:COUNT], "GAN": gan[:COUNT]},
    }


def classes(project: Path) -> dict[str, np.ndarray]:
    """The first test images that we labelled as each class.

    Raises:
        FileNotFoundError: the course's test images are not here.
    """
    given = label_csv.read(project / "username_classified_hands.csv")
    rows = {}
    for label, name in enumerate(config.CLASSES):
        shown: list[np.ndarray] = []
        for path in (project / "test_hands" / file for file, found in given.items() if found == label):
            image = image_files.decode(path, (32, 32), resize=True)
            if not isinstance(image, str) and len(shown) < COUNT:
                shown.append(image)
            if len(shown) == COUNT:
                break
        rows[f"called {name}"] = np.stack(shown)[:, None]
    return rows


def heads() -> dict[str, np.ndarray]:
    """Some heads with their stripes, and filled."""
    both = head_images.load_test()[0], head_images.read(head_images.ANSWER)
    return {name: (x[list(HEADS)] * 255).round().astype(np.uint8) for name, x in zip(("given", "filled"), both)}


def draw(project: Path) -> list[Path]:
    """Draw all pictures from the committed results and the course's images. Returns their paths.

    The picture of the garments is the first one of the report, which the notebook draws.

    Raises:
        ValueError, FileNotFoundError: see `hands` and `classes`.
    """
    out = project / FOLDER
    rows = hands(project) | {"classes": classes(project), "heads": heads()}
    out.mkdir(exist_ok=True)
    written = []
    for name, images in rows.items():
        figure = figures.show_rows(images, zoom=1.5 if name != "heads" else 1.0)
        written.append(out / f"{name}.png")
        figure.savefig(written[-1], dpi=120, bbox_inches="tight")
        plt.close(figure)
    report = project / "fashion_mnist" / "report.md"
    first = re.search(r"!\[[^\]]*\]\(([^)]+)\)", report.read_text(encoding="utf-8"))[1]
    written.append(out / "garments.png")
    with Image.open(report.parent / first) as picture:
        shown = picture.convert("L" if is_grey(picture) else "RGB")
        shown.thumbnail((LARGEST, LARGEST))
        shown.save(written[-1], optimize=True)
    return written


def is_grey(picture: Image.Image) -> bool:
    """Has the picture no colour? Then it is saved with one channel, in fewer bytes."""
    channels = np.asarray(picture.convert("RGB"))
    return bool((channels == channels[..., :1]).all())
