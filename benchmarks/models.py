"""The speed of every model's training and sampling, and how close it is to the limit of the machine.

    make benchmark-models        or        python -m benchmarks.models

This writes the tables of `docs/speed.md`, which explains their columns: the tables of the GPU if CUDA finds one,
otherwise the tables of the CPU. On a CPU it also writes the expected speed of several processes to `docs/scaling.md`.
Each model has its committed settings and batch. *Plain* is the same model in a plain PyTorch loop: a `DataLoader` over
a `TensorDataset`, the default memory format, no weight average, no mixed precision. *Ours* is `loop.fit` without
checkpoints. The speed of a machine drifts. So the variants run in turns for several rounds, and the median of their
ratios counts.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import os
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import Queue, get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.distributed as distributed
from livelossplot import PlotLosses
from livelossplot.outputs import MatplotlibPlot
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.limit import Roofline, bandwidths, call_seconds, fastest, matmul_peak, wait
from utils import budgets, config, files
from utils.data import image_files
from utils.evaluation import cross_validation, feature_spaces, fidelity, garment_study, likelihood
from utils.models import classifier
from utils.models.classifier import Classifier
from utils.models.dcgan import DCGAN
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow
from utils.models.gan import GAN
from utils.models.heads import imputer
from utils.models.heads.imputer import Imputer
from utils.models.pixelcnn import PixelCNN
from utils.models.spatial_vae import SpatialVAE
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop

PAGE, SCALING = config.PROJECT / "docs" / "speed.md", config.PROJECT / "docs" / "scaling.md"
BEGIN, END = "<!-- {}, by make {} -->", "<!-- end of {}, by make {} -->"
COMMAND, EXPECTED = "benchmark-models", "what to expect"
PROCESSES, NETWORK = 16, 1.25e9  # for the page on scaling: number of processes, bytes per second between two of them
SHARES = (
    "outside the step", "of the matrix peak", "of the limit", "time in products", "products, of their limit",
    "their calls", "GPU busy", "beside training",
    "share of the step that is left, at most",
)  # fmt: skip
ROUNDS = 5
SECONDS = 1.0  # for each measurement of a round, after a warm-up
USED, PIXELCNN_USED = 32, 128  # images that are sampled, labelled or filled at a time; more for a PixelCNN
CHECKPOINT_SECONDS = inspect.signature(loop.fit).parameters["checkpoint_seconds"].default
RECORDED_HALF = 60  # steps on a GPU, so that a training of twice as many is recorded (`utils.training.recording`)
PLOTTED = 10  # points of each curve in a loss plot
PROFILED = 20  # steps for measuring the busy time of a GPU


def sample(model: nn.Module, seed: int, count: int = USED) -> None:
    """Sample new images from a model."""
    model.sample(count, seed)


class Course(NamedTuple):
    """A whole training in the profile full, with the numbers of its notebook."""

    images_seen: int
    evaluations: int
    plotted: bool  # is there a loss plot after each evaluation?
    evaluate: Callable[[nn.Module], object]


class Case(NamedTuple):
    """A model to measure."""

    build: Callable[[], nn.Module]
    data: tuple[Tensor, ...]  # example of its training data
    batch_size: int
    use: Callable[[nn.Module, int], object] = sample  # samples, labels or fills `used` images, with a seed
    course: Course | None = None
    used: int = USED


def images(count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, 1, *size, generator=generator) * 255).round() / 127.5 - 1


def settings(name: str) -> tuple[dict, int]:
    """A model's committed hyper-parameters, without those of the training loop, and its batch size."""
    found = dict(config.hyperparameters(name, committed=True))
    found.pop("ema_share", None)
    return found, found.pop("batch_size")


def bound_on(held_out: Tensor) -> Callable[[nn.Module], object]:
    """The evaluation of coursework 1's VAE: its bound on held-out images."""
    return lambda model: [model.losses(part.to(model.log_std.device)) for part in held_out.split(500)]


def distances_to(held_out: Tensor) -> Callable[[nn.Module], object]:
    """The evaluation of coursework 1's GAN: the distances between 300 samples and held-out images."""
    reference = image_files.to_uint8(held_out)
    spaces = feature_spaces.PixelComponents(reference), feature_spaces.Texture()

    def evaluate(model: nn.Module) -> list[float]:
        made = image_files.as_saved(model.sample(300, 0))
        return [fidelity.frechet_distance(space, reference, made) for space in spaces]

    return evaluate


