"""Seeds, the device, the number format, and the processes of a training."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast, parse_flag_from_env, reduce
from torch import Tensor, nn

WAITING_TIME = timedelta(hours=1)  # that processes wait for each other: the first one may decode a large folder
NUMBER_FORMATS = ("no", "bf16")  # Accelerate's names; "no" is float32 alone


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Call it before a network is built, so that its first weights are the same again."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`with seeded(0):` seeds everything for the block. Afterwards all random states are as they were before.

    These are the states of Python, of NumPy, and of torch on the CPU and on the accelerator in use.
    """
    device = accelerator().device
    forked = [] if device.type == "cpu" else [device]  # the CPU's state is always forked
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(forked, device_type=device.type):
            seed_everything(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def mixed_precision() -> str:
    """'bf16' where the CPU or GPU computes faster in bfloat16 than in float32, else 'no' (float32).

    A process that Accelerate has started uses what Accelerate was told (`--mixed_precision` or its config file).
    Intel's processors since Sapphire Rapids, those with avx512_fp16, are fast in bfloat16 only in their matrix units
    (AMX). Some virtual machines hide these units. Without them, bfloat16 took twice as long as float32
    (`python -m benchmarks.training_step`).

    Raises:
        ValueError: Accelerate was told something else than 'no' or 'bf16'.
    """
    told, cpu_only = os.environ.get("ACCELERATE_MIXED_PRECISION"), parse_flag_from_env("ACCELERATE_USE_CPU")
    if told in NUMBER_FORMATS:
        return told
    if told:
        raise ValueError(
            f"mixed precision is '{told}', but must be 'no' or 'bf16': float16 needs scaled gradients, "
            "which this project does not have"
        )
    if torch.cuda.is_available() and not cpu_only:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if torch.backends.mps.is_available() and not cpu_only:
        return "no"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast_vectors = flags.get("avx512_bf16") and not flags.get("avx512_fp16")
    return "bf16" if flags.get("amx_bf16") or fast_vectors or flags.get("bf16") else "no"


def accelerator() -> Accelerator:
    """The Accelerator of this process: its device, its number format, and the other processes if there are any.

    Raises:
        ValueError: several processes were started together, but this one does not know the others. This happens on a
            CPU that Accelerate was not told of. Each would train alone, and all would write the same files.
    """
    waiting = InitProcessGroupKwargs(timeout=WAITING_TIME)
    found = Accelerator(mixed_precision=mixed_precision(), kwargs_handlers=[waiting])
    started = int(os.environ.get("WORLD_SIZE", 1))
    if found.num_processes == 1 < started:
        raise ValueError(
            f"{started} processes were started, but each would train alone, into the same folder. "
            "On a machine without a GPU, set ACCELERATE_USE_CPU=true. Otherwise start one process."
        )
    return found


def device_name() -> str:
    """The device in use, for people: 'cpu', or the name of the GPU."""
    device = accelerator().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def random_state() -> dict[str, Tensor]:
    """The random states of torch by device: that of the CPU, and that of the accelerator in use if there is one."""
    device = accelerator().device
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Go back to what `random_state` has returned, perhaps on a machine with another accelerator."""
    device = accelerator().device
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def mean_over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses (numbers) of the whole batch, from those of this process's share of it; with one process the same."""
    means = reduce(torch.stack([loss.detach().float() for loss in losses.values()]), "mean")
    return dict(zip(losses, means))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace all gradients by their mean over the processes, in one message.

    Each message between processes costs time, however short it is, and a model has up to 160 tensors of gradients.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def same_everywhere(model: nn.Module) -> None:
    """Give all processes the weights and statistics of the first one.

    The statistics of batch normalisation differ: each process counts those of its own share of the batches.
    """
    for value in model.state_dict().values():
        value.copy_(broadcast(value.contiguous()))
