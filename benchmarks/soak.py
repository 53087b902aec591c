"""Soak test: trainings are killed, disks are full, checkpoints are damaged, and the final weights must be the same.

    make soak        or        python -m benchmarks.soak --rounds 25

Each model is trained once without disturbances, and once with `--rounds` disturbances. Each round starts the training
in a new process and kills the process (SIGKILL) at a random moment. If the training ends before, the next round starts
a new training. Between two rounds, the newest checkpoint is sometimes damaged: it is cut short, one of its bits is
flipped, or its content is replaced. In some rounds, a limit on the size of files acts as a full disk, so the process
can write only half a checkpoint.

Each round checks that the training continues from the newest undamaged checkpoint, and that a kill loses only the work
since the last checkpoint. At the end of each training, the weights must be equal to the weights of the undisturbed
training, bit for bit.

The last training uses one process and two processes in turns. Two processes add numbers in another order, so the
weights may differ a little, in float32. The largest difference is reported.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from utils.models.classifier import Classifier
from utils.models.dcgan import DCGAN
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow
from utils.models.heads.imputer import Imputer
from utils.models.latent_flow import LatentFlow
from utils.models.pixelcnn import PixelCNN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, loop

SIZE, COUNT, STEPS, BATCH = (16, 16), 64, 150, 8
CHECKPOINT_SECONDS = 0.05
LATE = 2  # steps that may end after a checkpoint was due, because the clock of `loop.fit` starts a little later
LARGEST_DIFFERENCE = 1e-5  # of a weight, if numbers are added in another order
LONGEST = 300  # seconds; a training takes only a few
DISK_FULL = 28  # exit code of a training that could not write to the disk
MODELS: dict[str, Callable] = {
    "VAE": lambda: VAE(SIZE, latent_dim=4, base=4),
    "GAN": lambda: DCGAN(SIZE, latent_dim=4, base=4, discriminator_base=4),
    "classifier": lambda: Classifier(base=4),
    "PixelCNN": lambda: PixelCNN(SIZE, width=8, layers=2, hidden=4, components=2),
    "flow": lambda: Flow(SIZE, width=8, depth=1, bins=4),
    "diffusion": lambda: Diffusion(SIZE, widths=(24, 24)),
    "VAE's prior": lambda: LatentFlow(latent_dim=4, width=16, depth=1),
    "imputer": lambda: Imputer(torch.eye(SIZE[0]) > 0, widths=(8, 8, 8, 8)),
}
forked = get_context("fork")  # a forked process has no imports to wait for


def data(kind: str) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """The training data of a model in MODELS: images, images and labels, images and masks, or posteriors."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(COUNT, 1, *SIZE, generator=generator)
    others = {
        "classifier": (images * 2 - 1, torch.arange(COUNT) % 3),
        "VAE's prior": torch.randn(COUNT, 8, generator=generator),  # means and log variances
        "imputer": (images, images < 0.7),
    }
    return others.get(kind, images * 2 - 1)


class Failure(AssertionError):
    """A training did something wrong."""


def work(kind: str, folder: Path, told, late, file_limit: int | None, rank: int, world: int, port: int) -> None:
    """One process of a training.

    It puts the step from which it continues into `told`. In `late`, it counts the steps since a checkpoint was due.
    """
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open until the end
    if world > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so a write fails, as on a full disk, and the process continues
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    torch.set_num_threads(1)
    find, save, saved = checkpoints.latest, checkpoints.save, None

    def latest(*arguments, **options):
        found = find(*arguments, **options)
        told.put((rank, found[0] if found else 0))
        return found

    def save_and_count(*arguments):
        nonlocal saved
        save(*arguments)
        late.value, saved = 0, time.monotonic()

    def step_and_count(batch, update):
        nonlocal saved
        saved = saved or time.monotonic()
        losses = step(batch, update)
        late.value += rank == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS
        return losses

    checkpoints.latest, checkpoints.save = latest, save_and_count
    devices.seed_everything(0)
    model = MODELS[kind]()
    step, model.step = model.step, step_and_count
    options = {"plot": False, "evaluations": 3, "checkpoint_seconds": CHECKPOINT_SECONDS}
    try:
        loop.fit(model, data(kind), STEPS, BATCH, folder, model.config, **options)
    except OSError as error:
        sys.exit(DISK_FULL if error.errno == errno.EFBIG else 1)
    if rank == 0:
        torch.save(model.state_dict(), folder / "final.pt")


def newest(folder: Path) -> Path | None:
    return max(checkpoints.find(folder), default=None)


def whole(folder: Path) -> int:
    """The step of the newest checkpoint that can be read, or 0 if there is none."""
    for path in reversed(checkpoints.find(folder)):
        try:
            return checkpoints.read(path).step
        except checkpoints.CheckpointDamaged:
            continue
    return 0


