"""Makes the page "real or generated?" of the site: real and generated hands, mixed, to be judged by eye."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from utils.data import hand_images, image_files
from utils.notebooks import pages

PAGE = "real_or_generated.html"
TEMPLATE = Path(__file__).with_name(PAGE)
COUNT = 30  # of each kind


def png(image: np.ndarray) -> str:
    """An image uint8 (H, W) as the address of a PNG that holds it, to be put into a page."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return pages.address(buffer.getvalue(), "png")


def page(project: Path) -> str | None:
    """The page with 30 hands of `real_hands/` and 30 of ours, as HTML; None if one folder has fewer.

    All are embedded as PNG, so that the format does not give the answer away. Stand-ins are not real hands.
    """
    try:
        real = hand_images.read_real(project).images
        generated = image_files.read(project / "GAN_hands", pattern="username_*").images
        if hand_images.kind(project) != "course" or min(len(real), len(generated)) < COUNT:
            return None
    except (OSError, ValueError):  # no folder, no image, or stand-ins among the real hands
        return None
    hands = []
    for truth, images in (("real", real), ("generated", generated)):
        chosen = np.random.default_rng(0).choice(len(images), COUNT, replace=False)
        hands += [{"src": png(images[i, 0]), "truth": truth} for i in chosen]
    return TEMPLATE.read_text(encoding="utf-8").replace("HANDS", json.dumps(hands), 1)
