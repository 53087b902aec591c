"""On an NVIDIA GPU: records a training step as a CUDA graph, and replays it.

A step of a small network starts hundreds of short kernels. Python needs more time to start them than the GPU needs to
run them. A CUDA graph holds all kernels of a step, and one call starts it. The arithmetic stays the same.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

if TYPE_CHECKING:
    from utils.training.run import Run

WARM_UP = 12  # steps before the recording: in them, cuDNN looks for its fastest algorithms
SHORTEST = 100  # steps; a shorter training is not recorded


def can_record(run: Run) -> bool:
    """Whether the steps of a run can be recorded.

    In float16, the scale of the loss is decided after each step, and this needs Python. Deterministic algorithms are
    for comparisons bit for bit, so they take the plain way.
    """
    groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
    return (
        run.device.type == "cuda"
        and all("capturable" in group for group in groups)  # such as Adam's
        and run.accelerator.scaler is None
        and run.accelerator.num_processes == 1
        and run.steps >= SHORTEST
        and not torch.are_deterministic_algorithms_enabled()
    )


class Recording:
    """The steps of a run: the first ones are plain, the next one is recorded, and then the record is replayed.

    A step that cannot be recorded stays plain, and a line says so. For example, a step cannot be recorded if it reads a
    number of the GPU in Python.

    Args:
        run: its optimisers are changed, so that their steps can be recorded.
        compute: does one step on a batch and returns the losses.
    """

    def __init__(self, run: Run, compute: Callable[[Tensor | tuple[Tensor, ...]], dict[str, Tensor]]) -> None:
        self.run, self.compute = run, compute
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Tensor | tuple[Tensor, ...] = ()
        self.losses: dict[str, Tensor] = {}
        self.steps, self.failed = 0, False
        for optimizer in run.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"], group["lr"] = True, torch.tensor(float(group["lr"]), device=run.device)
            for state in optimizer.optimizer.state.values():  # of a training that goes on
                if "step" in state:
                    state["step"] = state["step"].to(run.device)

    def step(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """One step on a batch: a tensor or a tuple of tensors, always of the same shapes. Returns the losses."""
        self.steps += 1
        if self.graph is None and not self.failed and self.steps > WARM_UP:
            self.record(batch)
        if self.graph is None:
            return self.plain(batch)
        if isinstance(batch, Tensor):
            self.batch.copy_(batch)
        else:
            for mine, new in zip(self.batch, batch):
                mine.copy_(new)
        self.graph.replay()
        return self.losses

    def plain(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """A step that is not recorded. It runs on another stream than usual, as PyTorch wants it before a recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # it is not captured yet
            losses = self.compute(batch)
            for name, average in self.run.ema.items():
                average.update_parameters(getattr(self.run.model, name))
        torch.cuda.current_stream().wait_stream(self.stream)
        return losses

    def record(self, batch: Tensor | tuple[Tensor, ...]) -> None:
        """Record a step, without doing it. `self.batch` and `self.losses` are the tensors that the record uses."""
        graph = torch.cuda.CUDAGraph()
        self.batch = batch.clone() if isinstance(batch, Tensor) else tuple(x.clone() for x in batch)
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                losses = self.compute(self.batch)
                for name, average in self.run.ema.items():
                    update_average(average, getattr(self.run.model, name))
                self.losses = {name: loss.detach().float() for name, loss in losses.items()}
        except Exception as error:
            self.failed = True
            tqdm.write(f"the steps are not recorded as a CUDA graph: {type(error).__name__}: {str(error)[:200]}")
            recover()
        else:
            self.graph = graph


def recover() -> None:
    """Let a recording end well. After one that failed, the generator of random numbers still waits for its end."""
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.rand((), device="cuda")
    torch.cuda.synchronize()


@torch.no_grad()
def update_average(average: AveragedModel, module: torch.nn.Module) -> None:
    """What `average.update_parameters(module)` does after its first call.

    That function reads the number of its calls from the GPU, and this cannot be recorded.
    """
    own = [*average.module.parameters(), *average.module.buffers()]
    pairs = list(zip(own, [*module.parameters(), *module.buffers()]))
    for floating in (True, False):
        chosen = [(a.detach(), b.detach()) for a, b in pairs if a.is_floating_point() == floating]
        if chosen:
            average.multi_avg_fn([a for a, _ in chosen], [b for _, b in chosen], average.n_averaged)
    average.n_averaged += 1


def plain_optimizer(state: dict) -> dict:
    """The state of an optimiser as it would be without a recording, for a checkpoint."""
    groups = [group | {"lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    steps = {
        key: {name: x.cpu() if name == "step" else x for name, x in values.items()}
        for key, values in state["state"].items()
    }
    return state | {"param_groups": groups, "state": steps}