def cases() -> dict[str, Case]:
    """Each model as its notebook trains it."""
    hands, garments, heads = images(2000, (32, 32)), images(512, (28, 28)), (images(256, (64, 64)) + 1) / 2
    labels, pixels, known = torch.arange(2000) % 3, image_files.to_uint8(hands), torch.rand(heads.shape) < 0.7
    (vae, vae_batch), (gan, gan_batch) = settings("vae"), settings("dcgan")
    hands_budget, heads_budget, garments_budget = (b["full"] for b in (budgets.HANDS, budgets.HEADS, budgets.GARMENTS))
    hand, curve = config.hyperparameters("classifier", committed=True), pixels[: cross_validation.CURVE_IMAGES]
    classifier_budget = budgets.CLASSIFIER["full"]
    length = classifier_budget.images + classifier_budget.pretraining_images
    classified = Course(length, 5, False, lambda model: model.logits(curve))

    def label_some(model: Classifier, _seed: int) -> Tensor:
        return model.logits(pixels[:USED])

    made = {
        "VAE, hands": Case(
            lambda: VAE(base=hands_budget.base, **vae),
            (hands,),
            vae_batch,
            course=Course(hands_budget.vae_images, 10, True, bound_on(hands)),
        ),
        "GAN, hands": Case(
            lambda: DCGAN(base=hands_budget.base, **gan),
            (hands,),
            gan_batch,
            course=Course(hands_budget.gan_images, 10, True, distances_to(hands[300:])),
        ),
        "classifier, hands": Case(
            lambda: Classifier(**hand), (hands, labels), classifier.BATCH_SIZE, label_some, classified
        ),
        "ResNet-18, hands": Case(  # the opponent of the classifier
            lambda: Classifier(**hand, resnet=True), (hands, labels), classifier.BATCH_SIZE, label_some, classified
        ),
        "imputer, heads": Case(
            lambda: Imputer(torch.rand(64, 64) < 0.3),
            (heads, known),
            heads_budget.imputer_batch,
            lambda model, _: imputer.fill_masked([model], heads[:USED], known[:USED]),
            Course(
                heads_budget.imputer_images,
                8,
                False,
                lambda model: imputer.fill_masked([model], heads[:80], known[:80]),
            ),
        ),
    }
    few = garments[: garments_budget.curve_images]
    bits, texture = likelihood.bits_hook(few, garment_study.BOUND_SAMPLES), feature_spaces.Texture()
    distance = fidelity.frechet_distance_hook(texture, image_files.to_uint8(few), len(few), 0)
    for label, name, build, evaluate in (
        ("VAE, garments", "VAE", SpatialVAE, bits),
        ("GAN, garments", "GAN", GAN, distance),
        ("PixelCNN, garments", "PixelCNN", PixelCNN, bits),
        ("flow, garments", "flow", Flow, bits),
        ("diffusion, garments", "diffusion", Diffusion, bits),
    ):
        given, batch = settings(f"final_{name.lower()}")
        course = Course(garments_budget.images_seen[name], 10, False, evaluate)
        used = PIXELCNN_USED if name == "PixelCNN" else USED
        build = partial(build, size=(28, 28), **given)
        made[label] = Case(build, (garments,), batch, partial(sample, count=used), course, used)
    return made


def number_format() -> torch.dtype | None:
    """The number format in which `loop.fit` computes beside float32, or None."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(devices.mixed_precision())


def stepper(
    model: nn.Module, autocast: torch.dtype | None, fused: bool = False
) -> Callable[[tuple[Tensor, ...]], dict[str, Tensor]]:
    """A function that trains a model on one batch, as in `loop.fit`, but without weight averages and checks.

    It returns the losses. In float16, they are not scaled, so only the time of such a step is right.
    """
    optimizers = model.optimizers()
    for group in (group for o in optimizers.values() for group in o.param_groups if fused):
        group["fused"] = True  # otherwise, PyTorch chooses
    device = next(model.parameters()).device
    context = torch.autocast(device.type, autocast) if autocast else contextlib.nullcontext()

    def update(name: str, loss: Tensor, clip: float | None = None) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        if clip is not None:
            parameters = [p for group in optimizers[name].param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizers[name].step()

    def step(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        with context:
            return model.step(batch if len(batch) > 1 else batch[0], update)

    return step


def rate(step: Callable[[], None], count: int) -> float:
    """Images per second, if one call of `step` handles `count` images."""
    step()
    wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        done += count
    wait()
    return done / (time.perf_counter() - start)


def gpu_busy(step: Callable[[], None]) -> float:
    """The share of the time in which the GPU computes or copies, from PyTorch's profiler."""
    step()
    wait()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        start = time.perf_counter()
        for _ in range(PROFILED):
            step()
        wait()
        seconds = time.perf_counter() - start
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds


