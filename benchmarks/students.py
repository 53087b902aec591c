"""How close other students' hands are to real ones, in the measure of coursework 1.

    .venv/bin/python -m benchmarks.students

It needs coursework 2's images, which the course handed out: hands by many students' VAEs and GANs, mixed. It prints a
table, in seconds.
"""

from __future__ import annotations

import pandas as pd

from utils.data import hand_images, labelled_hands
from utils.evaluation import feature_spaces, fidelity

COUNT = 300  # images of each kind, as in section 6.4 of coursework 1's notebook


def measure() -> dict[str, dict[str, float]]:
    """The Fréchet distances of each kind to the same real images as in the notebook, by feature space."""
    hands = hand_images.load_hands()
    labelled, _ = labelled_hands.load()
    reference = hands.held_out[COUNT:]
    spaces = {"pixels": feature_spaces.PixelComponents(reference), "texture": feature_spaces.Texture()}
    rows = {"real, held out (floor)": hands.held_out[:COUNT]}
    for label, kind in ((labelled_hands.VAE, "VAE"), (labelled_hands.GAN, "GAN")):
        rows[f"students' {kind} hands"] = labelled.images[labelled.labels == label][:COUNT]
    return {
        name: {f"FD {space}": fidelity.frechet_distance(spaces[space], reference, images) for space in spaces}
        for name, images in rows.items()
    }


def main() -> None:
    print(hand_images.origin())
    print(pd.DataFrame(measure()).T.round(1).to_string())


if __name__ == "__main__":
    main()