def one_round(kind: str, folder: Path, seconds: float | None, file_limit: int | None = None, world: int = 1) -> int:
    """Run the training for `seconds`, or to its end. Returns the exit code of its first process: -9 if it was killed.

    Raises:
        Failure: the training did not continue from the newest undamaged checkpoint, destroyed a checkpoint, saved too
            late, or did not end in time.
    """
    expected, told, late = whole(folder), forked.SimpleQueue(), forked.Value("i", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (kind, folder, told, late, file_limit)
    group = [forked.Process(target=work, args=(*arguments, rank, world, port)) for rank in range(world)]
    for process in group:
        process.start()
    group[0].join(seconds or LONGEST)
    stuck = seconds is None and group[0].is_alive()
    for process in group:
        if process.is_alive() and (seconds is not None or stuck or group[0].exitcode):
            process.kill()
        process.join()
    if stuck:
        raise Failure(f"{kind} in {world} processes did not end within {LONGEST} s")
    while not told.empty():
        _, step = told.get()
        if step != expected:
            raise Failure(f"{kind} continued from step {step}, but the newest undamaged checkpoint has step {expected}")
    if whole(folder) < expected:
        raise Failure(f"{kind} had a checkpoint of step {expected}, but now the newest one is of step {whole(folder)}")
    if late.value > LATE:
        raise Failure(f"{kind} trained {late.value} steps after a checkpoint was due")
    return group[0].exitcode


def damage(folder: Path, chance: random.Random) -> str:
    """Damage the newest checkpoint. Returns the kind of damage."""
    path = newest(folder)
    content = path.read_bytes()
    kind = chance.choice(["cut short", "bit flipped", "replaced"])
    if kind == "cut short":
        content = content[: chance.randrange(len(content))]
    elif kind == "bit flipped":
        where = chance.randrange(content.index(b"\n") + 1, len(content))
        content = content[:where] + bytes([content[where] ^ 1 << chance.randrange(8)]) + content[where + 1 :]
    else:
        content = chance.randbytes(1000)
    path.write_bytes(content)
    return kind


def difference(one: Path, other: Path) -> float:
    """The largest difference between the final weights of two trainings."""
    a, b = (torch.load(folder / "final.pt", weights_only=True) for folder in (one, other))
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def soak(kind: str, rounds: int, chance: random.Random, worlds: tuple[int, ...] = (1,)) -> dict[str, int | float]:
    """Disturb a training `rounds` times, then let it end. Returns the number of each kind of disturbance.

    Args:
        kind: a model in MODELS.
        rounds: number of disturbances.
        chance: the source of random choices.
        worlds: numbers of processes. The rounds use them in turns.

    Raises:
        Failure: as in `one_round`, or the training does not end, or it ends with other weights.
    """
    with tempfile.TemporaryDirectory() as place:
        calm, rough = Path(place, "calm"), Path(place, "rough")
        whole_training = {}
        for world in worlds:
            start = time.monotonic()
            if one_round(kind, calm if world == 1 else Path(place, "timed"), None, world=world) != 0:
                raise Failure(f"{kind} does not train at all")
            whole_training[world] = time.monotonic() - start
        length = sum(path.stat().st_size for path in checkpoints.find(calm)) // checkpoints.KEEP
        done, differences, start = Counter(), [], time.monotonic()

        def check_the_end() -> None:
            differences.append(difference(calm, rough))
            if differences[-1] > (0 if len(worlds) == 1 else LARGEST_DIFFERENCE):
                raise Failure(f"{kind} ended with other weights, by up to {differences[-1]:.2g}")

        for number in range(rounds):
            limit = length // 2 if chance.random() < 0.2 else None
            world = worlds[number % len(worlds)]
            before = whole(rough)
            code = one_round(kind, rough, chance.uniform(0, whole_training[world]), limit, world)
            done[f"got on in {world}"] += whole(rough) > before
            if code not in (0, -signal.SIGKILL, DISK_FULL if limit else 0):
                raise Failure(f"{kind} ended with exit code {code} without a disturbance")
            if code == 0:  # the next round starts a new training
                check_the_end()
                shutil.rmtree(rough)
                continue
            done["killed" if code == -signal.SIGKILL else "disk full"] += 1
            if whole(rough) and newest(rough).stem == f"step_{whole(rough):08d}" and chance.random() < 0.5:
                done[damage(rough, chance)] += 1
        if not all(done[f"got on in {world}"] for world in worlds):
            raise Failure(f"{kind} made no progress in {' or '.join(map(str, worlds))} processes: try more rounds")
        if one_round(kind, rough, None) != 0:
            raise Failure(f"{kind} did not end after the disturbances")
        check_the_end()
        names = ("killed", "disk full", "cut short", "bit flipped", "replaced")
        found = {"ended": len(differences)} | {name: done[name] for name in names}
        return found | {"difference": max(differences), "seconds": time.monotonic() - start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Kill trainings, fill the disk and damage checkpoints. The final weights must be the same."
    )
    parser.add_argument("--rounds", type=int, default=25, help="number of disturbances for each model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["ACCELERATE_USE_CPU"] = "true"  # resuming is exact on the CPU
    torch.set_num_threads(1)  # a forked process would wait forever for other threads of its parent
    chance, table = random.Random(options.seed), {}
    for kind in MODELS:
        table[kind] = soak(kind, options.rounds, chance)
        print(kind, table[kind], flush=True)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # in bfloat16 the order of sums matters more
    table["PixelCNN, 1 and 2 processes"] = soak("PixelCNN", options.rounds, chance, worlds=(1, 2))
    frame = pd.DataFrame(table).T
    print(frame.astype({name: int for name in frame.columns if name not in ("difference", "seconds")}).to_string())
    total = frame.sum().astype(int)
    damaged, exactly = total["cut short"] + total["bit flipped"] + total["replaced"], int(frame.ended[:-1].sum())
    print(f"{total['killed']} kills, {total['disk full']} full disks, {damaged} damaged checkpoints")
    print(f"{exactly} trainings ended with the same weights, bit for bit;", end=" ")
    print(f"{total['ended'] - exactly} in 1 and 2 processes with differences of up to {frame.difference.iloc[-1]:.2g}")


if __name__ == "__main__":
    main()
