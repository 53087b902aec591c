"""The MRI project's trainings: of the imputers, of changes of their recipe, and of the generator of heads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from utils import files
from utils.data import head_images, masks
from utils.evaluation.restoration import psnr, stripe_energy
from utils.models.diffusion import Diffusion
from utils.models.heads import augmentation
from utils.models.heads.imputer import Imputer, fill_masked
from utils.training import devices, identity, loop

FOLDS = 4  # of the test images; each imputer learns from the lines of three folds
LINES = 0.35  # share of the test images in the training set
MOVED_COPIES = 15  # of each head in the generator's training set
UNMOVED = {"shift": 0}  # settings of an imputer whose test images are not moved
CHANGES: dict[str, dict] = {  # of the recipe that are tried: arguments of `Imputer` and of `HeadData.training_set`
    "nothing": {},
    "completed test images": {"completed": 0.2},
}


@dataclass(frozen=True, eq=False)
class HeadData:
    """The images that imputers are trained on and evaluated with.

    Args:
        real: complete heads in three parts.
        tests: the test images (N, 1, 64, 64) in [0, 1], 0 at missing pixels.
        mask: their mask, bool (64, 64), true at missing pixels.
        generated: generated heads (M, 1, 64, 64) in [0, 1] for training.
    """

    real: head_images.Heads
    tests: Tensor
    mask: Tensor
    generated: Tensor

    @cached_property
    def known(self) -> Tensor:
        """The known pixels of the test images, bool (N, 1, 64, 64)."""
        return (~self.mask).expand(self.tests.shape)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group (N,) of each test image, see `head_images.likeness_groups`."""
        return head_images.likeness_groups(masks.fill_rows(self.tests, self.known))

    @cached_property
    def folds(self) -> np.ndarray:
        """The fold (N,) of each test image."""
        return head_images.folds(self.groups, FOLDS)

    @cached_property
    def lines(self) -> Tensor:
        """The lines that are hidden when a choice is made."""
        return self.draw_lines(1)

    def draw_lines(self, seed: int) -> Tensor:
        """Known pixels of the test images that are hidden for an evaluation, bool like `tests`: thin slanting lines."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return masks.hide_lines(head_images.SIZE, len(self.tests))[:, None] & self.known

    def training_set(self, fold: int, lines: float = LINES, generated: int = 0) -> tuple[Tensor, Tensor]:
        """Images (N, 1, 64, 64) and their known pixels, bool.

        They are complete heads, and test images, repeated until about the share `lines` is reached.

        Args:
            fold: the fold of test images that is left out.
            lines: share of the test images in the set; less than 1.
            generated: number of generated heads.
        """
        complete = torch.cat([self.real.train, self.generated[:generated]])
        others = np.flatnonzero(self.folds != fold)
        others = np.repeat(others, round(lines / (1 - lines) * len(complete) / len(others)))
        known = torch.cat([torch.ones_like(complete, dtype=torch.bool), self.known[others]])
        return torch.cat([complete, self.tests[others]]), known

    def psnr_on_lines(self, fill: Callable[[Tensor, Tensor], Tensor], chosen: np.ndarray, lines: Tensor) -> np.ndarray:
        """PSNR (n,) in dB on the hidden lines (see `draw_lines`) of the chosen test images, a bool (N,)."""
        shown = (self.known & ~lines)[chosen]
        tests = self.tests[chosen]
        return psnr(fill(tests * shown, shown).numpy(), tests.numpy(), lines[chosen].numpy())

    def fill_heads(self, fill: Callable[[Tensor, Tensor], Tensor], heads: Tensor) -> Tensor:
        """Complete heads, filled after the test images' mask has hidden some of their pixels."""
        known = (~self.mask).expand(heads.shape)
        return fill(heads * known, known)

    def measure(self, model: Imputer, fold: int) -> dict[str, np.ndarray]:
        """PSNR in dB of one network on images that it has not learned from, without mirror images.

        Returns:
            `heads`: for each validation head, on its missing pixels. `lines`: for each test image of the fold that was
            left out, on its hidden lines. `energy`: see `stripe_energy`, one number, for the validation heads.
        """

        def fill(visible: Tensor, known: Tensor) -> Tensor:
            return fill_masked([model], visible, known, plain=True)[0]

        truth = self.real.validation
        filled = self.fill_heads(fill, truth).numpy()
        return {
            "heads": psnr(filled, truth.numpy(), self.mask.numpy()),
            "lines": self.psnr_on_lines(fill, self.folds == fold, self.lines),
            "energy": np.array(stripe_energy(filled, truth.numpy())),
        }

    def evaluate(self, model: Imputer, fold: int) -> dict[str, float]:
        """The means of what `measure` returns, for the history of a training."""
        return {f"{name} (held out)": float(values.mean()) for name, values in self.measure(model, fold).items()}


