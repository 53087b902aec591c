"""Images per second of our GAN training and of a plain recipe, measured in one run.

    make benchmark        or        python -m benchmarks.training_step

The plain recipe is from PyTorch's DCGAN example: a `DataLoader` that decodes one JPEG at a time, float32, no
augmentation and no EMA. Both train the same two networks with the same losses. Each row of the table changes one more
thing, so the table shows the gain from each change.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.limit import matmul_peak
from utils.data import image_files
from utils.models.dcgan import DCGAN
from utils.training import devices, loop

BATCH = 64
SECONDS = 6  # time of measuring for each row, after a warm-up
IMAGES = 2000


def make_images(folder: Path) -> None:
    """Write smooth grey pictures with the size of the hands, so that no data set is needed."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(IMAGES, 1, 6, 6, generator=generator)
    images = F.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1) * 2 - 1
    image_files.write_jpegs(image_files.to_uint8(images), folder, "image", IMAGES)


def plain_batches(folder: Path) -> Iterator[torch.Tensor]:
    steps = [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    loader = DataLoader(ImageFolder(folder, transforms.Compose(steps)), BATCH, shuffle=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield images


def memory_batches(folder: Path) -> Iterator[torch.Tensor]:
    images = image_files.to_float(image_files.read(folder / "hands").images)
    step = 0
    while True:
        yield images[loop.batch_indices(len(images), BATCH, step, seed=0)]
        step += 1


def plain_step(model: DCGAN, optimizers: dict, images: torch.Tensor) -> None:
    """The step of the example, with the losses of our GAN: the discriminator, then the generator."""
    fakes = model.generator(torch.randn(len(images), model.config["latent_dim"]))
    shown = torch.cat([images, fakes.detach()]).requires_grad_()
    scores = model.discriminator(shown)
    (slope,) = torch.autograd.grad(scores.sum(), shown, create_graph=True)
    real, fake = scores.chunk(2)
    penalty = model.config["penalty"] * slope.square().sum((1, 2, 3)).mean()
    optimizers["discriminator"].zero_grad()
    (F.softplus(fake - real).mean() + penalty).backward()
    optimizers["discriminator"].step()
    optimizers["generator"].zero_grad()
    F.softplus(model.discriminator(images) - model.discriminator(fakes)).mean().backward()
    optimizers["generator"].step()


def our_step(model: DCGAN, optimizers: dict, images: torch.Tensor, precision: str) -> None:
    def update(name: str, loss: torch.Tensor) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model.step(images, update)


def rate(batches: Iterator[torch.Tensor], step) -> float:
    """Images per second of `step` over `batches`, after a warm-up."""
    for _ in range(3):
        step(next(batches))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step(next(batches))
        count += BATCH
    return count / (time.perf_counter() - start)


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "hands")

        def fresh(**settings):
            model = DCGAN(**settings)
            return model, model.optimizers()

        rows = {}
        model, optimizers = fresh()
        rows["plain recipe: DataLoader over JPEGs, float32"] = rate(
            plain_batches(folder), lambda x: plain_step(model, optimizers, x)
        )
        rows["... with the images in memory"] = rate(memory_batches(folder), lambda x: plain_step(model, optimizers, x))
        for precision in ("no", "bf16"):
            for label, settings in (("our step", {}), ("our step with JPEG rounding", {"jpeg_quality": 75})):
                model, optimizers = fresh(**settings)
                model.to(memory_format=torch.channels_last)  # as `loop.fit` does
                average = loop.ema_copy(model.generator, half_life=500)

                def step(images, model=model, optimizers=optimizers, average=average, precision=precision):
                    our_step(model, optimizers, images, precision)
                    average.update_parameters(model.generator)

                kind = "bfloat16" if precision == "bf16" else "float32"
                rows[f"{label} and EMA, in memory, {kind}"] = rate(memory_batches(folder), step)
        rows_data = {
            "decode one JPEG at a time (DataLoader)": plain_batches(folder),
            "index into memory": memory_batches(folder),
        }
        data = {name: rate(batches, lambda images: None) for name, batches in rows_data.items()}

    base = next(iter(rows.values()))
    print(f"{torch.get_num_threads()} threads, mixed precision here: {devices.mixed_precision()}, batch {BATCH}\n")
    print("| training step | images/s | ratio |\n| --- | ---: | ---: |")
    for name, value in rows.items():
        print(f"| {name} | {value:.0f} | {value / base:.2f} |")
    print("\n| data path alone | images/s |\n| --- | ---: |")
    for name, value in data.items():
        print(f"| {name} | {value:.0f} |")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"\nmatrix multiplication, {str(dtype)[6:]}: {matmul_peak(dtype):.0f} GFLOP/s", end="")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
