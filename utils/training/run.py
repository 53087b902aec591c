"""The state of one training, and the parts of the training loop: restore, step, record, save."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from utils.files import printable, set_aside, write_atomically
from utils.training import checkpoints, devices, recording

SKIPPED = (
    "the gradients are NaN or too large for float16. Train longer, with a lower learning rate, or in float32 "
    "(set ACCELERATE_MIXED_PRECISION=no)."
)
Evaluate = Callable[[nn.Module], dict[str, float]]
MOST_SKIPPED = 50  # steps in a row that float16 may skip; then the scale of the loss has fallen from 7e4 to 6e-11


def ema_copy(module: nn.Module, half_life: float) -> AveragedModel:
    """An exponential moving average (EMA) of a module's weights and buffers. `half_life` is in steps."""
    decay = 0.5 ** (1 / max(1.0, half_life))
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


class Run:
    """A model in training, with its optimisers, the EMA of its modules, the number of finished steps and the history.

    Args:
        model: has `optimizers() -> dict`, `step(batch, update) -> dict of losses` and `ema_modules`.
        steps: number of steps of the whole training.
        folder: folder for the checkpoints and `history.json`.
        config: identifies the run; a checkpoint with another `config` is refused.
        seed: seed of all random numbers.
        ema_half_life: half-life of the EMA in steps.
    """

    def __init__(
        self, model: nn.Module, steps: int, folder: str | Path, config: dict, seed: int, ema_half_life: float
    ) -> None:
        self.accelerator = devices.accelerator()
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        self.steps, self.folder, self.config, self.seed = steps, Path(folder), config, seed
        self.model = model.to(self.device, memory_format=torch.channels_last).train()  # fastest for bfloat16
        self.optimizers = {name: self.accelerator.prepare(o) for name, o in model.optimizers().items()}
        self.learning_rates = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}
        self.ema = {name: ema_copy(getattr(model, name), ema_half_life) for name in model.ema_modules}
        self.step = 0
        self.skipped = dict.fromkeys(self.optimizers, 0)  # steps in a row; see `update`
        self.recording: recording.Recording | None = None  # begins with the first step
        self.history: list[dict] = []
        self.sums: dict[str, tuple[Tensor, int]] = {}  # sum and number of each loss since the history's last row
        self.seconds_before = 0.0  # seconds of training in earlier processes of this run
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training, including those in interrupted processes."""
        return self.seconds_before + time.monotonic() - self.started

    def restore(self, fresh: bool = False) -> str:
        """Go on from the newest checkpoint of the folder, if there is one. Print a line that says so, and return it.

        Args:
            fresh: rename the folder first, and start from the beginning.

        Raises:
            CheckpointMismatch: the checkpoint belongs to another run.
            ValueError: the processes see different data or checkpoints.
        """
        if fresh and self.is_main:
            set_aside(self.folder)
        self.accelerator.wait_for_everyone()
        found = checkpoints.latest(self.folder, self.config, report=tqdm.write)
        every = gather_object([(found.step if found else 0, self.config["data"])])
        if len(set(every)) > 1:
            raise ValueError(
                f"the processes see different images or checkpoints; do all of them share '{printable(self.folder)}'?"
            )
        rank = self.accelerator.process_index
        torch.manual_seed(self.seed + 7919 * rank)  # each process draws its own noise
        if found:
            self._load(found.state)
            self.step = found.step
            if not self.is_main:  # only the main process's random state is in the checkpoint
                torch.manual_seed(self.seed + 7919 * rank + 104_729 * found.step)
        line = f"{printable('/'.join(self.folder.parts[-2:]))}: {self._how_far(found)}"
        if self.is_main:
            tqdm.write(line)
        self.started = time.monotonic()
        return line

    def _how_far(self, found: checkpoints.Checkpoint | None) -> str:
        if found is None:
            return f"starts, {self.steps} steps"
        if found.step < self.steps:
            elsewhere = f", trained on {found.device} so far" if found.device != devices.device_name() else ""
            return f"goes on from step {found.step} of {self.steps}{elsewhere}"
        return f"was finished on {found.date} ({found.device}): loaded"

    def _load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler and state["scaler"]:  # a machine without float16 has none
            self.accelerator.scaler.load_state_dict(state["scaler"])
        for name, average in self.ema.items():
            average.load_state_dict(state["ema"][name])
        self.history, self.seconds_before = state["history"], state["seconds"]
        self.sums = {name: (total.to(self.device), count) for name, (total, count) in state["sums"].items()}
        devices.set_random_state(state["random"])

    def train_step(self, batch: Tensor | tuple[Tensor, ...], learning_rate_scale: float) -> None:
        """One step of the model on a batch, and of the EMA. On an NVIDIA GPU, it is recorded if possible."""
        if self.recording is None and recording.can_record(self):
            self.recording = recording.Recording(self, self._compute)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.learning_rates[name]):
                if self.recording:
                    group["lr"].fill_(rate * learning_rate_scale)
                else:
                    group["lr"] = rate * learning_rate_scale
        if self.recording:
            losses = self.recording.step(batch)
        else:
            losses = self._compute(batch)
            for name, average in self.ema.items():
                average.update_parameters(getattr(self.model, name))
        skipped = any(self.skipped.values())
        for name, loss in devices.mean_over_processes(losses).items():
            if skipped and not torch.isfinite(loss):
                continue
            total, count = self.sums.get(name, (torch.zeros_like(loss), 0))
            self.sums[name] = (total + loss, count + 1)
        self.step += 1

    def _compute(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            return self.model.step(batch, self.update)

    def update(self, name: str, loss: Tensor, clip: float | None = None) -> None:
        """One step of the optimiser `name` to reduce `loss`. The norm of the gradient is clipped to `clip`.

        In float16, the loss is multiplied by a scale, and the gradient is divided by it. If a gradient is too large for
        float16, the step is skipped and the scale is halved.

        Raises:
            FloatingPointError: MOST_SKIPPED steps in a row were skipped.
        """
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.accelerator.num_processes > 1:
            devices.average_gradients(parameters)
        if clip is not None:
            self.accelerator.unscale_gradients(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        self.skipped[name] = self.skipped[name] + 1 if optimizer.step_was_skipped else 0
        if self.skipped[name] == MOST_SKIPPED:
            raise FloatingPointError(f"the last {MOST_SKIPPED} steps of '{name}' were skipped: {SKIPPED}")
        torch.clear_autocast_cache()  # it holds copies of the old weights

    def check_losses(self) -> None:
        """Raise a FloatingPointError if a loss is NaN or infinite. So such a model is never saved."""
        bad = [name for name, (total, _) in self.sums.items() if not torch.isfinite(total)]
        if bad:
            raise FloatingPointError(
                f"{', '.join(bad)} is NaN or infinite at step {self.step}. Start again with a lower learning rate: in "
                "another folder, or with fresh=True (`python -m utils train --fresh`). The last good checkpoint is in "
                f"'{printable(self.folder)}'."
            )

    def record(self, images: int, evaluate: Evaluate | None) -> dict:
        """Add a row to the history: the mean of each loss since the previous row, and the values of `evaluate`."""
        row = {"step": self.step, "images": images, "seconds": self.seconds}
        row |= {name: float(total) / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        if evaluate and self.is_main:
            row |= {name: float(value) for name, value in self.evaluate_with_ema(evaluate).items()}
        self.history.append(row)
        return row

    def evaluate_with_ema(self, evaluate: Evaluate) -> dict[str, float]:
        """Call `evaluate(model)` with the EMA's weights, in eval mode, without gradients.

        Before each call, all random states are set from the same seed. Afterwards, they are restored.
        """
        trained = {name: getattr(self.model, name) for name in self.ema}
        try:
            for name, average in self.ema.items():
                setattr(self.model, name, average.module)
            self.model.eval()
            with torch.no_grad(), devices.seeded(self.seed):
                return evaluate(self.model)
        finally:
            for name, module in trained.items():
                setattr(self.model, name, module)
            self.model.train()

    def save(self) -> None:
        """Write a checkpoint with everything that `restore` needs. Only the main process writes it."""
        if self.is_main:
            state = {
                "model": self.model.state_dict(),
                "optimizers": {
                    name: recording.plain_optimizer(optimizer.state_dict())
                    for name, optimizer in self.optimizers.items()
                },
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "ema": {name: average.state_dict() for name, average in self.ema.items()},
                "history": self.history,
                "sums": self.sums,
                "seconds": self.seconds,
                "random": devices.random_state(),
            }
            checkpoints.save(self.folder, self.step, state, self.config, devices.device_name())

    def finish(self) -> None:
        """Copy the EMA's weights to the model, make them the same in all processes, and write `history.json`.

        JSON has no NaN and no infinity, so these values of an evaluation are null in the file.
        """
        if self.steps in self.skipped.values() and self.is_main:  # a very short run
            tqdm.write(f"NOT TRAINED: all {self.steps} steps were skipped: {SKIPPED}")
        self.recording = None  # its memory on the GPU is free again
        for name, average in self.ema.items():
            getattr(self.model, name).load_state_dict(average.module.state_dict())
        devices.same_everywhere(self.model)
        self.model.eval()
        if self.is_main:
            rows = [{name: x if math.isfinite(x) else None for name, x in row.items()} for row in self.history]
            text = json.dumps(rows, indent=1, allow_nan=False) + "\n"
            write_atomically(self.folder / "history.json", text.encode())
