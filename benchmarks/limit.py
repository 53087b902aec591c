"""The least time that this machine could take for what PyTorch is asked to compute."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

CPU = torch.device("cpu")
COPIED = [4**k for k in range(6, 15)]  # bytes, 4 kB to 268 MB: small tensors stay in the processor's caches
REPEATS = 8  # the fastest of so many counts
ONLY_WRITTEN = ("copy_", "fill_", "zero_")  # what their first argument held is not read
ONLY_IN_PART = ("index", "gather", "index_select", "embedding")  # they read as much as they write


def wait() -> None:
    """Until a GPU has done all that it was given; on the CPU it always has."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fastest(call, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def matmul_peak(dtype: torch.dtype, device: torch.device = CPU) -> float:
    """Measured peak of matrix multiplication on this machine, in GFLOP/s."""
    side = 2048 if device.type == "cpu" else 8192  # a GPU is not filled by less
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / fastest(lambda: a @ a) / 1e9


def bandwidths(device: torch.device = CPU) -> dict[int, float]:
    """GB/s by bytes read and written, measured with copies; many small ones make one measurement."""
    found = {}
    for count in COPIED:
        source = torch.zeros(count // 4, device=device)
        target, times = torch.empty_like(source), max(1, 4_000_000 // count)
        seconds = fastest(lambda t=target, s=source, n=times: [t.copy_(s) for _ in range(n)]) / times
        found[2 * count] = 2 * count / seconds / 1e9
    return found


@cache
def call_seconds(device: torch.device = CPU) -> float:
    """Seconds that an operator takes which has next to nothing to compute: an addition to one number."""
    number = torch.zeros(1, device=device)
    return fastest(lambda: [number.add_(1) for _ in range(1000)], 10 * REPEATS) / 1000


def bytes_moved(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Bytes that an operator reads and writes at least; an expanded tensor is read once."""
    if name in ONLY_WRITTEN:
        inputs = inputs[1:]
    if name in ONLY_IN_PART:
        inputs = outputs
    return sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in inputs + outputs)


class Roofline(TorchDispatchMode):
    """Counts the operators that are called within it, the least seconds that they take, and those that they took.

    An operator takes at least as long as its multiplications and additions do at the peak of its number format (in
    `peaks`, GFLOP/s; where it is not there, that of float32), and as long as reading its inputs and writing its outputs
    does at the `rates` (GB/s, by bytes) of the fastest copy of as much or more; the larger counts (Williams et al.
    2009, there for a whole program). Views cost nothing. Operators that a compiler would merge are counted one by one,
    so this is the limit of PyTorch without one. `products` are the operators that multiply matrices or convolve.
    """

    def __init__(self, peaks: dict[torch.dtype, float], rates: dict[int, float]):
        super().__init__()
        self.peaks, self.rates = peaks, rates
        self.operators, self.flops, self.arithmetic_seconds, self.seconds, self.taken = 0, 0, 0.0, 0.0, 0.0
        self.products_seconds, self.products_taken = 0.0, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        wait()
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        wait()
        taken = time.perf_counter() - start
        returned = [r.alias_info for r in func._schema.returns]
        if any(alias is not None and not alias.is_write for alias in returned) or "empty" in func.__name__:
            return out
        inputs, outputs = ([x for x in tree_leaves(y) if isinstance(x, Tensor)] for y in ((args, kwargs), out))
        moved = bytes_moved(func._schema.name.split("::")[-1], inputs, outputs)
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
        rate = max((self.rates[size] for size in self.rates if size >= moved), default=self.rates[max(self.rates)])
        peak = self.peaks.get(inputs[0].dtype if inputs else None, self.peaks[torch.float32])
        seconds = max(flops / peak, moved / rate) / 1e9
        self.operators += 1
        self.flops += flops
        self.arithmetic_seconds += flops / peak / 1e9
        self.seconds += seconds
        self.taken += taken
        if flops:
            self.products_seconds += seconds
            self.products_taken += taken
        return out
