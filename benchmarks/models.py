"""Every model's training and sampling: images per second, how near to what the machine can do, what processes exchange.

    make benchmark-models        or        python -m benchmarks.models

Each model has its committed settings and batch. *Plain*: the same model in a plain PyTorch loop (a `DataLoader` over a
`TensorDataset`, the default memory format, no weight average, no mixed precision). *Ours*: `training.fit`, all it does
included. *Step*: our step alone, so that what is missing between the two is the share outside the model. *Of the peak*:
its multiplications and additions a second (counted by torch's FlopCounterMode) against those of a large matrix product
in the same number format, measured in the same run. *Exchanged*: bytes of gradients that each step of several processes
has to sum. All on the CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_step import matmul_peak
from utils import runs, training
from utils.classifier import Classifier
from utils.dcgan import DCGAN
from utils.diffusion import Diffusion
from utils.flow import Flow
from utils.pixelcnn import PixelCNN
from utils.unet import Imputer
from utils.vae import VAE

SECONDS = 5  # for each measurement, after a warm-up
SAMPLES = 32


class Case(NamedTuple):
    """A model, an example of its training data, and its batch."""

    build: Callable[[], nn.Module]
    data: tuple[Tensor, ...]
    batch_size: int


def images(count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 1, *size, generator=generator) * 255).round() / 127.5 - 1


def settings(name: str) -> tuple[dict, int]:
    """A model's committed hyper-parameters without what is not the model's own, and its batch."""
    found = dict(runs.hyperparameters(name))
    found.pop("average_share", None)
    return found, found.pop("batch_size", 32)


def cases() -> dict[str, Case]:
    small, grey, heads = (28, 28), images(512, (28, 28)), (images(128, (64, 64)) + 1) / 2
    made = {}
    for label, name, build in (
        ("VAE, hands", "vae", VAE),
        ("GAN, hands", "dcgan", DCGAN),
        ("classifier, hands", "classifier", Classifier),
    ):
        given, batch = settings(name)
        data = (images(512, (32, 32)),) + ((torch.arange(512) % 3,) if build is Classifier else ())
        made[label] = Case(lambda build=build, given=given: build(**given), data, batch)
    made["imputer, heads"] = Case(lambda: Imputer(torch.rand(64, 64) < 0.3), (heads, torch.rand(heads.shape) < 0.7), 16)
    for label, name, build in (
        ("PixelCNN, garments", "final_pixelcnn", PixelCNN),
        ("flow, garments", "final_flow", Flow),
        ("diffusion, garments", "final_diffusion", Diffusion),
    ):
        given, batch = settings(name)
        made[label] = Case(lambda build=build, given=given: build(size=small, **given), (grey,), batch)
    return made


def stepper(model: nn.Module, autocast: bool) -> Callable[[tuple[Tensor, ...]], None]:
    """What trains a model on one batch, as `training.fit` does but for averages and checks."""
    optimizers = model.optimizers()
    context = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()

    def update(name: str, loss: Tensor, clip: float | None = None) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        if clip is not None:
            parameters = [p for group in optimizers[name].param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizers[name].step()

    def step(batch: tuple[Tensor, ...]) -> None:
        with context:
            model.step(batch if len(batch) > 1 else batch[0], update)

    return step


def rate(step: Callable[[], None], count: int) -> float:
    """Images a second of a call that handles so many."""
    step()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        done += count
    return done / (time.perf_counter() - start)


def measure(case: Case, peak: float, mixed: bool) -> dict[str, float]:
    torch.manual_seed(0)
    plain = case.build().train()
    loader = DataLoader(TensorDataset(*case.data), case.batch_size, shuffle=True, drop_last=True)
    stream, plain_step = itertools.chain.from_iterable(itertools.repeat(loader)), stepper(plain, False)
    plain_rate = rate(lambda: plain_step(tuple(next(stream))), case.batch_size)

    model = case.build().to(memory_format=torch.channels_last).train()
    step, batch = stepper(model, mixed), tuple(x[: case.batch_size] for x in case.data)
    step_rate = rate(lambda: step(batch), case.batch_size)
    with FlopCounterMode(display=False) as counter:
        step(batch)
    flops = counter.get_total_flops() / case.batch_size

    model = case.build()
    steps = max(10, round(SECONDS * step_rate / case.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        data = case.data if len(case.data) > 1 else case.data[0]
        fitted = training.fit(model, data, steps, case.batch_size, folder, {}, evaluations=1, plot=False)
    ours = steps * case.batch_size / fitted[-1]["seconds"]

    trained = [p for o in model.optimizers().values() for group in o.param_groups for p in group["params"]]
    row = {
        "plain, images/s": plain_rate, "ours, images/s": ours, "ratio": ours / plain_rate,
        "outside the model": max(0.0, 1 - ours / step_rate), "GFLOP an image": flops / 1e9,
        "of the peak": step_rate * flops / 1e9 / peak,
        "MB exchanged a step": 4 * sum(p.numel() for p in trained) / 1e6,
        "ms a step": 1000 * case.batch_size / ours,
    }  # fmt: skip
    if hasattr(model, "sample"):
        model.eval()
        start = time.perf_counter()
        found = model.sample(SAMPLES)
        for _ in found if not isinstance(found, Tensor) else ():
            pass
        row["samples/s"] = SAMPLES / (time.perf_counter() - start)
    return row


def copy_bandwidth() -> float:
    """GB/s read and written by a copy of 256 MB."""
    source = torch.zeros(64_000_000)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best / 1e9


def main() -> None:
    os.environ["ACCELERATE_USE_CPU"] = "true"  # all rows on the same device, beside a GPU too
    mixed = runs.mixed_precision() == "bf16"
    peak = matmul_peak(torch.bfloat16 if mixed else torch.float32)
    table = {name: measure(case, peak, mixed) for name, case in cases().items()}
    pd.set_option("display.width", 250)
    threads, precision = torch.get_num_threads(), runs.mixed_precision()
    print(f"{threads} threads, mixed precision: {precision}; matrix product {peak:.0f} GFLOP/s, copy", end=" ")
    print(f"{copy_bandwidth():.0f} GB/s\n")
    print(pd.DataFrame(table).T.to_string(float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
