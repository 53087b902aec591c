"""The project's folders, the profiles, the notebooks of each task, and the hyper-parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path

from utils import files

PROJECT = Path(__file__).resolve().parent.parent
STAND_IN_NOTE = "STAND_IN.txt"  # a file that is in real_hands/ as long as it holds stand-ins
PROFILES = ("smoke", "quick", "full")
CLASSES = ("real", "VAE", "GAN")  # of hands; a label is an index of this tuple
FAMILIES = ("VAE", "GAN", "PixelCNN", "flow", "diffusion")  # `models.zoo` has the class of each
DATA_SETS = ("Fashion-MNIST", "CelebA", "CelebA in colour")
SHIPPED = ("hands-gan", "hands-vae", "heads", "garments")  # models whose weights this repository ships

# Two hands count as copies if their distance is less than this: the root mean square over the pixels, in grey levels.
# Measured on the 8000 real hands: the distance between two different hands is at least 13.6. The distance between a
# hand and a changed copy is smaller: at most 3.1 if it is saved again as a JPEG of quality 75 or more, 1 if every pixel
# changes by one grey level, and 4.2 (median) if it is enlarged to 64 x 64 pixels and reduced again.
NEAR_COPY_RMS = 6.0

HANDS = ("username_DLcw1_clean.ipynb", "username_DLcw2_clean.ipynb")
TUNING = ("username_DLcw1_hypertune.ipynb", "username_DLcw2_hypertune.ipynb")
MRI = ("brain_mri/Assessment.ipynb",)
FINAL = ("fashion_mnist/hypertune.ipynb", "fashion_mnist/generative_models.ipynb")
TASKS = {"hands": HANDS, "tuning": TUNING, "mri": MRI, "final": FINAL, "all": (*TUNING, *HANDS, *MRI, *FINAL)}


def profile() -> str:
    """The profile of this run, from the environment variable PROFILE (default: quick).

    Raises:
        ValueError: PROFILE is not smoke, quick or full.
    """
    name = os.environ.get("PROFILE", "quick")
    if name not in PROFILES:
        raise ValueError(f"PROFILE is '{name}', but must be one of {', '.join(PROFILES)}")
    return name


def run_folder(name: str = "") -> Path:
    """The folder `runs/<profile>/<name>`. It is created if it does not exist.

    If the environment variable RUNS_FOLDER is set, it is used instead of `runs` (in Colab: a folder on Drive).
    """
    path = Path(os.environ.get("RUNS_FOLDER", PROJECT / "runs")).expanduser() / profile() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def in_place() -> bool:
    """Does this run replace the committed results? Only in the profile `full`, and only without RUNS_FOLDER."""
    return profile() == "full" and "RUNS_FOLDER" not in os.environ


def results_folder() -> Path:
    """Where results are written: to the project's folder if `in_place()`, otherwise to `runs/<profile>`.

    So a short run never overwrites the committed hand-in, and the results of a run in Colab stay on Drive.
    """
    return PROJECT if in_place() else run_folder()


def tuned_hyperparameters() -> Path:
    """The file with the values that were tuned in this profile. Values that were tuned on stand-ins have their own."""
    stand_ins = (PROJECT / "real_hands" / STAND_IN_NOTE).is_file()
    return run_folder() / f"hyperparameters{'_stand_in' if stand_ins else ''}.json"


def hyperparameters(model: str, committed: bool = False) -> dict:
    """The hyper-parameters of a model: the values tuned in this profile, if there are any, or the committed values.

    Tuned values are in `tuned_hyperparameters()`, and a line says so if they are used. Committed values are in
    `utils/hyperparameters.json`.

    Args:
        model: a key of these files.
        committed: use the committed values even if there are tuned ones.

    Raises:
        ValueError: there are no values for this model.
        ValueError: a file is damaged.
    """
    path, tuned = PROJECT / "utils" / "hyperparameters.json", tuned_hyperparameters()
    values = _read_hyperparameters(path)
    if not committed and not in_place() and tuned.is_file():
        own = _read_hyperparameters(tuned)
        values |= own
        if model in own:
            print(f"The hyper-parameters of '{model}' are the ones that were tuned in this profile: {tuned}")
    if model not in values:
        raise ValueError(f"'{path}' has no hyper-parameters for '{model}', only for {', '.join(values)}")
    return values[model]


def write_hyperparameters(model: str, values: dict) -> Path:
    """Store a model's tuned values where `hyperparameters` finds them. The values of other models do not change.

    Returns:
        The path of the file. The file is written completely or not at all.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file exists, but it is damaged.
    """
    path = PROJECT / "utils" / "hyperparameters.json" if in_place() else tuned_hyperparameters()
    known = _read_hyperparameters(path) if path.is_file() else {}
    text = json.dumps(known | {model: values}, indent=2) + "\n"
    files.write_atomically(path, text.encode())
    return path


def _read_hyperparameters(path: Path) -> dict[str, dict]:
    """The values of each model in a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"'{path}' is damaged ({error}). Delete it, or repair it by hand.") from error
    if not isinstance(values, dict) or not all(isinstance(found, dict) for found in values.values()):
        raise ValueError(f"'{path}' must hold the values of each model under its name. Delete it or repair it.")
    return values
