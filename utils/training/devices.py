"""The seed, the device, the number format and the processes of a training."""

from __future__ import annotations

import os
import random
from datetime import timedelta

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast, parse_flag_from_env, reduce
from torch import Tensor, nn

PATIENCE = timedelta(hours=1)  # with which processes wait for the one that decodes a large folder


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; call it before a network is built, so that its weights repeat."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mixed_precision() -> str:
    """'bf16' where the processor or GPU computes bfloat16 faster than float32, else 'no' (float32).

    A process that Accelerate has started takes what Accelerate was told (`--mixed_precision`, or its config file).
    Intel's processors since Sapphire Rapids (those with avx512_fp16) are fast at it in their matrix units (AMX) alone;
    where a virtual machine hides these, bfloat16 took twice as long as float32 (`python -m benchmarks.training_step`).

    Raises:
        ValueError: Accelerate was told something else than 'no' and 'bf16'.
    """
    told, cpu = os.environ.get("ACCELERATE_MIXED_PRECISION"), parse_flag_from_env("ACCELERATE_USE_CPU")
    if told in ("no", "bf16"):
        return told
    if told:
        raise ValueError(f"mixed precision is '{told}', but must be 'no' or 'bf16': gradients are not scaled here")
    if torch.cuda.is_available() and not cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if torch.backends.mps.is_available() and not cpu:
        return "no"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    vectors = flags.get("avx512_bf16") and not flags.get("avx512_fp16")
    return "bf16" if flags.get("amx_bf16") or vectors or flags.get("bf16") else "no"


def accelerator() -> Accelerator:
    """The process's Accelerator: device, number format and the other processes, if any.

    Raises:
        ValueError: this is one of several that were started together, but knows nothing of the others, as on a CPU
            that Accelerate was not told of: each would train for itself, and all would write to the same files.
    """
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    found = Accelerator(mixed_precision=mixed_precision(), kwargs_handlers=[patience])
    started = int(os.environ.get("WORLD_SIZE", 1))
    if found.num_processes == 1 < started:
        raise ValueError(
            f"{started} processes were started, but each would train alone, into the same folder. With no GPU, set "
            "ACCELERATE_USE_CPU=true; else start one process"
        )
    return found


def over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses (numbers) of a batch that several processes share, from those of this one's share; alone, the same.

    A `step` that returns its losses through this gets those of the whole batch into the history.
    """
    means = reduce(torch.stack([loss.detach().float() for loss in losses.values()]), "mean")
    return dict(zip(losses, means))


def same_everywhere(model: nn.Module) -> None:
    """Give all processes the first one's weights and statistics (batch normalisation counts them in each by itself)."""
    for value in model.state_dict().values():
        value.copy_(broadcast(value.contiguous()))
