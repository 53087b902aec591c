"""Where a run writes, how large it is (profile), its seed, and the device and number format it uses."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast, parse_flag_from_env, reduce
from torch import Tensor, nn

PROFILES = ("smoke", "quick", "full")
# How much each profile does, in images seen where nothing else is said. `hands`, `cw2_hands`, `labelled`: at most so
# many are read of a folder (coursework 1, 2), of a class; None: all. A quarter of the hands is held out, and
# coursework 1's tables set 300 of these apart.
BUDGETS = {
    "smoke": {
        "hands": 1_300, "cw2_hands": 500, "labelled": 100,
        "vae": 256, "prior": 1_000, "dcgan": 96, "detector_steps": 3, "trials": 1, "gan_trials": 1,
        "trial_vae": 256, "trial_prior": 1_000, "trial_dcgan": 64, "alone_steps": 3, "two_sample_steps": 3, "seeds": 1,
        "classifier": 128, "mixture": 128, "presumed": 128, "trial_classifier": 128, "trial_mixture": 128,
        "folds": 2, "labelled_folds": 2, "classifier_seeds": 1, "classifier_trials": 1, "views": 1,
        "network_kinds": 2,
        "head_generator": 32, "generated_heads": 8, "imputer": 64, "trial_imputer": 32,
        "imputer_trials": 1,
        "garments": 400, "garment_judge": 256, "garment_VAE": 128, "garment_GAN": 64,
        "garment_PixelCNN": 64, "garment_flow": 64, "garment_diffusion": 64, "garment_trials": 1,
        "garment_trial_VAE": 128, "garment_trial_GAN": 64,
        "garment_trial_PixelCNN": 32, "garment_trial_flow": 32, "garment_trial_diffusion": 32,
        "garment_GAN_alone": 64, "garment_longer": 64, "garment_few": 10, "garment_tested": 10, "garment_samples": 24,
    },
    "quick": {
        "hands": None, "cw2_hands": None, "labelled": None,
        "vae": 20_000, "prior": 60_000, "dcgan": 5_000, "detector_steps": 100, "trials": 2, "gan_trials": 2,
        "trial_vae": 2_400, "trial_prior": 8_000, "trial_dcgan": 640, "alone_steps": 40, "two_sample_steps": 20,
        "seeds": 1, "classifier": 5_000, "mixture": 8_000, "presumed": 6_000,
        "trial_classifier": 800, "trial_mixture": 1_000,
        "folds": 2, "labelled_folds": 2, "classifier_seeds": 1, "classifier_trials": 1, "views": 1,
        "network_kinds": 1,
        "head_generator": 800, "generated_heads": 40, "imputer": 2_000, "trial_imputer": 400, "imputer_trials": 2,
        "garments": 12_000, "garment_judge": 15_000, "garment_VAE": 15_000,
        "garment_GAN": 1_500, "garment_PixelCNN": 4_000, "garment_flow": 2_000, "garment_diffusion": 3_000,
        "garment_trials": 2, "garment_trial_VAE": 2_000, "garment_trial_GAN": 500,
        "garment_trial_PixelCNN": 500, "garment_trial_flow": 250, "garment_trial_diffusion": 500,
        "garment_GAN_alone": 1_500, "garment_longer": 8_000,
        "garment_few": 100, "garment_tested": 200, "garment_samples": 200,
    },
    "full": {
        "hands": None, "cw2_hands": None, "labelled": None,
        "vae": 160_000, "prior": 400_000, "dcgan": 12_000, "detector_steps": 400, "trials": 6, "gan_trials": 4,
        "trial_vae": 32_000, "trial_prior": 100_000, "trial_dcgan": 12_000, "alone_steps": 300,
        "two_sample_steps": 200, "seeds": 2,
        "classifier": 30_000, "mixture": 80_000, "presumed": 200_000, "trial_classifier": 10_000,
        "trial_mixture": 20_000, "folds": 5, "labelled_folds": 10, "classifier_seeds": 2, "classifier_trials": 6,
        "views": 5, "network_kinds": 2,
        "head_generator": 32_000, "generated_heads": 250, "imputer": 50_000, "trial_imputer": 4_000,
        "imputer_trials": 6,
        "garments": None, "garment_judge": 120_000, "garment_VAE": 160_000,
        "garment_GAN": 6_000, "garment_PixelCNN": 100_000, "garment_flow": 56_000, "garment_diffusion": 90_000,
        "garment_trials": 6, "garment_trial_VAE": 14_560,
        "garment_trial_GAN": 15_000, "garment_trial_PixelCNN": 4_160, "garment_trial_flow": 2_330,
        "garment_trial_diffusion": 4_160, "garment_GAN_alone": 40_000, "garment_longer": 400_000,
        "garment_few": 500, "garment_tested": 10_000, "garment_samples": 1_000,
    },
}  # fmt: skip
PATIENCE = timedelta(hours=1)  # with which processes wait for the one that decodes a large folder
PROJECT = Path(__file__).resolve().parent.parent


def profile() -> str:
    """The profile of this run, from the environment variable PROFILE (default: quick).

    Raises:
        ValueError: PROFILE is set to something else than smoke, quick or full.
    """
    name = os.environ.get("PROFILE", "quick")
    if name not in PROFILES:
        raise ValueError(f"PROFILE is '{name}', but must be one of {', '.join(PROFILES)}")
    return name


def budget(what: str) -> int | None:
    """How much of something this profile does; see BUDGETS."""
    return BUDGETS[profile()][what]


def folder(name: str = "") -> Path:
    """`runs/<profile>/<name>`, made where missing. RUNS_FOLDER moves `runs` (in Colab: to Drive)."""
    path = Path(os.environ.get("RUNS_FOLDER", PROJECT / "runs")) / profile() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def in_place() -> bool:
    """Does this run replace the committed results? In `full`, unless RUNS_FOLDER says to keep all of it elsewhere."""
    return profile() == "full" and "RUNS_FOLDER" not in os.environ


def hand_in() -> Path:
    """Where results go: the project's own folder if `in_place`, else `runs/<profile>`, so that a short trial never
    overwrites the committed hand-in, and one in Colab stays on Drive."""
    return PROJECT if in_place() else folder()


def hyperparameters(model: str, committed: bool = False) -> dict:
    """The hyper-parameters of a model: those tuned in this profile, else (or if so asked) the committed ones.

    `utils/hyperparameters.json` is the one place; the hypertune notebook writes it.
    """
    path, tuned = PROJECT / "utils" / "hyperparameters.json", folder() / "hyperparameters.json"
    values = json.loads(path.read_text())
    if not committed and not in_place() and tuned.is_file():
        values |= json.loads(tuned.read_text())
    if model not in values:
        raise KeyError(f"'{path}' has no hyper-parameters for '{model}', only for {', '.join(values)}")
    return values[model]


def write_hyperparameters(model: str, values: dict) -> Path:
    """Record a model's tuned values where `hyperparameters` finds them; returns the file."""
    path = PROJECT / "utils" / "hyperparameters.json" if in_place() else folder() / "hyperparameters.json"
    committed = json.loads((PROJECT / "utils" / "hyperparameters.json").read_text())
    known = json.loads(path.read_text()) if path.is_file() else committed
    path.write_text(json.dumps(known | {model: values}, indent=2) + "\n")
    return path


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; call it before a network is built, so that its weights repeat."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mixed_precision() -> str:
    """'bf16' where the processor or GPU computes bfloat16 faster than float32, else 'no' (float32).

    A process that Accelerate has started takes what Accelerate was told (`--mixed_precision`, or its config file).
    Intel's processors since Sapphire Rapids (those with avx512_fp16) are fast at it in their matrix units (AMX) alone;
    where a virtual machine hides these, bfloat16 took twice as long as float32 (`python -m benchmarks.training_step`).

    Raises:
        ValueError: Accelerate was told something else than 'no' and 'bf16'.
    """
    told, cpu = os.environ.get("ACCELERATE_MIXED_PRECISION"), parse_flag_from_env("ACCELERATE_USE_CPU")
    if told in ("no", "bf16"):
        return told
    if told:
        raise ValueError(f"mixed precision is '{told}', but must be 'no' or 'bf16': gradients are not scaled here")
    if torch.cuda.is_available() and not cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if torch.backends.mps.is_available() and not cpu:
        return "no"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    vectors = flags.get("avx512_bf16") and not flags.get("avx512_fp16")
    return "bf16" if flags.get("amx_bf16") or vectors or flags.get("bf16") else "no"


def accelerator() -> Accelerator:
    """The process's Accelerator: device, number format and the other processes, if any.

    Raises:
        ValueError: this is one of several that were started together, but knows nothing of the others, as on a CPU
            that Accelerate was not told of: each would train for itself, and all would write to the same files.
    """
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    found = Accelerator(mixed_precision=mixed_precision(), kwargs_handlers=[patience])
    started = int(os.environ.get("WORLD_SIZE", 1))
    if found.num_processes == 1 < started:
        raise ValueError(
            f"{started} processes were started, but each would train alone, into the same folder. With no GPU, set "
            "ACCELERATE_USE_CPU=true; else start one process"
        )
    return found


def over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses (numbers) of a batch that several processes share, from those of this one's share; alone, the same.

    A `step` that returns its losses through this gets those of the whole batch into the history.
    """
    means = reduce(torch.stack([loss.detach().float() for loss in losses.values()]), "mean")
    return dict(zip(losses, means))


def same_everywhere(model: nn.Module) -> None:
    """Give all processes the first one's weights and statistics (batch normalisation counts them in each by itself)."""
    for value in model.state_dict().values():
        value.copy_(broadcast(value.contiguous()))
