"""A simulated second device. Its tensors are in main memory, but they cannot be mixed with tensors of the CPU.

`with pretend.device() as there:` registers the device with PyTorch and Accelerate. It refuses the same things as a GPU:
an operator on tensors of both devices, random numbers on the device from a generator of the CPU, and `.numpy()`. It
computes the same values as the CPU, so whole trainings can be rehearsed. It lacks the features of CUDA: streams,
bfloat16, and its own memory. Its random numbers are those of the CPU. With `device(own_noise=True)`, they are others,
as on a GPU.

This command executes the code of a notebook on the device, without saving the outputs:

    PROFILE=smoke RUNS_FOLDER=/tmp/rehearsal python -m tests.pretend username_DLcw1_clean.ipynb
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import torch
from accelerate import PartialState
from IPython.core.interactiveshell import InteractiveShell
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "pretended"
COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")  # may take tensors of both devices
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index")  # the indices may be on the CPU


class Pretended(Tensor):
    """A tensor on the simulated device. It holds a tensor in main memory."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip

    def __init__(self, held: Tensor):
        self.held = held

    def __repr__(self, **_) -> str:
        return f"Pretended({self.held!r})"

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)  # torch.load puts it on the CPU

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class Factories(TorchDispatchMode):
    """Creates tensors on the device, for operators without a tensor of the device among their arguments."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def plain(values) -> list[Tensor]:
    """The tensors among `values` that are not on the device."""
    return [x for x in tree_leaves(values) if isinstance(x, Tensor) and not isinstance(x, Pretended)]


def written(func, args: tuple, kwargs: dict) -> list:
    """The arguments that an operator writes to."""
    given = kwargs | {declared.name: value for declared, value in zip(func._schema.arguments, args)}
    changed = [x.name for x in func._schema.arguments if x.alias_info is not None and x.alias_info.is_write]
    return [given[name] for name in changed if name in given]


def dispatch(func, args: tuple, kwargs: dict):
    """Compute in main memory, and refuse what a GPU would refuse."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in given if isinstance(x, Pretended)]
    asked, name = kwargs.get("device"), func._schema.name
    there = bool(ours) if asked is None else torch.device(asked).type == NAME
    if name not in COPIES:
        checked = [args[0], *args[2:]] if name in INDEXED and isinstance(args[0], Pretended) else (args, kwargs)
        numbers = [x for x in plain(checked) if not x.dim()]  # a GPU can read these from the CPU, but not write them
        if ours and (len(plain(checked)) > len(numbers) or plain(written(func, args, kwargs))):
            raise RuntimeError(f"{name}: tensors on '{NAME}' and on the CPU, {[tuple(x.shape) for x in given]}")
        if there and isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"{name}: random numbers on '{NAME}' from a generator of the CPU")
    elif name == "aten::copy_":
        there = isinstance(args[0], Pretended)
    if name in COPIES and there:
        Module.sent += [tuple(x.shape) for x in plain((args, kwargs))]
    if asked is not None and there:
        kwargs = kwargs | {"device": torch.device("cpu")}
    held_args, held_kwargs = tree_map_only(Pretended, lambda x: x.held, (args, kwargs))
    if there and Module.own_noise and torch.Tag.nondeterministic_seeded in func.tags:
        with torch.random.fork_rng([]):
            torch.manual_seed(Module.own_noise)
            Module.own_noise += 1
            out = func(*held_args, **held_kwargs)
    else:
        out = func(*held_args, **held_kwargs)
    known = {id(x.held): x for x in ours}

    def wrap(x: Tensor) -> Tensor:
        return known[id(x)] if id(x) in known else Pretended(x)

    return tree_map_only(Tensor, wrap, out) if there else out


class Module(backend_registration._DummyBackendModule):
    """`torch.pretended`, with the functions that `torch.autocast` and `torch.random.fork_rng` need.

    Random numbers come from the CPU's generator, unless `own_noise` is a seed above 0. The device's random state is
    only stored, so that a test can see whether it is forked.
    """

    own_noise = 0
    sent: list[tuple[int, ...]] = []  # shapes of the tensors that were copied from the CPU to the device
    random_state = torch.zeros(1, dtype=torch.uint8)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: torch.device) -> Tensor:
        return self.random_state.clone()

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        self.random_state = state.clone()

    def manual_seed_all(self, seed: int) -> None:
        self.random_state = torch.tensor([seed % 251], dtype=torch.uint8)


@cache
def register() -> torch.library.Library:
    """Register the device and its copies with PyTorch. `Factories` does not see the copy of a list that is an index."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
    library = torch.library.Library("aten", "IMPL")

    def empty_strided(size, stride, dtype=None, **_) -> Tensor:
        return Pretended(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        Module.sent += [tuple(source.shape)]
        target.held.copy_(source)
        return target

    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    return library


@contextlib.contextmanager
def device(own_noise: bool = False) -> Iterator[torch.device]:
    """Use the device inside the `with` block. With `own_noise`, it draws other random numbers than the CPU."""
    register()
    state, here = PartialState(), torch.device(NAME, 0)
    before, state.device = state.device, here
    Module.own_noise = 1_000 if own_noise else 0
    try:
        with Factories():
            yield here
    finally:
        state.device, Module.own_noise = before, 0


def main() -> None:
    path = Path(sys.argv[1]).resolve()
    os.chdir(path.parent)
    os.environ["MPLBACKEND"] = "Agg"  # figures are drawn but not shown
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    shell = InteractiveShell.instance()
    with device():
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
            if cell.cell_type == "code" and not shell.run_cell(cell.source).success:
                sys.exit(f"{path.name}: cell {number} failed on the device")


if __name__ == "__main__":
    main()
