"""Makes an environment with the versions of the packages that Colab has, for tests/test_colab.py.

    python -m tests.colab_environment FOLDER
    COLAB_ENVIRONMENT=FOLDER python -m pytest tests/test_colab.py -m slow

PINNED holds Colab's versions of June 2026, from pip-freeze.gpu.txt in github.com/googlecolab/backend-info. Colab has
Python 3.12 and torch 2.11. This environment has the Python and all other packages of the environment that makes it,
through links, so that only about 120 MB are downloaded. It lacks the packages of MISSING, as Colab does.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

PINNED = {
    "accelerate": "1.13.0", "ipykernel": "6.17.1", "ipython": "7.34.0", "ipywidgets": "7.7.1",
    "jupyter-client": "7.4.9", "matplotlib": "3.10.0", "nbclient": "0.10.4", "numpy": "2.0.2", "pandas": "2.2.2",
    "pip": "24.1.2", "pillow": "11.3.0", "pyzmq": "26.2.1", "scikit-learn": "1.6.1", "scipy": "1.16.3",
    "sqlalchemy": "2.0.50", "tornado": "6.5.1", "tqdm": "4.67.3", "traitlets": "5.7.1",
}  # fmt: skip
MISSING = ("livelossplot", "optuna", "torchinfo", "torchmetrics", "lightning-utilities", "colorlog")


def left_out() -> set[str]:
    """The top folders and files, in this environment, of the packages in PINNED and MISSING."""
    names = {"_distutils_hack"}
    for package in (*PINNED, *MISSING):
        files = metadata.files(package) if package != "pip" else None
        names |= {path.parts[0] for path in files or () if path.parts[0] not in ("..", "__pycache__")}
    return names


def make(folder: Path) -> None:
    """Make the environment. If it is complete, do nothing.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed.
    """
    done = folder / "complete"
    if done.exists():
        return
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    pins = [f"{name}=={version}" for name, version in PINNED.items()]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
    shared, skipped = folder / "shared", left_out()
    shared.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.name not in skipped and path.suffix != ".pth":
            (shared / path.name).symlink_to(path)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "shared.pth").write_text(f"{shared.resolve()}\n", encoding="utf-8")  # after the packages of its own
    done.touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
