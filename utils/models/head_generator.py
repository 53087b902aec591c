"""Generates head slices: the course's own generator, or the diffusion model whose weights this repository ships."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.data.head_images import FOLDER
from utils.models.diffusion import Diffusion
from utils.training import devices

GENERATOR = FOLDER / "weights" / "head_generator.safetensors"
STAND_INS, STAND_IN_STEPS = 80, 10


def generate(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
) -> list[Tensor]:
    """New heads as a list of batches (<= batch_size, 1, 64, 64), values in about [0, 1].

    The course's own generator (`ese_invldm`) where it is installed and works; else the diffusion model whose
    weights this repository ships (`utils.diffusion`). Arguments as of `Diffusion.sample`.

    Raises:
        FileNotFoundError, CheckpointDamaged: neither the course's generator nor our weights can be used.
    """
    arguments = (num_samples, num_inference_steps, batch_size)
    options = {"scheduler": scheduler, "temperature": temperature, "seed": seed}
    try:
        from ese_invldm import generate as course_generate

        return course_generate(*arguments, **options)
    except Exception as error:  # whatever goes wrong in it, there is another generator
        if getattr(error, "name", None) != "ese_invldm":  # it is there, but does not work
            print(f"ese_invldm failed ({error!r}); our own generator is used instead")
    return own_heads(*arguments, **options)


def own_heads(num_samples: int, num_inference_steps: int, batch_size: int, **options) -> list[Tensor]:
    """`generate` by our own diffusion model, whatever else is installed."""
    model = Diffusion.from_weights(GENERATOR).to(devices.accelerator().device)
    batches = model.sample(num_samples, num_inference_steps, batch_size, **options)
    return [(batch + 1) / 2 for batch in batches]


def stand_in() -> Tensor:
    """Generated slices (STAND_INS, 1, 64, 64) in [0, 1], for trying everything without the course's `heads.npz`."""
    return torch.cat(own_heads(STAND_INS, STAND_IN_STEPS, 100, seed=1))
