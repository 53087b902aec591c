"""The shortest time that this machine could need for a PyTorch computation."""

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
REPEATS = 8  # of these repeats, the fastest counts
ONLY_WRITTEN = ("copy_", "fill_", "zero_")  # they do not read the old content of their first argument
ONLY_IN_PART = ("index", "gather", "index_select", "embedding")  # they read as much as they write


def wait() -> None:
    """Wait until the GPU has finished its work. The CPU needs no waiting."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fastest(call, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several calls."""
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
    side = 2048 if device.type == "cpu" else 8192  # a smaller product does not fill a GPU
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / fastest(lambda: a @ a) / 1e9


def bandwidths(device: torch.device = CPU) -> dict[int, float]:
    """GB/s of copies, by the number of bytes that are read and written. Small copies are measured many at a time."""
    found = {}
    for count in COPIED:
        source = torch.zeros(count // 4, device=device)
        target, times = torch.empty_like(source), max(1, 4_000_000 // count)
        seconds = fastest(lambda t=target, s=source, n=times: [t.copy_(s) for _ in range(n)]) / times
        found[2 * count] = 2 * count / seconds / 1e9
    return found


@cache
def call_seconds(device: torch.device = CPU) -> float:
    """Seconds for calling an operator that computes almost nothing: it adds 1 to one number."""
    number = torch.zeros(1, device=device)
    return fastest(lambda: [number.add_(1) for _ in range(1000)], 10 * REPEATS) / 1000


def bytes_moved(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """The smallest number of bytes that an operator must read and write. An expanded tensor is read only once."""
    if name in ONLY_WRITTEN:
        inputs = inputs[1:]
    if name in ONLY_IN_PART:
        inputs = outputs
    return sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in inputs + outputs)


class Roofline(TorchDispatchMode):
    """A context that counts operators, the shortest time that they could take, and the time that they took.

    The limit of an operator is the larger one of two times (the roofline of Williams et al. 2009, who use it for whole
    programs):

    - its multiplications and additions at the peak of its number format,
    - reading its inputs and writing its outputs at the speed of the fastest copy with at least as many bytes.

    Views cost nothing. A compiler would merge some operators. Here each one counts, so this is the limit of PyTorch
    without a compiler. `products` are convolutions and matrix products.

    Args:
        peaks: GFLOP/s by number format. A format that is missing gets the peak of float32.
        rates: GB/s by number of bytes.
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
