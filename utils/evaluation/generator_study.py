"""Coursework 1's trainings: the generators that are handed in, their opponent, and each trial of the search.

Both notebooks use this module. The result of each training is kept in a file: weights in float16 (those that are handed
in), the history, or the measures. As long as nothing that it depends on has changed, no training is repeated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils import budgets, config
from utils.data import hand_images, image_files
from utils.evaluation import feature_spaces, fidelity
from utils.evaluation.hand_study import balanced_design
from utils.files import write_atomically
from utils.models import vae
from utils.models.dcgan import DCGAN
from utils.models.residual_gan import ResidualGAN
from utils.models.vae import VAE
from utils.training import checkpoints, devices, identity, loop
from utils.training.kept import kept_values

SHOWN = 48  # samples of a trial that are kept for figures

RANGES = {  # of the search for the VAE and its prior
    "latent_dim": (32, 64, 128),
    "lr": (0.0005, 0.001, 0.002, 0.004),
    "batch_size": (32, 64, 128),
    "per_frequency": (False, True),
    "prior_width": (160, 320, 640),
    "prior_dropout": (0.0, 0.1, 0.3),
}
GAN_RANGES = {  # of the search for the GAN
    "lr_generator": (2e-5, 5e-5, 1e-4, 2e-4),
    "lr_discriminator": (1e-4, 2e-4, 4e-4),
    "batch_size": (16, 32, 64),
    "penalty": (0.05, 0.2, 0.5, 2.0),
    "augmentation": (0.1, 0.3, 0.6),
    "anchor": (0.0, 3.0, 10.0, 30.0),
}


class Trained(NamedTuple):
    """A model in eval mode, and the history of `loop.fit`."""

    model: VAE | DCGAN
    history: list[dict]


def seconds(history: list[dict]) -> float:
    """The seconds of a training: of its VAE and its prior together if it has these parts."""
    return sum({row.get("part"): row["seconds"] for row in history}.values())


def named(settings: dict) -> str:
    """A name of settings for a folder: `lr_0.001_batch_size_64`."""
    return " ".join(f"{name} {value}" for name, value in settings.items()).replace(" ", "_")


def kept_model(path: Path, wanted: dict, kind: type, make: Callable[[], Trained]) -> Trained:
    """The result of `make` with its weights in float16. Weights and history are kept in files beside `path`.

    If the files were made for another `wanted`, or cannot be read, the model is trained again.
    """
    record, device = path.with_suffix(".json"), devices.accelerator().device
    asked = json.loads(json.dumps(wanted))
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        if stored["wanted"] == asked:
            model = kind.from_weights(path).to(device)
            print(f"{'/'.join(path.with_suffix('').parts[-3:])}: was finished on {stored['device']}: loaded")
            return Trained(model, stored["history"])
    except (OSError, ValueError, KeyError):  # absent or damaged; `CheckpointDamaged` is a ValueError
        pass
    trained = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    trained.model.export(path)
    text = json.dumps({"wanted": asked, "device": devices.device_name(), "history": trained.history}, indent=1)
    write_atomically(record, text.encode())
    return Trained(kind.from_weights(path).to(device), trained.history)


@dataclass(frozen=True, eq=False)
class GeneratorStudy:
    """Trainings of generators on the same images.

    Args:
        train: images to train on, uint8 (N, 1, H, W).
        judged: real images that no network is trained on and that samples are compared with, uint8 (M, 1, H, W).
        folder: the folder for checkpoints and results.
    """

    train: np.ndarray
    judged: np.ndarray
    folder: Path

    @cached_property
    def images(self) -> Tensor:
        """The images to train on, float32 in [-1, 1]."""
        return image_files.to_float(self.train)

    @cached_property
    def data(self) -> str:
        """A hash of all images."""
        return identity.of_data((torch.from_numpy(self.train), torch.from_numpy(self.judged)))

    @cached_property
    def spaces(self) -> dict:
        """The feature spaces in which samples are compared."""
        return {"pixels": feature_spaces.PixelComponents(self.judged), "texture": feature_spaces.Texture()}

    def distances(self, samples: np.ndarray) -> dict[str, float]:
        """Frechet distances of samples uint8 to the judged images, one for each feature space."""
        return {f"FD {n}": fidelity.frechet_distance(s, self.judged, samples) for n, s in self.spaces.items()}

    def vae(
        self, name: str, settings: dict, vae_images: int, prior_images: int, seed: int, curve: bool = True, **options
    ) -> Trained:
        """A VAE and its prior. With `curve`, the history holds the loss of the judged images.

        Args:
            name: folder of this training.
            settings: `batch_size`, and arguments of `VAE`.
            vae_images, prior_images: images seen by the VAE, and latents seen by its prior.
            options: further arguments of `loop.fit` for the VAE.
        """
        settings = dict(settings)
        batch_size = settings.pop("batch_size")
        devices.seed_everything(seed)
        model = VAE(**settings)
        folder = self.folder / name / f"seed_{seed}"
        judged = image_files.to_float(self.judged)

        def bound(model: VAE) -> dict[str, float]:
            losses = [model.losses(part.to(model.log_std.device)) for part in judged.split(500)]
            return {"negative_elbo (held out)": float(torch.stack([x["negative_elbo"] for x in losses]).mean())}

        def flow(prior) -> dict[str, float]:
            return {"flow (held out)": float(prior.loss(model.posteriors(judged).to(prior.mean.device)))}

        def make() -> Trained:
            found = {"evaluate": bound, "evaluate_prior": flow} if curve else {"evaluations": 1}
            arguments = (self.images, vae_images, prior_images, batch_size, folder)
            history, of_prior = vae.train(model, *arguments, seed, **found, **options)
            return Trained(model, [{"part": "VAE"} | x for x in history] + [{"part": "prior"} | x for x in of_prior])

        length = {"vae_images": vae_images, "prior_images": prior_images, "batch_size": batch_size}
        wanted = self._wanted(model, length | {"prior": model.prior.config}, seed)
        return kept_model(folder / "vae.safetensors", wanted, VAE, make)

    def gan(
        self,
        name: str,
        settings: dict,
        images_seen: int,
        seed: int,
        start: VAE | None = None,
        own_pairs: bool = False,
        before: DCGAN | None = None,
        evaluations: int = 10,
        **options,
    ) -> Trained:
        """A GAN that begins with a VAE, or with random weights.

        Args:
            name: folder of this training.
            settings: `batch_size`, arguments of `DCGAN` and optionally the `ema_share` of `loop.fit`. With
                `residual: True`, the GAN is a `ResidualGAN`.
            images_seen: images seen in the training.
            start: the VAE to begin with.
            own_pairs: half of the pairs are own pairs, which need a VAE.
            before: a GAN whose discriminator this one begins with.
            evaluations, options: further arguments of `loop.fit`.
        """
        settings = dict(settings)
        kind = ResidualGAN if settings.pop("residual", False) else DCGAN
        batch_size, ema_share = settings.pop("batch_size"), settings.pop("ema_share", loop.EMA_SHARE)
        devices.seed_everything(seed)
        model = kind(**settings)
        folder = self.folder / name / f"seed_{seed}"

        def make() -> Trained:
            data, more = self.images, dict(options)
            if start is not None:
                model.start_from(start.to(devices.accelerator().device), images_seen)
            if before is not None:
                model.discriminator.load_state_dict(before.discriminator.state_dict())
            if own_pairs:
                data = self.images, start.posteriors(self.images)
                more["data_hash"] = f"{identity.of_data((self.images,))}, with posteriors"
            steps = max(1, images_seen // batch_size)
            history = loop.fit(
                model, data, steps, batch_size, folder / "gan", model.config | {"start": model.start}, seed,
                evaluations=evaluations, ema_share=ema_share, **more,
            )  # fmt: skip
            return Trained(model, history)

        length = {"images_seen": images_seen, "batch_size": batch_size, "ema_share": ema_share}
        length |= {"evaluations": evaluations, "start": checkpoints.fingerprint(start) if start else None}
        length["own_pairs"] = own_pairs
        length |= {"discriminator": checkpoints.fingerprint(before.discriminator)} if before else {}
        return kept_model(folder / "gan.safetensors", self._wanted(model, length, seed), kind, make)

    def _wanted(self, model: VAE | DCGAN, length: dict, seed: int) -> dict:
        """Everything that the result of a training depends on."""
        source = identity.of_source(model, loop.batch_indices, loop.learning_rate_scale)
        return {"settings": model.config, "length": length, "seed": seed, "data": self.data, "source": source}

    @cached_property
    def floor(self) -> dict[str, float]:
        """The distances of as many training images as there are judged ones: the scale of `score`."""
        return self.distances(self.train[: len(self.judged)])

    def score(self, samples: np.ndarray) -> dict[str, float]:
        """`score`, the geometric mean of the distances in multiples of `floor`, and the distances themselves.

        Samples that are as close to the judged images as training images are get 1.
        """
        found = self.distances(samples)
        ratio = np.prod([found[name] / self.floor[name] for name in found])
        return {"score": float(ratio ** (1 / len(found)))} | found

    def vae_trial(self, settings: dict, vae_images: int, prior_images: int, seed: int = 0) -> dict:
        """One trial of the VAE's search: its `score`, distances, `seconds`, and some `samples` uint8 (SHOWN, 1, H, W).

        Its weights and checkpoints are deleted, because there are many trials.

        Args:
            settings: a value for each name of RANGES.
            vae_images, prior_images: images seen by the VAE, and latents seen by its prior.
        """
        of_vae = {name: x for name, x in settings.items() if not name.startswith("prior_")}
        of_vae["prior"] = {n.removeprefix("prior_"): x for n, x in settings.items() if n not in of_vae}
        length = {"vae_images": vae_images, "prior_images": prior_images}
        name = f"vae_trials/{named(settings | length)}"

        def train() -> Trained:
            return self.vae(name, of_vae, vae_images, prior_images, seed, curve=False, plot=False)

        return self._trial(name, self._wanted(VAE(), settings | length, seed), train, self.score)

    def gan_trial(self, settings: dict, images_seen: int, start: VAE, seed: int = 0) -> dict:
        """One trial of the GAN's search: the results of `vae_trial`, and the `two-sample accuracy`.

        The GAN begins with the VAE `start` and with a new discriminator. Half of its pairs are own pairs.

        Args:
            settings: those of `gan`.
            images_seen: images seen in the training.
        """
        name = f"gan_trials/{named(settings | {'images_seen': images_seen})}"
        settings = settings | {"latent_dim": start.config["latent_dim"]}

        def measure(samples: np.ndarray) -> dict[str, float]:
            accuracy, _ = fidelity.two_sample_accuracy(list(self.spaces.values()), self.judged, samples)
            return self.score(samples) | {"two-sample accuracy": accuracy}

        def train() -> Trained:
            return self.gan(name, settings, images_seen, seed, start, own_pairs=True, evaluations=1, plot=False)

        length = {"images_seen": images_seen, "start": checkpoints.fingerprint(start)}
        return self._trial(name, self._wanted(DCGAN(), settings | length, seed), train, measure)

    def _trial(self, name: str, wanted: dict, train: Callable[[], Trained], measure: Callable) -> dict:
        """What `measure` finds in the samples of a trained model, which is deleted afterwards.

        It is kept for the same `wanted`.
        """
        seed = wanted["seed"]

        def make() -> dict:
            model, history = train()
            samples = image_files.as_saved(model.sample(len(self.judged), 0))
            shutil.rmtree(self.folder / name / f"seed_{seed}")
            return measure(samples) | {"seconds": seconds(history), "samples": samples[:SHOWN]}

        return kept_values(self.folder / name / f"seed_{seed}.npz", wanted, make)


@dataclass(frozen=True, eq=False)
class Search:
    """The searches for the hyper-parameters of the VAE with its prior, and of the GAN.

    Args:
        hands: from `hand_images.load_hands`. A sixth of the training images is for choosing; the held-out images are
            not used.
        budget: how much is trained.
        folder: the folder for results.
    """

    hands: hand_images.Hands
    budget: budgets.HandsTuning
    folder: Path

    @cached_property
    def study(self) -> GeneratorStudy:
        """Trainings on five sixths of the training images, compared with the last sixth."""
        cut = len(self.hands.train) * 5 // 6
        return GeneratorStudy(self.hands.train[:cut], self.hands.train[cut:], self.folder)

    @cached_property
    def vae_design(self) -> list[dict]:
        """The settings of the VAE's trials, in a balanced design. Trial 0 has the committed settings."""
        of_prior = {f"prior_{name}": value for name, value in VAE().prior.config.items()}
        return self._design(RANGES, of_prior | config.hyperparameters("vae", committed=True), self.budget.vae_trials)

    @cached_property
    def gan_design(self) -> list[dict]:
        """The settings of the GAN's trials, in a balanced design. Trial 0 has the committed settings."""
        committed = config.hyperparameters("dcgan", committed=True)
        design = self._design(GAN_RANGES, committed, self.budget.gan_trials)
        return [{n: x for n, x in committed.items() if n not in GAN_RANGES} | settings for settings in design]

    @staticmethod
    def _design(ranges: dict[str, tuple], committed: dict, trials: int) -> list[dict]:
        first = {name: committed[name] for name in ranges}
        return [first, *balanced_design(ranges, trials - 1)]

    def vae_trial(self, settings: dict, seed: int = 0) -> dict:
        """The result of one trial of the VAE; see `GeneratorStudy.vae_trial`."""
        return self.study.vae_trial(settings, self.budget.vae_images, self.budget.prior_images, seed)

    def gan_trial(self, settings: dict, seed: int = 0, longer: bool = False) -> dict:
        """The result of one trial of the GAN, which begins with the VAE of `start`; see `GeneratorStudy.gan_trial`."""
        images_seen = self.budget.longer_gan_images if longer else self.budget.gan_images
        return self.study.gan_trial(settings, images_seen, self.start.model, seed)

    @cached_property
    def first(self) -> Trained:
        """The VAE of trial 0, trained again and kept."""
        return self._vae("first", self.budget.vae_images, self.budget.prior_images)

    @cached_property
    def start(self) -> Trained:
        """The VAE of trial 0, trained for longer."""
        return self._vae("start", self.budget.start_images, self.budget.start_latents)

    def _vae(self, name: str, images: int, latents: int) -> Trained:
        return self.study.vae(name, config.hyperparameters("vae", committed=True), images, latents, 0, plot=False)
