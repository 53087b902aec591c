"""Time and memory against the side of an image and against the number of images, for `docs/scaling.md`.

    make benchmark-growth        or        python -m benchmarks.growth --largest 1000000

There are three measurements:

- Sides: a training step of each family with its committed settings, with batch 8, in float32 on one core. Each runs
  in a separate process, whose peak memory is measured too.
- Numbers: `utils.data.cache` decodes a folder of JPEGs into one mapped file. A small VAE is trained on it. The memory
  of the process is measured without the mapped file (RssAnon). It should not grow with the number of images.
- Decoding: how many JPEGs are decoded per second on all cores, by their side.
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
import numpy as np
import pandas as pd
import torch

from benchmarks.models import SCALING, between, markdown, rate, settings, stepper, write_between
from utils import config
from utils.data import cache, image_files
from utils.models import zoo
from utils.models.vae import VAE
from utils.training import devices, loop

SIDES, BATCH = (32, 64, 128), 8
NUMBERS = (1_000, 8_000, 64_000, 1_000_000)
STEPS, SMALL_BATCH = 200, 64
PLACE = "what growth costs", "benchmark-growth"  # the place of the tables on the page
DECODED, JPEGS = (32, 64, 512), 1000  # sides in pixels, number of files


def side(family: str, pixels: int) -> dict[str, float]:
    """The training time per image and the peak memory of a family, for images of pixels x pixels."""
    chosen, _ = settings(f"final_{family.lower()}")
    torch.set_num_threads(1)
    model = zoo.MODELS[family](size=(pixels, pixels), **chosen).to(memory_format=torch.channels_last).train()
    images = (torch.rand(BATCH, 1, pixels, pixels) * 255).round() / 127.5 - 1
    step = stepper(model, autocast=None)
    seconds = 1 / rate(lambda: step((images,)), BATCH)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms an image": 1000 * seconds, "peak MiB": peak, "million weights": weights}


def decoding(pixels: int) -> float:
    """How many JPEGs of pixels x pixels are decoded per second on all cores."""
    coarse = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(coarse, size=(pixels, pixels), mode="bicubic").clamp(0, 1) * 2 - 1
    with tempfile.TemporaryDirectory(dir=config.run_folder("growth")) as place:
        image_files.write_jpegs(np.repeat(image_files.to_uint8(picture), JPEGS, 0), place, "picture", JPEGS)
        image_files.read(place, (pixels, pixels))  # the first time, the files come from the disk
        start = time.perf_counter()
        image_files.read(place, (pixels, pixels))
        return JPEGS / (time.perf_counter() - start)


def own_memory() -> float:
    """Memory of this process in MiB, without mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def number(count: int) -> dict[str, float]:
    """The time to decode `count` JPEGs, the time of a training step on them, and the memory."""
    some = min(2000, count)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(some, 1, 6, 6, generator=generator)
    pictures = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1) * 2 - 1
    with tempfile.TemporaryDirectory(dir=config.run_folder("growth")) as place:
        folder = Path(place, "pictures")
        image_files.write_jpegs(image_files.to_uint8(pictures), folder, "picture", some)
        for n, path in enumerate(sorted(folder.iterdir())):  # hard links: many names, but few contents
            for copy in range(1, -(-(count - n) // some)):
                (folder / f"{path.stem}_{copy:04d}.jpeg").hardlink_to(path)
        start = time.perf_counter()
        images, _ = cache.images(folder, (32, 32), Path(place, "images"))
        decoded = time.perf_counter() - start
        devices.seed_everything(0)
        model = VAE((32, 32), latent_dim=8, base=8)
        history = loop.fit(model, images, STEPS, SMALL_BATCH, Path(place, "run"), {}, evaluations=1, plot=False)
        return {
            "images": len(images), "seconds to decode": decoded, "ms a step": 1000 * history[-1]["seconds"] / STEPS,
            "own MiB": own_memory(), "file, MiB": images.numel() * 4 / 2**20,
        }  # fmt: skip


def apart(call: str) -> dict[str, float]:
    """The result of a call of a function of this module in a separate process."""
    program = f"import json, torch; from benchmarks import growth; print(json.dumps(growth.{call}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=config.PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def draw(sides: pd.DataFrame, numbers: pd.DataFrame, path: Path) -> None:
    figure, ((time_a_side, memory_a_side), (time_a_number, memory_a_number)) = plt.subplots(
        2, 2, figsize=(9, 6.8), constrained_layout=True
    )
    for family, rows in sides.groupby("family"):
        time_a_side.plot(rows.side, rows["ms an image"], marker="o", label=family)
        memory_a_side.plot(rows.side, rows["peak MiB"], marker="o", label=family)
    time_a_side.set(yscale="log", ylabel="training on one core, ms an image")
    memory_a_side.set(ylabel=f"peak memory in MiB, batch {BATCH}")
    for axis in (time_a_side, memory_a_side):
        axis.set(xscale="log", xlabel="side of an image in pixels")
        axis.set_xticks(SIDES, [str(s) for s in SIDES])
        axis.minorticks_off()
    time_a_number.plot(numbers.images, numbers["ms a step"], marker="o", label="a training step, ms")
    time_a_number.plot(
        numbers.images, numbers["seconds to decode"], marker="o", ls="--", label="decoding all of them, s"
    )
    memory_a_number.plot(numbers.images, numbers["own MiB"], marker="o", label="memory of the process")
    memory_a_number.plot(numbers.images, numbers["file, MiB"], marker="o", ls="--", label="mapped file")
    for axis, name in ((time_a_number, "time"), (memory_a_number, "MiB")):
        axis.set(xscale="log", yscale="log", xlabel="images of 32 x 32 pixels", ylabel=name)
    for axis in figure.axes:
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def table_of(sides: pd.DataFrame) -> str:
    """A row for each family: the cost of a training image by its side, and the factor when the side doubles."""
    table = {}
    for family, rows in sides.groupby("family", sort=False):
        costs, peaks = rows["ms an image"].tolist(), rows["peak MiB"].tolist()
        row = {f"ms an image, {side} x {side}": cost for side, cost in zip(SIDES, costs)}
        row |= {f"x from {a}": later / cost for a, cost, later in zip(SIDES, costs, costs[1:])}
        table[family] = row | {f"MiB, {side} x {side}": peak for side, peak in zip(SIDES, peaks)}
    return markdown(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost against image size and data size.")
    parser.add_argument("--largest", type=int, default=max(NUMBERS), help="images; a million takes about ten minutes")
    largest = parser.parse_args().largest
    between(SCALING, *PLACE)  # an error here should come before the long measurements
    os.environ["ACCELERATE_USE_CPU"] = "true"  # only the memory of the CPU is measured
    rows = []
    for family in zoo.MODELS:
        for pixels in SIDES:
            rows.append({"family": family, "side": pixels} | apart(f"side({family!r}, {pixels})"))
            print(rows[-1], flush=True)
    sides, rows = pd.DataFrame(rows), []
    for count in (n for n in NUMBERS if n <= largest):
        rows.append(apart(f"number({count})"))
        print(rows[-1], flush=True)
    numbers = pd.DataFrame(rows)
    decoded = {f"{side} x {side}": {"JPEGs decoded a second": decoding(side)} for side in DECODED}
    by_number = {f"{row.pop('images'):,.0f} images": row for row in numbers.to_dict("records")}
    text = "\n\n".join((table_of(sides), markdown(by_number, "folder"), markdown(decoded, "image")))
    print(text)
    write_between(SCALING, *PLACE, text)
    draw(sides, numbers, config.PROJECT / "docs" / "growth.png")


if __name__ == "__main__":
    main()
