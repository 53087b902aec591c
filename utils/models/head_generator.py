"""Generates head slices, with the course's generator or with the diffusion model of this repository."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.data.head_images import FOLDER
from utils.models.diffusion import Diffusion
from utils.training import devices

GENERATOR = FOLDER / "weights" / "head_generator.safetensors"
STAND_INS, STAND_IN_STEPS = 80, 10  # slices that take the place of the course's, and the sampler's steps for each


def generate(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
) -> list[Tensor]:
    """New heads as a list of batches (<= batch_size, 1, 64, 64) in about [0, 1], on the model's device.

    They come from the course's generator (`ese_invldm`) if it is installed and works, and else from the diffusion model
    whose weights are in this repository. Arguments and result have the form of the course's `generate`; see also
    `Diffusion.sample`.

    Raises:
        FileNotFoundError, CheckpointDamaged: the course's generator and our weights are both missing or damaged.
    """
    arguments = (num_samples, num_inference_steps, batch_size)
    options = {"scheduler": scheduler, "temperature": temperature, "seed": seed}
    try:
        from ese_invldm import generate as course_generate

        return course_generate(*arguments, **options)
    except Exception as error:  # whatever goes wrong in it, our generator can take its place
        if getattr(error, "name", None) != "ese_invldm":  # it is installed, but does not work
            print(f"ese_invldm failed ({error!r}); our own generator is used instead")
    return own_heads(*arguments, **options)


def own_heads(num_samples: int, num_inference_steps: int, batch_size: int, **options) -> list[Tensor]:
    """`generate` with our own diffusion model, even if the course's generator is installed."""
    device = devices.accelerator().device
    model = Diffusion.from_weights(GENERATOR).to(device)
    heads = model.sample(num_samples, steps=num_inference_steps, batch_size=batch_size, **options)
    return [(batch + 1) / 2 for batch in heads.to(device).split(batch_size)]


def stand_in() -> Tensor:
    """Generated slices (STAND_INS, 1, 64, 64) in [0, 1] on the CPU, for runs without the course's `heads.npz`."""
    return torch.cat(own_heads(STAND_INS, STAND_IN_STEPS, 100, seed=1)).cpu()
