"""The final models of the last assignment, on any of its data sets: how each is trained, sampled and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils import budgets, config
from utils.data import image_files
from utils.data.public_images import Parts
from utils.evaluation import feature_spaces, fidelity, likelihood
from utils.models import dcgan, vae, zoo
from utils.training import checkpoints, devices, identity, loop
from utils.training.kept import kept_values

DIFFUSION_WAYS = [{"steps": steps, "scheduler": name} for name in ("ddim", "ddpm") for steps in (25, 50, 100)]
DIFFUSION_WAY = {"steps": 50, "scheduler": "ddim"}  # the one whose samples are shown and measured
BOUND_SAMPLES = 4  # latents of a VAE, or noise levels of a diffusion model, for each image in a curve


def run_folder(data: str) -> Path:
    """The folder of all trainings on a data set, one of config.DATA_SETS."""
    return config.run_folder("final_" + data.replace(" ", "_"))


def images_seen(data: str, family: str, of_classes: bool = False) -> int:
    """How many images a model of a family sees in its training. `of_classes`: it is a GAN that gets the classes."""
    budget = budgets.garments()
    if data != config.DATA_SETS[0]:
        return budget.faces_images[data]
    return budget.class_gan_images if of_classes else budget.images_seen[family]


def training_folder(data: str, family: str, seed: int = 0, of_classes: bool = False) -> Path:
    """The folder of one training, and of the samples that are drawn from its model."""
    name = family.lower() + ("_of_classes" if of_classes else "") + (f"_seed_{seed}" if seed else "")
    return run_folder(data) / name


def train_classifier(data: str, parts: Parts) -> feature_spaces.FeatureClassifier:
    """The classifier whose features measure the samples."""
    seen = budgets.garments().classifier_images
    folder = run_folder(data) / "classifier"
    return feature_spaces.train_feature_classifier(parts.train.images, parts.train.labels, seen, folder)[0]


def train(data: str, parts: Parts, family: str, seed: int = 0, of_classes: bool = False) -> zoo.Trained:
    """The final model of a family. If it was trained before, it is loaded.

    The curve shows bits per dimension of validation images. A GAN has none, so its curve shows the Frechet distance of
    the texture.

    Args:
        of_classes: train a GAN that gets the classes of the images.
    """
    budget = budgets.garments()
    settings = config.hyperparameters(f"final_{family.lower()}")
    if family == "GAN":
        evaluate = texture_hook(parts, seed)
    else:
        few = image_files.to_float(parts.validation.images[: budget.curve_images])
        evaluate = likelihood.bits_hook(few, BOUND_SAMPLES)
    seen, folder = images_seen(data, family, of_classes), training_folder(data, family, seed, of_classes)
    labels = torch.from_numpy(parts.train.labels) if of_classes else None
    train_images = image_files.to_float(parts.train.images)
    return zoo.train(family, train_images, seen, folder, settings, seed, labels, evaluate=evaluate)


def train_warm_gan(data: str, parts: Parts, seed: int = 0) -> zoo.Trained:
    """The GAN of coursework 1, which begins with the weights of a VAE, with its settings, but with random pairs.

    It is not trained for JPEG files, because these images are not saved as JPEGs. The seconds include the VAE's.
    """
    budget, folder = budgets.garments(), training_folder(data, "GAN", seed) / "warm"
    images = image_files.to_float(parts.train.images)
    shape = {"size": tuple(images.shape[2:]), "channels": images.shape[1]}
    devices.seed_everything(seed)
    settings = config.hyperparameters("vae")
    batch_size = settings.pop("batch_size")
    start, seen = vae.VAE(**shape, **settings), budget.warm_gan_images
    before = vae.train(
        start, images, budget.warm_vae_images, zoo.PRIOR_SHARE * budget.warm_vae_images, batch_size, folder, seed,
        plot=False,
    )  # fmt: skip
    settings = config.hyperparameters("dcgan") | {"jpeg_quality": None}
    batch_size = settings.pop("batch_size")
    ema_share = settings.pop("ema_share")
    devices.seed_everything(seed)
    model = dcgan.DCGAN(**shape, **settings)
    model.start_from(start, seen)
    history = loop.fit(
        model, images, seen // batch_size, batch_size, folder / "gan", model.config | {"start": model.start}, seed,
        texture_hook(parts, seed), ema_share=ema_share, plot=False,
    )  # fmt: skip
    return zoo.Trained(model, history, sum(rows[-1]["seconds"] for rows in (*before, history)))


def texture_hook(parts: Parts, seed: int):
    """The `evaluate` of `loop.fit` for a GAN: the Frechet distance of the texture to validation images."""
    few = parts.validation.images
    return fidelity.frechet_distance_hook(
        feature_spaces.Texture(), few, min(budgets.garments().curve_images, len(few)), seed
    )


def draw(model: nn.Module, count: int, folder: Path, seed: int = 0, **options) -> np.ndarray:
    """Samples uint8 (count, C, H, W) of a model. They are kept in `folder`, and read again for the same weights.

    Args:
        folder: the `training_folder` of the model.
        options: further arguments of the model's `sample`. The batch size does not change the samples.
    """
    told = [count, seed, *(value for name, value in options.items() if name != "batch_size")]
    path = folder / f"samples_{'_'.join(map(str, told))}.npz"

    def make() -> dict:
        return {"images": image_files.to_uint8(model.sample(count, seed, **options))}

    return kept_values(path, {"model": checkpoints.fingerprint(model)}, make)["images"]


def bits(
    model: nn.Module, images: np.ndarray, num_samples: int = 4, folder: Path | None = None, part: str = ""
) -> tuple[float, float]:
    """Bits per dimension of images uint8 (N, C, H, W), and the standard error; see `likelihood.nats`.

    Args:
        folder: the `training_folder` of the model, to keep the likelihoods there. They are read again for the same
            weights and images.
        part: the name of the part of the data that the images are, for the name of this file.
    """

    def make() -> dict:
        return {"nats": likelihood.nats(model, image_files.to_float(images), num_samples).numpy()}

    if folder is None:
        found = make()
    else:
        wanted = {"model": checkpoints.fingerprint(model), "images": identity.of_data((torch.from_numpy(images),))}
        found = kept_values(folder / f"nats_{part}_{len(images)}_{num_samples}.npz", wanted, make)
    return likelihood.bits_per_dimension(torch.from_numpy(found["nats"]), images[0].size)
