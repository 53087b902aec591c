"""The project's folders, the profiles with their budgets, the notebooks of each task, the hyper-parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path

FAMILIES = ("VAE", "GAN", "PixelCNN", "flow", "diffusion")
DATA_SETS = ("Fashion-MNIST", "CelebA", "CelebA in colour")
SHIPPED = ("hands-gan", "hands-vae", "heads")  # models whose weights this repository ships
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
PROJECT = Path(__file__).resolve().parent.parent


HANDS = ("username_DLcw1_clean.ipynb", "username_DLcw2_clean.ipynb")
TUNING = ("username_DLcw1_hypertune.ipynb", "username_DLcw2_hypertune.ipynb")
MRI = ("brain_mri/Assessment.ipynb",)
FINAL = ("fashion_mnist/hypertune.ipynb", "fashion_mnist/generative_models.ipynb")
TASKS = {"hands": HANDS, "tuning": TUNING, "mri": MRI, "final": FINAL, "all": (*TUNING, *HANDS, *MRI, *FINAL)}


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


def run_folder(name: str = "") -> Path:
    """`runs/<profile>/<name>`, made where missing. RUNS_FOLDER moves `runs` (in Colab: to Drive)."""
    path = Path(os.environ.get("RUNS_FOLDER", PROJECT / "runs")) / profile() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def in_place() -> bool:
    """Does this run replace the committed results? In `full`, unless RUNS_FOLDER says to keep all of it elsewhere."""
    return profile() == "full" and "RUNS_FOLDER" not in os.environ


def results_folder() -> Path:
    """Where results go: the project's own folder if `in_place`, else `runs/<profile>`, so that a short trial never
    overwrites the committed hand-in, and one in Colab stays on Drive."""
    return PROJECT if in_place() else run_folder()


def hyperparameters(model: str, committed: bool = False) -> dict:
    """The hyper-parameters of a model: those tuned in this profile, else (or if so asked) the committed ones.

    `utils/hyperparameters.json` is the one place; the hypertune notebook writes it.
    """
    path, tuned = PROJECT / "utils" / "hyperparameters.json", run_folder() / "hyperparameters.json"
    values = json.loads(path.read_text())
    if not committed and not in_place() and tuned.is_file():
        values |= json.loads(tuned.read_text())
    if model not in values:
        raise KeyError(f"'{path}' has no hyper-parameters for '{model}', only for {', '.join(values)}")
    return values[model]


def write_hyperparameters(model: str, values: dict) -> Path:
    """Record a model's tuned values where `hyperparameters` finds them; returns the file."""
    path = PROJECT / "utils" / "hyperparameters.json" if in_place() else run_folder() / "hyperparameters.json"
    committed = json.loads((PROJECT / "utils" / "hyperparameters.json").read_text())
    known = json.loads(path.read_text()) if path.is_file() else committed
    path.write_text(json.dumps(known | {model: values}, indent=2) + "\n")
    return path
