"""The one loop that every model shares.

A model brings `optimizers()`, `step(images, update)` and `ema_modules` (the names of the parts whose
weights are averaged over training); it knows its losses. The loop knows optimisation: devices,
number format, learning-rate schedule, averaging, progress, plots, evaluation and checkpoints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from livelossplot import PlotLosses
from livelossplot.outputs import MatplotlibPlot
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from utils.training import checkpoints, devices

CONSTANT_SHARE = 0.4  # of training at the full learning rate; it then falls linearly to zero
AVERAGE_SHARE = 0.05  # of training is the half-life of the weight average, where nothing else is said


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices (batch_size,) of the images of one step: each epoch a new permutation of all.

    They depend on `seed` and `step` alone, so a resumed run sees the images that an undisturbed
    one does. The last, incomplete batch of an epoch is left out; small sets are repeated.
    """
    batches = max(1, count // batch_size)
    epoch, position = divmod(step, batches)
    order = _epoch_order(count, seed * 1_000_003 + epoch)
    if count < batch_size:
        order = order.repeat(-(-batch_size // count))
    return order[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int) -> Tensor:
    """A permutation of so many images."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def learning_rate_scale(step: int, steps: int) -> float:
    """Factor on the learning rate in [0, 1]: constant at first, then linear to zero, so that the
    generator stops moving about before its samples are taken."""
    left = 1 - step / steps
    return min(1.0, left / (1 - CONSTANT_SHARE))


def averaged_copy(module: nn.Module, half_life: float) -> AveragedModel:
    """An exponential moving average of a module's weights and buffers; its half-life is in steps."""
    decay = 0.5 ** (1 / max(1.0, half_life))
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def fit(
    model: nn.Module,
    images: Tensor | tuple[Tensor, ...],
    steps: int,
    batch_size: int,
    folder: str | Path,
    config: dict,
    seed: int = 0,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluations: int = 10,
    average_share: float = AVERAGE_SHARE,
    checkpoint_seconds: float = 60,
    plot: bool = True,
) -> list[dict]:
    """Train a model to the end, going on from the newest checkpoint of `folder` if there is one.

    Args:
        model: has `optimizers() -> dict`, `step(images, update) -> dict of losses` and `ema_modules`.
            On return, the averaged parts hold their averaged weights, and the model is in eval mode.
        images: float (N, C, H, W) in [-1, 1]; or a tuple of tensors of equal length N (images and
            labels, say), and `step` gets a tuple too. Kept whole on the device.
        steps: optimisation steps in all, those of an interrupted run included.
        batch_size: images a step over all processes.
        folder: for checkpoints and `history.json`.
        config: what identifies the run; a checkpoint with another one is refused.
        evaluate: called with the model (averaged weights, eval mode) `evaluations` times on the
            way; what it returns joins the history. It must not draw from the global random state.
        average_share: half-life of the weight average as a share of the training, so that a short and
            a long training average over the same part of their course.
        checkpoint_seconds: at most so much work is lost when the process is killed.

    Returns:
        History: one dict per evaluation with `step`, `images` (seen), `seconds` (of training, those
        of interrupted runs included), the mean of each loss since the row before, and what
        `evaluate` returned.

    Raises:
        CheckpointMismatch: the folder holds another run's checkpoint.
        ValueError: the processes cannot share a batch equally, or the tensors differ in length.
        FloatingPointError: a loss became NaN or infinite.
    """
    accelerator = devices.accelerator()
    main, device, world = accelerator.is_main_process, accelerator.device, accelerator.num_processes
    model.to(device, memory_format=torch.channels_last).train()  # the faster one for bfloat16 convolutions
    data = tuple(x.to(device) for x in (images if isinstance(images, tuple) else (images,)))
    count = len(data[0])
    if any(len(x) != count for x in data):
        raise ValueError(f"the tensors to train on differ in length: {', '.join(str(len(x)) for x in data)}")
    optimizers = model.optimizers()
    rates = {name: [g["lr"] for g in o.param_groups] for name, o in optimizers.items()}
    averages = {n: averaged_copy(getattr(model, n), average_share * steps) for n in model.ema_modules}
    if batch_size % world:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {world} processes")
    asked = {"steps": steps, "batch_size": batch_size, "seed": seed, "average_share": average_share}
    config = {**config, **asked, "images": count}
    torch.manual_seed(seed + 7919 * accelerator.process_index)  # every process draws its own noise
    history, step, sums, seconds = [], 0, {}, 0.0

    found = checkpoints.latest(folder, config, report=tqdm.write)
    if found:
        step, state = found
        model.load_state_dict(state["model"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, average in averages.items():
            average.load_state_dict(state["averages"][name])
        history, sums, seconds = state["history"], state["sums"], state["seconds"]
        if main:
            torch.set_rng_state(state["random"])
        else:
            torch.manual_seed(seed + 7919 * accelerator.process_index + 104_729 * step)
        if main and device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], device)

    def save() -> None:
        if main:
            state = {
                "model": model.state_dict(),
                "optimizers": {n: o.state_dict() for n, o in optimizers.items()},
                "averages": {n: a.state_dict() for n, a in averages.items()},
                "history": history,
                "sums": sums,
                "seconds": seconds + time.monotonic() - start,
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            }
            checkpoints.save(folder, step, state, config)

    def update(name: str, loss: Tensor, clip: float | None = None) -> None:
        """One step of one optimiser down the gradient of `loss`, averaged over the processes."""
        optimizer = optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad()
        accelerator.backward(loss)
        if world > 1:
            for p in parameters:
                p.grad = accelerator.reduce(p.grad, "mean")
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        torch.clear_autocast_cache()  # its bfloat16 copies are of the weights before the step

    marks = sorted({round(steps * (i + 1) / evaluations) for i in range(evaluations)} - {0})
    board = (
        PlotLosses(outputs=[MatplotlibPlot(max_cols=3, cell_size=(5, 3))], step_names="step") if plot and main else None
    )
    for row in history if board else []:
        board.update(_plotted(row), current_step=row["step"])
    start = last_save = time.monotonic()
    share = batch_size // world
    bar = tqdm(total=steps, initial=step, disable=not (plot and main), file=sys.stdout, mininterval=2, leave=False)
    try:
        while step < steps:
            scale = learning_rate_scale(step, steps)
            for name, optimizer in optimizers.items():
                for group, rate in zip(optimizer.param_groups, rates[name]):
                    group["lr"] = rate * scale
            chosen = batch_indices(count, batch_size, step, seed)
            chosen = chosen[accelerator.process_index * share :][:share].to(device)
            batch = tuple(x[chosen] for x in data)
            with accelerator.autocast():
                losses = model.step(batch if isinstance(images, tuple) else batch[0], update)
            for name, average in averages.items():
                average.update_parameters(getattr(model, name))
            step += 1
            for name, value in losses.items():
                total, times = sums.get(name, (0.0, 0))
                sums[name] = (total + value.detach().float(), times + 1)
            bar.update()
            saving = step == steps or time.monotonic() - last_save > checkpoint_seconds
            if step in marks or saving:
                bad = [name for name, (total, _) in sums.items() if not torch.isfinite(total)]
                if bad:
                    raise FloatingPointError(
                        f"{', '.join(bad)} is no longer finite at step {step}: lower the learning rate. "
                        f"The last checkpoint in '{folder}' is from before."
                    )
            if step in marks:
                row = {"step": step, "images": step * batch_size, "seconds": seconds + time.monotonic() - start}
                row |= {name: float(total) / times for name, (total, times) in sums.items()}
                sums = {}
                if evaluate and main:
                    row |= {name: float(x) for name, x in evaluate_averaged(model, averages, evaluate).items()}
                history.append(row)
                if board:
                    board.update(_plotted(row), current_step=step)
                    if step < steps:
                        board.send()
            if saving:
                save()
                last_save = time.monotonic()
    except KeyboardInterrupt:
        tqdm.write(f"Stopped by hand at step {step} of {steps}; run it again to go on from the last checkpoint.")
        raise
    finally:
        bar.close()
    if board:
        board.send()
    for name, average in averages.items():
        getattr(model, name).load_state_dict(average.module.state_dict())
    model.eval()
    if main:
        Path(folder, "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    return history


def evaluate_averaged(model: nn.Module, averages: dict[str, AveragedModel], evaluate: Callable) -> dict[str, float]:
    """Call `evaluate(model)` with the averaged parts in place, in eval mode and without gradients."""
    raw = {name: getattr(model, name) for name in averages}
    try:
        for name, average in averages.items():
            setattr(model, name, average.module)
        model.eval()
        with torch.no_grad():
            return evaluate(model)
    finally:
        for name, module in raw.items():
            setattr(model, name, module)
        model.train()


def _plotted(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("step", "images", "seconds")}
