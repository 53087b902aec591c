"""Time and memory against the side of an image and against the number of images; draws `docs/growth.png`.

    make benchmark-growth        or        python -m benchmarks.growth --largest 1000000

Sides: a training step of each family at its committed settings, batch 8, in a process of its own, whose peak memory
is the most it ever held. Numbers: `utils.cache` decodes a folder of JPEGs into one mapped file, then a small VAE is
trained on it; the memory is that of the process beyond the mapped file (RssAnon), so it is flat if nothing grows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from benchmarks.models import rate, stepper
from utils import cache, families, folders, runs, training
from utils.vae import VAE

SIDES, BATCH = (32, 64, 128), 8
NUMBERS = (1_000, 8_000, 64_000, 1_000_000)
STEPS, SMALL_BATCH = 200, 64


def side(family: str, pixels: int) -> dict[str, float]:
    """Seconds an image and peak MiB of a family's training step."""
    settings = dict(runs.hyperparameters(f"final_{family.lower()}", committed=True))
    settings = {name: value for name, value in settings.items() if name not in ("batch_size", "average_share")}
    model = families.MODELS[family](size=(pixels, pixels), **settings).to(memory_format=torch.channels_last).train()
    images = (torch.rand(BATCH, 1, pixels, pixels) * 255).round() / 127.5 - 1
    step = stepper(model, autocast=False)
    seconds = 1 / rate(lambda: step((images,)), BATCH)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds an image": seconds, "peak MiB": peak, "million weights": weights}


def own_memory() -> float:
    """MiB that this process holds beyond mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def number(count: int) -> dict[str, float]:
    """Seconds to decode so many JPEGs, seconds a step of training on them, and MiB."""
    some = min(2000, count)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(some, 1, 6, 6, generator=generator)
    pictures = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1) * 2 - 1
    with tempfile.TemporaryDirectory(dir=runs.folder("growth")) as place:
        folder = Path(place, "pictures")
        folders.write_jpegs(folders.to_uint8(pictures), folder, "picture", some)
        for n, path in enumerate(sorted(folder.iterdir())):  # hard links: a million names without a million contents
            for copy in range(1, -(-(count - n) // some)):
                (folder / f"{path.stem}_{copy:04d}.jpeg").hardlink_to(path)
        start = time.perf_counter()
        images, _ = cache.images(folder, (32, 32), Path(place, "images"))
        decoded = time.perf_counter() - start
        runs.seed_everything(0)
        model = VAE((32, 32), latent_dim=8, base=8)
        history = training.fit(model, images, STEPS, SMALL_BATCH, Path(place, "run"), {}, evaluations=1, plot=False)
        return {
            "images": len(images), "seconds to decode": decoded, "ms a step": 1000 * history[-1]["seconds"] / STEPS,
            "own MiB": own_memory(), "file, MB": images.numel() * 4 / 1e6,
        }  # fmt: skip


def apart(call: str) -> dict[str, float]:
    """The result of a function of this module, called in a process of its own."""
    program = f"import json, torch; from benchmarks import growth; print(json.dumps(growth.{call}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=runs.PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def draw(sides: pd.DataFrame, numbers: pd.DataFrame, path: Path) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    for family, rows in sides.groupby("family"):
        left.plot(rows.side, 1000 * rows["seconds an image"], marker="o", label=family)
        middle.plot(rows.side, rows["peak MiB"], marker="o", label=family)
    left.set(xscale="log", yscale="log", xlabel="side of an image in pixels", ylabel="training, ms an image")
    middle.set(xscale="log", xlabel="side of an image in pixels", ylabel=f"peak memory in MiB, batch {BATCH}")
    for axis in (left, middle):
        axis.set_xticks(SIDES, [str(s) for s in SIDES])
        axis.minorticks_off()
        axis.legend(fontsize=8)
    right.plot(numbers.images, numbers["own MiB"], marker="o", label="memory of the process")
    right.plot(numbers.images, numbers["file, MB"], marker="o", ls="--", label="mapped file")
    right.set(xscale="log", yscale="log", xlabel="images of 32 x 32 pixels", ylabel="MiB")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost against image size and data size.")
    parser.add_argument("--largest", type=int, default=max(NUMBERS), help="images; a million takes some ten minutes")
    largest = parser.parse_args().largest
    os.environ["ACCELERATE_USE_CPU"] = "true"  # the memory that is measured is the CPU's
    rows = []
    for family in families.MODELS:
        for pixels in SIDES:
            rows.append({"family": family, "side": pixels} | apart(f"side({family!r}, {pixels})"))
            print(rows[-1], flush=True)
    sides, rows = pd.DataFrame(rows), []
    for count in (n for n in NUMBERS if n <= largest):
        rows.append(apart(f"number({count})"))
        print(rows[-1], flush=True)
    numbers = pd.DataFrame(rows)
    print(sides.round(4).to_string(index=False), numbers.round(2).to_string(index=False), sep="\n\n")
    draw(sides, numbers, runs.PROJECT / "docs" / "growth.png")


if __name__ == "__main__":
    main()
