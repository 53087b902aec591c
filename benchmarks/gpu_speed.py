"""The speed of every model's training on a GPU: a plain loop, ours, and ours compiled.

    python -m benchmarks.gpu_speed FILE

The table is written to FILE after every measurement, so a stopped measurement leaves a table too. `make gpu` calls
this. The models and the loops are those of `benchmarks.models`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import models
from utils import config, files
from utils.training import devices

WHOLE = "a full training, minutes"
COLUMNS = ("plain, images/s", "ours, images/s", "ratio", "recording", "GPU busy", WHOLE)
COMPILED, DIFFERENCE = "compiled", "compiled: losses differ by"
COMPARED = 10  # steps whose losses are compared
ROUNDS, SECONDS = 2, 0.3  # as in `benchmarks.models`, but shorter: there is little time on a lent GPU
PLACE, COMMAND = "speed on a GPU", "gpu"


def losses(case: models.Case, compiled: bool) -> list[float]:
    """The sums of the losses of the first steps, from seeded weights and seeded noise."""
    devices.seed_everything(0)
    step, found = models.our_step(case, compiled), []
    for number in range(COMPARED):
        torch.manual_seed(number)
        found.append(float(sum(step().values())))
    return found


def compiled_row(case: models.Case) -> dict[str, float]:
    """The speed of our step when it is compiled, relative to our step, and the largest relative change of the loss.

    Neither is recorded.
    """
    plain, compiled = losses(case, False), losses(case, True)
    steps = {"ours": models.our_step(case), "compiled": models.our_step(case, True)}
    ways = {key: partial(models.rate, step, case.batch_size) for key, step in steps.items()}
    difference = max(abs(a - b) / abs(a) for a, b in zip(plain, compiled))
    return {COMPILED: models.by_turns(ways)["compiled"], DIFFERENCE: difference}


def training_row(case: models.Case) -> dict[str, float]:
    """The speed of the plain loop and of ours, and the minutes of a training in the profile full at our speed.

    The minutes do not include evaluations and checkpoints.
    """
    row = models.training_row(case)
    return row | {WHOLE: case.course.images_seen / row["ours, images/s"] / 60}


def attempt(measure: Callable[[], dict[str, float]], what: str) -> dict[str, float]:
    """The result of a measurement. An error is printed, and the cells stay empty."""
    try:
        return measure()
    except Exception as error:  # a compiler raises many kinds of error
        print(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
        return {}


def main() -> None:
    target = Path(sys.argv[1])
    models.ROUNDS, models.SECONDS = (1, 0.01) if config.profile() == "smoke" else (ROUNDS, SECONDS)
    device, formats = devices.device_name(), devices.mixed_precision()
    columns = [*COLUMNS, COMPILED, DIFFERENCE]
    table: dict[str, dict[str, float | None]] = {}
    first = f"{device}, PyTorch {torch.__version__}, mixed precision: {formats}, {torch.get_num_threads()} threads."

    def add(name: str, row: dict[str, float]) -> None:
        table[name] = table.get(name, dict.fromkeys(columns)) | {key: row[key] for key in columns if key in row}
        text = f"{first}\n\n{models.markdown(table)}"
        files.write_atomically(target, f"{text}\n".encode())
        if torch.cuda.is_available():
            models.write_between(config.PROJECT / "docs" / "speed.md", PLACE, COMMAND, text)
        print(f"{name}: {row}", flush=True)

    cases = models.cases()
    for name, case in cases.items():
        add(name, attempt(lambda case=case: training_row(case), name))
    for name, case in cases.items() if torch.cuda.is_available() else ():
        add(name, attempt(lambda case=case: compiled_row(case), f"{name}, compiled"))


if __name__ == "__main__":
    main()