def by_turns(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Measure several variants in turns: the median rate of the first one, and the median ratios of the others to it.

    A ratio is taken within one round.
    """
    rounds = [[measure() for measure in ways.values()] for _ in range(ROUNDS)]
    first, *others = ways
    ratios = {name: median(row[i] / row[0] for row in rounds) for i, name in enumerate(others, 1)}
    return {first: median(row[0] for row in rounds)} | ratios


def first_batch(case: Case) -> tuple[Tensor, ...]:
    """The first batch of a case's training data, on the device."""
    return tuple(x[: case.batch_size].to(devices.accelerator().device) for x in case.data)


def our_step(case: Case, compiled: bool = False) -> Callable[[], dict[str, Tensor]]:
    """A training step on the first batch, with the memory format and number format of `loop.fit`."""
    model = case.build().to(devices.accelerator().device, memory_format=torch.channels_last).train()
    if compiled:
        compile_parts(model)
    return partial(stepper(model, number_format()), first_batch(case))


def training_row(case: Case) -> dict[str, float]:
    """Compare trainings: the plain loop, our step alone, and our loop.

    On a GPU, our loop records its steps. "recording" is its speed compared with our step alone, which is not recorded.
    """
    torch.manual_seed(0)
    device = devices.accelerator().device
    plain = case.build().to(device).train()
    loader = DataLoader(TensorDataset(*case.data), case.batch_size, shuffle=True, drop_last=True)
    stream, plain_step = itertools.chain.from_iterable(itertools.repeat(loader)), stepper(plain, None)
    step = our_step(case)

    def plain_rate() -> float:
        return rate(lambda: plain_step(tuple(x.to(device) for x in next(stream))), case.batch_size)

    def step_rate() -> float:
        return rate(step, case.batch_size)

    half = max(RECORDED_HALF if device.type == "cuda" else 10, round(SECONDS * plain_rate() / case.batch_size))

    def our_rate() -> float:
        with tempfile.TemporaryDirectory() as folder:
            data = case.data if len(case.data) > 1 else case.data[0]
            rows = loop.fit(case.build(), data, 2 * half, case.batch_size, folder, {}, evaluations=2, plot=False)
        return half * case.batch_size / (rows[1]["seconds"] - rows[0]["seconds"])  # the first half is the warm-up

    found = by_turns({"plain": plain_rate, "step": step_rate, "ours": our_rate})
    trained = [p for o in plain.optimizers().values() for group in o.param_groups for p in group["params"]]
    return {
        "plain, images/s": found["plain"],
        "ours, images/s": found["plain"] * found["ours"],
        "ratio": found["ours"],
        "ms a step": 1000 * case.batch_size / found["plain"] / found["ours"],
        "MB of gradients": 4 * sum(p.numel() for p in trained) / 1e6,
        "tensors": len(trained),
    } | (
        {"recording": found["ours"] / found["step"], "GPU busy": gpu_busy(step)}
        if device.type == "cuda"
        else {"outside the step": 1 - found["ours"] / found["step"]}
    )


def plot_seconds() -> float:
    """Seconds for drawing a loss plot with four curves of PLOTTED points."""
    board = PlotLosses(outputs=[MatplotlibPlot(max_cols=3, cell_size=(5, 3), after_plots=lambda figure: None)])
    for step in range(PLOTTED):
        board.update({name: float(step) for name in ("loss", "generator", "discriminator", "distance")}, step)
    start = time.perf_counter()
    board.send()
    plt.gcf().savefig(io.BytesIO(), format="png", bbox_inches="tight")
    plt.close("all")
    return time.perf_counter() - start


def course_row(case: Case, ms_a_step: float) -> dict[str, float]:
    """The time of a whole training in the profile full, and the share that is not training."""
    course, steps = case.course, case.course.images_seen // case.batch_size
    training_seconds, model = steps * ms_a_step / 1000, case.build()
    with tempfile.TemporaryDirectory() as folder:
        data = case.data if len(case.data) > 1 else case.data[0]
        loop.fit(model, data, 1, case.batch_size, folder, {}, evaluations=1, plot=False)
        found = checkpoints.read(Path(folder, "step_00000001.ckpt"))
        saving = fastest(lambda: checkpoints.save(folder, 1, found.state, found.config), 3)
    with torch.no_grad():
        evaluating = fastest(lambda: course.evaluate(model), 2)
    spent = {
        "evaluations (s)": course.evaluations * evaluating,
        "plots (s)": course.evaluations * plot_seconds() if course.plotted else 0.0,
        "checkpoints (s)": (1 + training_seconds // CHECKPOINT_SECONDS) * saving,
    }
    outside = sum(spent.values()) / (training_seconds + sum(spent.values()))
    return {"steps": steps, "training (s)": training_seconds} | spent | {"beside training": outside}


def sum_numbers(rank: int, port: int, told: Queue) -> None:
    """One of two processes that sum a small tensor many times. The first one reports the seconds of one sum."""
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    number = torch.ones(64)
    seconds = fastest(lambda: [distributed.all_reduce(number) for _ in range(200)]) / 200
    distributed.destroy_process_group()
    if rank == 0:
        told.put(seconds)


def latency() -> float:
    """Seconds that two processes on this machine need to sum a small tensor with gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawned = get_context("spawn")
    told = spawned.Queue()
    pair = [spawned.Process(target=sum_numbers, args=(rank, port, told)) for rank in range(2)]
    for process in pair:
        process.start()
    seconds = told.get(timeout=60)
    for process in pair:
        process.join()
    return seconds


def expected_row(case: Case, row: dict[str, float], pair_latency: float) -> dict[str, float]:
    """The expected time of a training step with PROCESSES processes, which have a full batch each.

    This is calculated from a row of `training_row`. In a ring of n processes, each link carries 2 (n - 1) / n of the
    bytes. There is one message for each optimiser, and one for the losses. Each message takes at least the latency
    between two processes.
    """
    step, sent = row["ms a step"], 2 * (PROCESSES - 1) / PROCESSES * row["MB of gradients"] * 1e6 / NETWORK * 1000
    messages = len(case.build().optimizers()) + 1
    waiting = messages * pair_latency * 1000
    return {
        "batch of each process": case.batch_size,
        "a step (ms)": step,
        "gradients (MB)": row["MB of gradients"],
        "messages": messages,
        "sending (ms)": sent,
        "latency, at least (ms)": waiting,
        "share of the step that is left, at most": step / (step + sent + waiting),
    }


def limits_row(work: Callable[[], object], count: int, roofline: Callable[[], Roofline]) -> dict[str, float]:
    """How close `work` on `count` images is to the limit, in total and for the products alone."""
    images_a_second = max(rate(work, count) for _ in range(ROUNDS))  # the limit also uses the fastest of several runs
    counted = []
    for _ in range(ROUNDS):
        with roofline() as limit:
            work()
        counted.append(limit)
    limit, seconds = min(counted, key=lambda one: one.taken), count / images_a_second
    device = devices.accelerator().device
    row = {
        "images/s": images_a_second,
        "GFLOP an image": limit.flops / count / 1e9,
        "of the matrix peak": limit.arithmetic_seconds / seconds,
        "of the limit": limit.seconds / seconds,
    }
    if device.type != "cuda":  # on a GPU, single operators take as long as their start
        row["time in products"] = limit.products_taken / limit.taken
        row["products, of their limit"] = limit.products_seconds / limit.products_taken
    return row | {
        "operators": limit.operators,
        "their calls": limit.operators * call_seconds(device) / seconds,
    }


def use_limits(case: Case, roofline: Callable[[], Roofline]) -> dict[str, float]:
    """`limits_row` for sampling, labelling or filling, and the ratio to the default memory format."""
    models = [case.build().to(devices.accelerator().device).eval() for _ in range(2)]
    seeds = itertools.count()  # another seed for each call
    models[1].to(memory_format=torch.channels_last)
    with torch.no_grad():
        ways = [partial(lambda model: case.use(model, next(seeds)), model) for model in models]
        found = by_turns({str(i): partial(rate, way, case.used) for i, way in enumerate(ways)})
        return limits_row(ways[1], case.used, roofline) | {"ratio to plain": found["1"]}


def compile_parts(module: nn.Module) -> None:
    """Compile each network of a model separately with torch.compile."""
    for child in module.children():
        if isinstance(child, (nn.ModuleDict, nn.ModuleList)):
            compile_parts(child)
        else:
            child.compile()


def levers_row(case: Case) -> dict[str, float]:
    """The speed of a training step with four changes, compared with float32 in the default memory format."""
    batch, ways = first_batch(case), {}
    for lever in ("default format, images/s", "channels last", "fused optimiser", "compiled", "bfloat16"):
        model = case.build().to(devices.accelerator().device).train()
        if not lever.startswith("default"):
            model.to(memory_format=torch.channels_last)
        if lever == "compiled":
            compile_parts(model)
        step = stepper(model, torch.bfloat16 if lever == "bfloat16" else None, fused=lever == "fused optimiser")
        ways[lever] = partial(rate, partial(step, batch), case.batch_size)
    return by_turns(ways)


def cell(column: str, value: float | None) -> str:
    """A number as text: a share in per cent, other numbers with three digits, and a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0%}" if column in SHARES else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(table: dict[str, dict[str, float | None]], first: str = "model") -> str:
    """A Markdown table with a row for each key. See `cell` for the numbers.

    Args:
        table: for each name of a row, the numbers by the name of their column.
        first: the title of the column with the names.
    """
    columns = list(next(iter(table.values())))
    lines = [[first, *columns], ["---", *["---:"] * len(columns)]]
    for name, row in table.items():
        lines.append([name, *(cell(column, value) for column, value in row.items())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def between(page: Path, name: str, command: str) -> tuple[str, str]:
    """The text of a page before and after the place of a command's tables.

    Raises:
        ValueError: the page does not have this place exactly once.
    """
    begin, end = (mark.format(name, command) for mark in (BEGIN, END))
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"'{page}' must contain the lines '{begin}' and '{end}' once")
    return text.split(begin)[0] + begin, end + text.split(end)[1]


def write_between(page: Path, name: str, command: str, text: str) -> None:
    """Write a command's tables to their place on a page."""
    before, after = between(page, name, command)
    files.write_atomically(page, f"{before}\n\n{text}\n\n{after}".encode())


def main() -> None:
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # `wait` knows only CUDA
    device, formats = devices.accelerator().device, [torch.float32]
    if number_format():
        formats.append(number_format())
    peaks, rates = {dtype: matmul_peak(dtype, device) for dtype in formats}, bandwidths(device)
    roofline, models = partial(Roofline, peaks, rates), cases()
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    machine = [
        f"{what}, {str(formats[-1])[6:]}.",
        f"Matrix product: {', '.join(f'{peak:.0f} GFLOP/s in {str(dtype)[6:]}' for dtype, peak in peaks.items())}.",
        f"Copies: {rates[max(rates)]:.0f} GB/s, up to {max(rates.values()):.0f} GB/s if the data fit into the caches.",
        f"A call: {call_seconds(device) * 1e6:.1f} µs.",
    ]
    place = f"tables of the {'CPU' if device.type == 'cpu' else 'GPU'}"
    for page, name in ((PAGE, place), (SCALING, EXPECTED)):  # an error here should come before the long measurements
        between(page, name, COMMAND)
    parts = [" ".join(machine)]

    def tell(title: str, row: Callable[[str, Case], dict[str, float]]) -> dict[str, dict[str, float]]:
        table = {name: row(name, case) for name, case in models.items()}
        parts.append(f"### {title}\n\n{markdown(table)}")
        print(parts[-1], end="\n\n", flush=True)
        return table

    print(parts[-1], flush=True)
    trained = tell("Training", lambda _, case: training_row(case))
    tell("A whole training in the profile full", lambda name, case: course_row(case, trained[name]["ms a step"]))
    tell("Training, against the limit", lambda _, case: limits_row(our_step(case), case.batch_size, roofline))
    tell("Sampling, labelling, filling, against the limit", lambda _, case: use_limits(case, roofline))
    tell("Levers on the training step", lambda _, case: levers_row(case))
    write_between(PAGE, place, COMMAND, "\n\n".join(parts))
    if device.type == "cpu":
        pair = latency()
        table = markdown({name: expected_row(case, trained[name], pair) for name, case in models.items()})
        text = f"Two processes on this machine sum a small tensor in {pair * 1e6:.0f} µs.\n\n{table}"
        write_between(SCALING, EXPECTED, COMMAND, text)
        print(text)


if __name__ == "__main__":
    main()
