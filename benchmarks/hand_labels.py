"""The time of coursework 2 on this machine, from nothing to the CSV, beside a plain ResNet-18 in the same run.

    make benchmark-labels        or        python -m benchmarks.hand_labels

This writes a table of `docs/speed.md`. Ours: the networks that label the test folder, with the committed settings and
the length of the profile full. The opponent: as many ResNet-18s, with the same settings and length. A training is
measured by its steps in `loop.fit`, and calculated for the whole length. Labelling is `hand_study.mean_logits` on as
many images as the test folder has; the opponent labels a part of them. Both take turns for several rounds. This takes
about 4 minutes on two free cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch

from benchmarks.limit import wait
from benchmarks.models import PAGE, SECONDS, Case, between, images, markdown, our_step, rate, write_between
from utils import budgets, config
from utils.data import image_files
from utils.evaluation import hand_study
from utils.models import classifier
from utils.models.classifier import Classifier
from utils.training import devices, loop

FILES = 8434  # in the course's test folder
PLACE, COMMAND = "table of coursework 2", "benchmark-labels"
PART = 512  # images that the opponent labels with one network
ROUNDS = 3
WARM_UP = 3  # steps


def training_rate(case: Case) -> float:
    """Images per second in `loop.fit`, without the first steps."""
    steps = max(WARM_UP + 2, round(SECONDS * rate(our_step(case), case.batch_size) / case.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        rows = loop.fit(case.build(), case.data, 2 * steps, case.batch_size, folder, {}, evaluations=2, plot=False)
    return steps * case.batch_size / (rows[1]["seconds"] - rows[0]["seconds"])


def labelling_rate(models: list[Classifier], pixels: np.ndarray) -> float:
    """Images per second and network."""
    start = time.perf_counter()
    hand_study.mean_logits(models, pixels)
    wait()
    return len(models) * len(pixels) / (time.perf_counter() - start)


def table(rounds: list[dict[str, float]], networks: int, seen: int) -> dict[str, dict[str, float]]:
    """The rows of ours and of the opponent, from the rates of each round, and the median ratios within a round."""
    rows = {}
    for name in ("ours", "ResNet-18"):
        learning, labelling = (median(r[f"{name}, {what}"] for r in rounds) for what in ("training", "labelling"))
        rows[name] = {
            "learns, images/s": learning,
            f"training {networks} networks of {seen:,} images (min)": networks * seen / learning / 60,
            "labels, images/s": labelling,
            f"labelling {FILES} images (s)": networks * FILES / labelling,
        }
    learning, labelling = (
        median(r[f"ours, {what}"] / r[f"ResNet-18, {what}"] for r in rounds) for what in ("training", "labelling")
    )
    columns = list(rows["ours"])
    rows["ours / ResNet-18"] = dict(zip(columns, (learning, 1 / learning, labelling, 1 / labelling)))
    return rows


def main() -> None:
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # `wait` knows only CUDA
    between(PAGE, PLACE, COMMAND)  # an error here should come before the long measurements
    budget, settings = budgets.CLASSIFIER["full"], config.hyperparameters("classifier", committed=True)
    networks, seen = budget.folds * budget.seeds, budget.images + budget.pretraining_images
    hands = images(2000, (32, 32))
    data, pixels = (hands, torch.arange(len(hands)) % 3), np.resize(image_files.to_uint8(hands), (FILES, 1, 32, 32))
    ways: dict[str, Callable[[], float]] = {}
    for name, more in (("ours", {}), ("ResNet-18", {"resnet": True})):
        build = partial(Classifier, **settings | more)
        # `loop.fit` leaves a network in this memory format
        place = {"device": devices.accelerator().device, "memory_format": torch.channels_last}
        made = [build().to(**place).eval() for _ in range(1 if more else networks)]
        ways[f"{name}, training"] = partial(training_rate, Case(build, data, classifier.BATCH_SIZE))
        ways[f"{name}, labelling"] = partial(labelling_rate, made, pixels[:PART] if more else pixels)
    rounds = [{name: measure() for name, measure in ways.items()} for _ in range(ROUNDS)]
    machine = f"{devices.device_name()}, {torch.get_num_threads()} threads, {devices.mixed_precision()}."
    text = f"{machine}\n\n{markdown(table(rounds, networks, seen), first='networks')}"
    write_between(PAGE, PLACE, COMMAND, text)
    print(text)


if __name__ == "__main__":
    main()
