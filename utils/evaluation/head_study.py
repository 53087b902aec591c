"""The MRI project's data, and its trainings: of the imputers and of the generator of heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from utils.data import head_images, masks
from utils.evaluation.restoration import psnr, stripe_energy
from utils.models.diffusion import Diffusion
from utils.models.heads import augmentation
from utils.models.heads.imputer import Imputer, fill_masked
from utils.training import devices, identity, loop

FOLDS = 4  # of the test images; each imputer learns from the lines of three folds
LINES = 0.35  # share of the test images in the training set
DEFORMED_COPIES = 15  # of each head in the generator's training set
GENERATOR_IMAGES, GENERATOR_BATCH = 32_000, 32  # images seen by the generator, and in a step of its training


@dataclass(frozen=True, eq=False)
class HeadData:
    """The images that imputers are trained on and evaluated with.

    Args:
        real: complete heads in three parts.
        tests: the test images (N, 1, 64, 64) in [0, 1], 0 at missing pixels.
        mask: their mask, bool (64, 64), true at missing pixels.
    """

    real: head_images.Heads
    tests: Tensor
    mask: Tensor

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

    def training_set(self, fold: int, generated: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (N, 1, 64, 64) and their known pixels, bool.

        They are the complete training heads, and the test images of the other folds, repeated until they are about the
        share LINES.

        Args:
            fold: the fold of test images that is left out.
            generated: further complete heads (M, 1, 64, 64) in [0, 1].
        """
        heads = self.real.train if generated is None else torch.cat([self.real.train, generated])
        others = np.flatnonzero(self.folds != fold)
        others = np.repeat(others, round(LINES / (1 - LINES) * len(heads) / len(others)))
        known = torch.cat([torch.ones_like(heads, dtype=torch.bool), self.known[others]])
        return torch.cat([heads, self.tests[others]]), known

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
        """PSNR in dB of one network on images that it has not learned from.

        Returns:
            `heads`: for each validation head, on its missing pixels. `lines`: for each test image of the fold that was
            left out, on its hidden lines. `energy`: see `stripe_energy`, one number, for the validation heads.
        """

        def fill(visible: Tensor, known: Tensor) -> Tensor:
            return fill_masked([model], visible, known)[0]

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
    data: HeadData,
    images_seen: int,
    batch_size: int,
    fold: int = 0,
    generated: Tensor | None = None,
    kind: type[Imputer] = Imputer,
    **settings,
) -> tuple[Imputer, DataLoader]:
    """An imputer with random weights, and the `DataLoader` of its training.

    Args:
        images_seen: number of images of the whole training, with repetitions.
        fold: the fold of test images that is left out, and the seed.
        generated: see `HeadData.training_set`.
        kind, settings: the imputer's class and its arguments.
    """
    devices.seed_everything(fold)
    model = kind(data.mask, augmentation.grey_levels(data.tests[data.folds != fold], ~data.mask), **settings)
    images = TensorDataset(*data.training_set(fold, generated))
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


def train_generator(heads: Tensor, validation: Tensor, folder: Path, images_seen: int = GENERATOR_IMAGES) -> Diffusion:
    """A generator that was trained on heads (N, 1, 64, 64) in [0, 1] and deformed copies of them.

    The history of the training has the loss on the validation heads too, as `validation`.
    """
    devices.seed_everything(0)
    model = Diffusion()

    def validate(trained: Diffusion) -> dict[str, float]:
        losses = trained.losses(2 * validation - 1, torch.Generator().manual_seed(0))
        return {"validation": losses["velocity"]}

    images = 2 * augmentation.augment(heads, DEFORMED_COPIES) - 1
    name = f"{identity.of_data((heads,))}, {DEFORMED_COPIES} deformed copies"  # which differ a little between machines
    options = {"evaluate": validate, "plot": False, "data_hash": name}
    loop.fit(model, images, max(1, images_seen // GENERATOR_BATCH), GENERATOR_BATCH, folder, model.config, **options)
    return model
