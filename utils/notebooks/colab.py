"""Google Colab: preparing a notebook there, and the "Open in Colab" links to a copy of this project."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from utils import config, files
from utils.handin import inspection

LINK = re.compile(r"(colab\.research\.google\.com/github/)([\w.-]+/[\w.-]+)(?=/blob/[\w.-]+/([^)\s\"\\]+))")
ADDRESS = re.compile(r'(ADDRESS = \\?"https://github\.com/)([\w.-]+/[\w.-]+)(?=\\?")')  # in a notebook's first cell
PLACEHOLDER = "OWNER/REPOSITORY"
NEEDED = {  # what the notebooks import and Colab may lack: the name of the import, and the package
    "accelerate": "accelerate", "livelossplot": "livelossplot", "optuna": "optuna",
    "pooch": "pooch", "safetensors": "safetensors", "skimage": "scikit-image", "torchinfo": "torchinfo",
    "torchmetrics": "torchmetrics",
}  # fmt: skip


def setup() -> None:
    """Prepare a notebook in Colab. Elsewhere, do nothing. It can be called again at any time.

    - Drive is mounted, and the runs are kept there, in `hands_runs/`. So a run goes on after a disconnection.
    - Missing packages are installed. No package that Colab has is replaced.
    - With a GPU, the profile is `full`, unless PROFILE is set.
    - The hands are downloaded. Archives of the course are used if they are in `hands_runs/`.

    Raises:
        RuntimeError: a package cannot be installed.
        ValueError: the folders with hands are damaged. The message says what to do.
    """
    if "google.colab" not in sys.modules:
        return
    from google.colab import drive

    drive.mount(str(config.PROJECT.parent / "drive"))  # the project is in /content/project
    runs = config.PROJECT.parent / "drive" / "MyDrive" / "hands_runs"
    os.environ.setdefault("RUNS_FOLDER", str(runs))
    install([package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None])
    import torch

    if torch.cuda.is_available():
        os.environ.setdefault("PROFILE", "full")
    get_hands(runs)


def install(packages: list[str]) -> None:
    """Install packages, but replace none that is installed: pip chooses versions that work with these.

    For example, the newest livelossplot needs a newer IPython than Colab has, so an older livelossplot is installed.
    With another IPython, Colab's runtime would crash.

    Raises:
        RuntimeError: pip failed. The message is its last line.
    """
    if not packages:
        return
    print(f"installing {', '.join(packages)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        pins = "\n".join(f"{name}=={version}" for name, version in installed().items())
        constraints.write_text(pins, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *packages]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["pip failed"]
        raise RuntimeError(f"{', '.join(packages)} could not be installed: {said[-1]}")
    importlib.invalidate_caches()


def installed() -> dict[str, str]:
    """The version of each installed package. Packages whose version pip cannot read are left out."""
    from packaging.version import InvalidVersion, Version  # here, because the command `colab` needs no packages

    found: dict[str, str] = {}
    for package in metadata.distributions():
        try:
            found.setdefault(package.metadata["Name"], str(Version(package.version)))
        except (InvalidVersion, TypeError):  # TypeError: a damaged package without a version
            continue
    return found


def get_hands(runs: Path) -> None:
    """Fill the folders of hands from the course's archives in `runs`, from MedNIST, or with stand-ins."""
    from utils.data import sources
    from utils.models import shipped

    for name in sources.ARCHIVES:
        if (runs / name).is_file() and not (config.PROJECT / name).is_file():
            shutil.copyfile(runs / name, config.PROJECT / name)
    sources.obtain(stand_in=shipped.hands)


def point_to(folder: Path, repository: str) -> list[str]:
    """Change the "Open in Colab" links of this project, and the address in the first cells, to a repository on GitHub.

    Links to other repositories stay. This project's links have the address in the first cells; if there is none, they
    lead to a notebook in the folder.

    Args:
        folder: a folder like this repository.
        repository: OWNER/NAME.

    Returns:
        The names of the files that were changed.

    Raises:
        ValueError: `repository` does not have this form.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"'{repository}' is not a repository: write OWNER/NAME, as in its address on GitHub")
    names = [path for path in inspection.listing(folder) if path.endswith((".ipynb", ".md"))]
    texts = {path: (folder / path).read_bytes().decode(errors="surrogateescape") for path in names}
    own = {match[2] for text in texts.values() for match in ADDRESS.finditer(text)}

    def new_link(match: re.Match) -> str:
        ours = match[2] in {*own, PLACEHOLDER} or (not own and (folder / match[3]).is_file())
        return match[1] + (repository if ours else match[2])

    changed = []
    for path, old in texts.items():
        new = ADDRESS.sub(rf"\g<1>{repository}", LINK.sub(new_link, old))
        if new != old:
            files.write_atomically(folder / path, new.encode(errors="surrogateescape"))
            changed.append(path)
    return changed
