"""Fidelity of the VAE against the number of training images and against training time.

    .venv/bin/python -m benchmarks.data_and_time

This trains coursework 1's VAE and its prior, with the committed settings, on parts of the training images. It prints a
table and draws `docs/data_and_time.png`. It takes about ten minutes on 2 cores. An interrupted run continues.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from utils import config
from utils.data import hand_images, image_files
from utils.evaluation import feature_spaces, fidelity
from utils.models import vae
from utils.training import devices

SIZES = (400, 1600, 6000)  # training images
VAE_IMAGES, PRIOR_IMAGES = 40_000, 100_000  # images (or latents) that are seen in a training


def main() -> None:
    hands = hand_images.load_hands()
    settings = config.hyperparameters("vae")
    batch_size = settings.pop("batch_size")
    here = config.run_folder(hand_images.run_name("data_and_time"))
    reference, others = np.array_split(hands.held_out, 2)
    space = feature_spaces.PixelComponents(reference)
    held_out = image_files.to_float(hands.held_out)

    def bound(model: vae.VAE) -> dict[str, float]:
        losses = [model.losses(x.to(model.log_std.device))["negative_elbo"] for x in held_out.split(500)]
        return {"bound": float(torch.stack(losses).mean())}

    rows, curves = [], {}
    for size in (min(size, len(hands.train)) for size in SIZES):
        part = hands.train[np.random.default_rng(0).permutation(len(hands.train))[:size]]
        devices.seed_everything(0)
        model = vae.VAE(**settings)
        history, _ = vae.train(
            model, image_files.to_float(part), VAE_IMAGES, PRIOR_IMAGES, batch_size, here / f"{size}_images_seed_0",
            evaluate=bound, plot=False,
        )  # fmt: skip
        curves[size] = [(row["images"] / 1000, row["bound"]) for row in history]
        samples = image_files.as_saved(model.sample(len(others), 0))
        distance = fidelity.frechet_distance(space, reference, samples)
        rows.append({"training images": size, "Fréchet distance": distance, "held-out bound": history[-1]["bound"]})
        print(rows[-1], f"{history[-1]['seconds'] / 60:.1f} minutes", flush=True)
    print(hand_images.origin())
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    floor = fidelity.frechet_distance(space, reference, others)
    print(f"floor, {len(others)} real images against {len(reference)} others: {floor:.2f}")
    draw(curves, pd.DataFrame(rows), floor, config.PROJECT / "docs" / "data_and_time.png")


def draw(curves: dict[int, list[tuple[float, float]]], table: pd.DataFrame, floor: float, path: Path) -> None:
    """Draw two plots.

    Left: the held-out bound against the images seen, with one line for each training. The first two points are left
    out, because they are far off the scale. Right: the distance against the number of training images.

    Args:
        curves: for each number of training images, points (thousands of images seen, held-out bound in nats).
        table: one row for each training, with its "training images" and its "Fréchet distance".
        floor: the distance between real images and other real images.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for size, points in curves.items():
        left.plot(*zip(*points[2:]), marker=".", label=f"{size} images")
    left.set(xlabel="training: images seen (thousands)", ylabel="held-out bound (nats, lower is better)")
    left.legend()
    right.plot(table["training images"], table["Fréchet distance"], marker="o", label="VAE")
    right.axhline(floor, color="black", linestyle="--", label="other real images")
    right.legend()
    right.set(xlabel="training images", ylabel="Fréchet distance, pixels", xscale="log", ylim=(0, None))
    right.minorticks_off()
    right.set_xticks(list(curves), [str(size) for size in curves])
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
