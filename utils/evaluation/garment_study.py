"""The final models of the last assignment, on any of its data sets: how each is trained, sampled and measured."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from torch import nn

from utils import budgets, config, files
from utils.data import image_files
from utils.data.public_images import Parts
from utils.evaluation import feature_spaces, fidelity, likelihood
from utils.models import zoo
from utils.training import checkpoints

BOUND_SAMPLES = 4  # latents of a VAE, or noise levels of a diffusion model, for each image in a curve


def run_folder(data: str) -> Path:
    """The folder of all trainings on a data set, one of config.DATA_SETS."""
    return config.run_folder("final_" + data.replace(" ", "_"))


def images_seen(data: str, family: str, start: bool = False) -> int:
    """How many images a model of a family sees in its training. `start`: it is a GAN that starts from a VAE."""
    budget = budgets.garments()
    if data != config.DATA_SETS[0]:
        return budget.faces_images
    return budget.warm_gan_images if start else budget.images_seen[family]


def train_classifier(data: str, parts: Parts) -> feature_spaces.FeatureClassifier:
    """The classifier whose features measure the samples."""
    seen = budgets.garments().classifier_images
    folder = run_folder(data) / "classifier"
    return feature_spaces.train_feature_classifier(parts.train.images, parts.train.labels, seen, folder)[0]


def train(data: str, parts: Parts, family: str, seed: int = 0, start: zoo.Trained | None = None) -> zoo.Trained:
    """The final model of a family. If it was trained before, it is loaded.

    The curve shows bits per dimension of validation images. A GAN has none, so its curve shows the Frechet distance of
    the texture.

    Args:
        start: the VAE that a GAN starts from.
    """
    budget = budgets.garments()
    settings = config.hyperparameters(f"final_{family.lower()}")
    if family == "GAN":
        texture, few = feature_spaces.Texture(), parts.validation.images
        evaluate = fidelity.frechet_distance_hook(texture, few, min(budget.curve_images, len(few)), seed)
    else:
        few = image_files.to_float(parts.validation.images[: budget.curve_images])
        evaluate = likelihood.bits_hook(few, BOUND_SAMPLES)
    name = family.lower() + ("_from_vae" if start else "") + (f"_seed_{seed}" if seed else "")
    seen, train_images = images_seen(data, family, start is not None), image_files.to_float(parts.train.images)
    return zoo.train(family, train_images, seen, run_folder(data) / name, settings, seed, start, evaluate=evaluate)


def draw(model: nn.Module, count: int, folder: Path, seed: int = 0, **options) -> np.ndarray:
    """Samples uint8 (count, C, H, W) of a model. They are kept in `folder` and read from there the next time.

    Args:
        options: further arguments of the model's `sample`.
    """
    name = "_".join([checkpoints.fingerprint(model), *map(str, [count, seed, *options.values()])])
    path = folder / f"samples_{name}.npz"
    if path.is_file():
        with np.load(path) as found:
            return found["images"]
    made = image_files.to_uint8(model.sample(count, seed, **options))
    content = io.BytesIO()
    np.savez_compressed(content, images=made)
    files.write_atomically(path, content.getvalue())
    return made


def bits(model: nn.Module, images: np.ndarray, num_samples: int = 16) -> tuple[float, float]:
    """Bits per dimension of images uint8 (N, C, H, W), and the standard error; see `likelihood.nats`."""
    floats = image_files.to_float(images)
    return likelihood.bits_per_dimension(likelihood.nats(model, floats, num_samples), floats[0].numel())
