"""The one training loop that all models share.

A model has `optimizers()`, `step(batch, update)` and `ema_modules`, the names of the modules whose weights get an
exponential moving average (EMA). The model defines its losses. The loop does everything else: device, number format,
learning rates, EMA, progress, plots, evaluation and checkpoints. The parts of the loop are in `run.py`.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.training import devices, identity
from utils.training.progress import Progress
from utils.training.run import Evaluate, Run, ema_copy

WARM_UP_SHARE = 0.02  # share of the training in which the learning rate rises to its full value
DECAY_SHARE = 0.2  # share of the training, at its end, in which it falls to zero
EMA_SHARE = 0.05  # default half-life of the EMA, as a share of the training


def fit(
    model: nn.Module,
    images: Tensor | tuple[Tensor, ...],
    steps: int,
    batch_size: int,
    folder: str | Path,
    config: dict,
    seed: int = 0,
    evaluate: Evaluate | None = None,
    evaluations: int = 10,
    ema_share: float = EMA_SHARE,
    checkpoint_seconds: float = 60,
    plot: bool = True,
    fresh: bool = False,
    data_hash: str | None = None,
) -> list[dict]:
    """Train a model to the end. If `folder` holds a checkpoint, go on from the newest one, and say so.

    Args:
        model: has `optimizers() -> dict`, `step(batch, update) -> dict of losses` and `ema_modules`. Afterwards it
            is in eval mode, and these modules have the weights of their EMA.
        images: float (N, C, H, W) in [-1, 1]; or a tuple of tensors of equal length N, such as images and labels. Then
            `step` gets a tuple too. All tensors are moved to the device.
        steps: number of steps of the whole training, including the steps of an interrupted run.
        batch_size: images in a step, over all processes.
        folder: folder for checkpoints and `history.json`.
        config: the settings of the run. The settings, the data and the model's source code identify the run. A
            checkpoint of another run is refused.
        seed: seed of all random numbers.
        evaluate: a function that is called with the model `evaluations` times during the training. The model has
            the EMA's weights and is in eval mode. The values that it returns are added to the history. It may draw
            random numbers: all random states are seeded for it, and restored afterwards.
        ema_share: half-life of the EMA as a share of the training.
        checkpoint_seconds: time between two checkpoints. A killed run loses at most the work of this time.
        plot: show a progress bar, and plot the history at each evaluation.
        fresh: start from the beginning. The old content of `folder` is kept in `<folder>.old_1` (or `_2`, ...).
        data_hash: a hash that identifies the data, instead of a hash of `images`. Use it for data that a network has
            computed, because the last digits of such data depend on the machine.

    Returns:
        The history: one dict for each evaluation with `step`, `images` (seen so far), `seconds` (of training),
        the mean of each loss since the previous row, and what `evaluate` returned.

    Raises:
        ValueError: a number is too small, the tensors differ in length, or the processes cannot share a batch equally
            or do not see the same files.
        CheckpointMismatch: the folder holds another run. The message names the differences.
        FloatingPointError: a loss became NaN or infinite.
    """
    data = images if isinstance(images, tuple) else (images,)
    rank, processes = devices.accelerator().process_index, devices.accelerator().num_processes
    check(data, processes, steps=steps, batch_size=batch_size, evaluations=evaluations)
    asked = {"steps": steps, "batch_size": batch_size, "seed": seed, "ema_share": ema_share, "images": len(data[0])}
    asked["data"] = data_hash or identity.of_data(data)
    asked["source"] = identity.of_source(model, batch_indices, learning_rate_scale, ema_copy)
    run = Run(model, steps, folder, {**config, **asked}, seed, ema_share * steps)
    said = run.restore(fresh)
    data = tuple(x.to(run.device) for x in data)
    evaluated = {round(steps * (i + 1) / evaluations) for i in range(evaluations)}
    last_save = time.monotonic()
    with Progress(run, said, plot) as progress:
        while run.step < steps:
            chosen = batch_indices(len(data[0]), batch_size, run.step, seed, run.device)
            chosen = chosen.chunk(processes)[rank]  # each process trains on its share of the batch
            batch = tuple(x[chosen] for x in data)
            run.train_step(batch if isinstance(images, tuple) else batch[0], learning_rate_scale(run.step, steps))
            progress.advance()
            saving = run.step == steps or time.monotonic() - last_save > checkpoint_seconds
            if saving or run.step in evaluated:
                run.check_losses()
            if run.step in evaluated:
                progress.show(run.record(run.step * batch_size, evaluate))
            if saving:
                run.save()
                last_save = time.monotonic()
    run.finish()
    return run.history


def check(data: tuple[Tensor, ...], processes: int, **numbers: int) -> None:
    """Check the arguments of `fit`.

    Raises:
        ValueError: a number is less than 1, the processes cannot share the batch equally, or the tensors are empty or
            differ in length.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}, but must be at least 1")
    if numbers["batch_size"] % processes:
        raise ValueError(f"a batch of {numbers['batch_size']} cannot be shared equally by {processes} processes")
    lengths = [len(x) for x in data]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"the tensors to train on must have the same length above 0, not the lengths {lengths}")


def batch_indices(count: int, batch_size: int, step: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Indices (batch_size,) of the images of one step. Each epoch is a new permutation of all `count` images.

    They depend only on `seed` and `step`, so a resumed run sees the same images as an uninterrupted run. The last,
    incomplete batch of an epoch is left out. If there are fewer images than a batch needs, they are repeated.
    """
    batches = max(1, count // batch_size)
    epoch, position = divmod(step, batches)
    order = _epoch_order(count, seed * 1_000_003 + epoch, device)
    if count < batch_size:
        order = order.repeat(-(-batch_size // count))
    return order[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, device: torch.device | str) -> Tensor:
    """A permutation of `count` numbers, the same on every device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(device)


def learning_rate_scale(step: int, steps: int) -> float:
    """Factor on the learning rate, in (0, 1]: it rises linearly, stays at 1, and falls linearly (Hu et al. 2024).

    While the rate is constant, a curve flattens only if there is little left to learn. The small steps at the end
    remove the noise of the last steps.
    """
    return min(1.0, (step + 1) / (WARM_UP_SHARE * steps), (steps - step) / (DECAY_SHARE * steps))
