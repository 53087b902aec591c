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

WAITING_TIME = timedelta(hours=1)  # how long processes wait for each other; the first one may decode a large folder
NUMBER_FORMATS = ("no", "fp16", "bf16")  # Accelerate's names; "no" means float32 only
TENSOR_CORES = (7, 0)  # GPUs of this compute capability and later are faster in float16 than in float32


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. If you call it before you build a network, its initial weights are reproducible."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`with seeded(0):` seeds everything for the block. Afterwards, all random states are as they were before.

    This includes the states of Python, of NumPy, and of torch on the CPU and on the accelerator in use.
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
    """The number format of the training: 'bf16' (bfloat16), 'fp16' (float16) or 'no' (float32).

    It is bfloat16 if the CPU or GPU is faster with it than with float32. A GPU that has no bfloat16, such as Colab's
    T4, uses float16. Small gradients are 0 in float16, so the loss is scaled there (Micikevicius et al. 2018).
    A process that Accelerate has started uses Accelerate's setting (`--mixed_precision` or its config file).

    Intel processors with avx512_fp16 (Sapphire Rapids and newer) are fast in bfloat16 only with their matrix units
    (AMX). Some virtual machines hide these units. Without them, bfloat16 took twice as long as float32
    (`python -m benchmarks.training_step`).

    Raises:
        ValueError: Accelerate's setting is none of NUMBER_FORMATS.
    """
    told, cpu_only = os.environ.get("ACCELERATE_MIXED_PRECISION"), parse_flag_from_env("ACCELERATE_USE_CPU")
    if told in NUMBER_FORMATS:
        return told
    if told:
        raise ValueError(f"mixed precision is '{told}', but must be one of: {', '.join(NUMBER_FORMATS)}")
    if torch.cuda.is_available() and not cpu_only:
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability() >= TENSOR_CORES else "no"
    if torch.backends.mps.is_available() and not cpu_only:
        return "no"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast_vectors = flags.get("avx512_bf16") and not flags.get("avx512_fp16")
    return "bf16" if flags.get("amx_bf16") or fast_vectors or flags.get("bf16") else "no"


def accelerator() -> Accelerator:
    """The Accelerator of this process: its device, its number format, and the other processes if there are any.

    On an NVIDIA GPU, this function also sets how convolutions are computed. The fastest algorithm is looked for, unless
    deterministic algorithms are asked for. Numbers in float32 are not rounded to 10 bits (TF32), so that samples are
    the same as on a CPU.

    Raises:
        ValueError: several processes were started together, but they are not connected. This happens on a machine
            without a GPU if ACCELERATE_USE_CPU is not set. Each process would train alone, and all would write to the
            same files.
    """
    waiting = InitProcessGroupKwargs(timeout=WAITING_TIME)
    found = Accelerator(mixed_precision=mixed_precision(), kwargs_handlers=[waiting])
    started = int(os.environ.get("WORLD_SIZE", 1))
    if found.num_processes == 1 < started:
        raise ValueError(
            f"{started} processes were started, but each would train alone, into the same folder. "
            "On a machine without a GPU, set ACCELERATE_USE_CPU=true. Otherwise start one process."
        )
    if found.mixed_precision == "fp16" and found.scaler is None:  # Accelerate scales on GPUs only
        found.scaler, found.native_amp = torch.amp.GradScaler(found.device.type), True
    if found.device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        torch.backends.cudnn.allow_tf32 = False
    return found


def device_name() -> str:
    """A readable name of the device in use: 'cpu', or the name of the GPU."""
    device = accelerator().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def drawn_on(generator: torch.Generator | None, device: torch.device) -> torch.device:
    """Where to draw random numbers for `device`: there, or on the device of the generator if one is given."""
    return device if generator is None else generator.device


def random_state() -> dict[str, Tensor]:
    """The random states of torch by device type: the CPU, and the accelerator in use if there is one."""
    device = accelerator().device
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Restore what `random_state` has returned. The machine may have another accelerator; its state is not changed."""
    device = accelerator().device
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def mean_over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses (scalars) of the whole batch: the means over all processes, each of which has a share of the batch."""
    means = reduce(torch.stack([loss.detach().float() for loss in losses.values()]), "mean")
    return dict(zip(losses, means))


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace all gradients by their mean over the processes, in one message.

    Each message between processes costs time, even a short one, and a model has up to 160 gradient tensors.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def same_everywhere(model: nn.Module) -> None:
    """Give all processes the weights and statistics of the first one.

    The batch-normalisation statistics differ, because each process computes them from its own share of each batch.
    """
    for value in model.state_dict().values():
        value.copy_(broadcast(value.contiguous()))