class Batches(Sampler):
    """The batches that `loop.fit` trains on, in its order, for a `DataLoader`: lists of `batch_size` indices."""

    def __init__(self, count: int, batch_size: int, steps: int, seed: int):
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            yield loop.batch_indices(self.count, self.batch_size, step, self.seed).tolist()


def prepare(
    data: HeadData, images_seen: int, batch_size: int, settings: dict, fold: int = 0
) -> tuple[Imputer, DataLoader]:
    """An imputer with random weights, and the `DataLoader` of its training.

    Args:
        images_seen: number of images of the whole training, with repetitions.
        settings: arguments of `Imputer`, and `lines` and `generated` of `HeadData.training_set`.
        fold: the fold of test images that is left out, and the seed.
    """
    parts = {name: settings[name] for name in ("lines", "generated") if name in settings}
    settings = {name: value for name, value in settings.items() if name not in parts}
    devices.seed_everything(fold)
    model = Imputer(data.mask, augmentation.grey_levels(data.tests[data.folds != fold], ~data.mask), **settings)
    images = TensorDataset(*data.training_set(fold, **parts))
    order = Batches(len(images), batch_size, max(1, images_seen // batch_size), fold)
    return model, DataLoader(images, batch_sampler=order, collate_fn=model.collate)


def train_imputer(data: HeadData, model: Imputer, loader: DataLoader, folder: Path, fold: int = 0) -> list[dict]:
    """Train an imputer with its `DataLoader`, both from `prepare`. Returns the history of the training.

    `loop.fit` draws the loader's batches from the same tensors, in the same order. They are moved to the device once,
    and `Imputer.step` does there what the loader's collate function does.
    """
    order = loader.batch_sampler
    return loop.fit(
        model, loader.dataset.tensors, order.steps, order.batch_size, folder, model.config | {"fold": fold}, order.seed,
        lambda trained: data.evaluate(trained, fold), plot=False,
    )  # fmt: skip


def try_change(
    data: HeadData, images_seen: int, batch_size: int, settings: dict, folder: Path
) -> dict[str, np.ndarray]:
    """Train an imputer and measure it, see `HeadData.measure`. The measures are kept in `folder/measures.json`.

    If they are there, with the same settings and data, they are read and nothing is trained.
    """
    model, loader = prepare(data, images_seen, batch_size, settings)
    steps, path = loader.batch_sampler.steps, folder / "measures.json"
    run = model.config | {"steps": steps, "batch_size": batch_size, "data": identity.of_data(loader.dataset.tensors)}
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stored.get("run") != run:
        train_imputer(data, model, loader, folder)
        measures = {name: values.tolist() for name, values in data.measure(model, 0).items()}
        stored = {"run": run, "measures": measures}
        files.write_atomically(path, json.dumps(stored).encode())
    return {name: np.array(values) for name, values in stored["measures"].items()}


def train_generator(heads: Tensor, validation: Tensor, folder: Path, images_seen: int, batch_size: int):
    """Train the generator on heads (N, 1, 64, 64) in [0, 1] and moved copies of them. Returns it, and its history.

    The history has the loss on the validation heads too, as `validation`.
    """
    devices.seed_everything(0)
    model = Diffusion()

    def validate(trained: Diffusion) -> dict[str, float]:
        losses = trained.losses(2 * validation - 1, torch.Generator().manual_seed(0))
        return {"validation": losses["velocity"]}

    images = 2 * augmentation.augment(heads, MOVED_COPIES) - 1
    steps = max(1, images_seen // batch_size)
    name = f"{identity.of_data((heads,))}, {MOVED_COPIES} moved copies"  # these differ a little between machines
    options = {"evaluate": validate, "plot": False, "data_hash": name}
    return model, loop.fit(model, images, steps, batch_size, folder, model.config, **options)
