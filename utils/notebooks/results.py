"""A summary of a run: where the results are, all new hands on one sheet, and the number of each label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from utils import config
from utils.data import image_files, label_csv

COLUMNS, ZOOM = 20, 3  # of the contact sheet; the hands have only 32 pixels, so they are enlarged


def contact_sheet(folder: Path, out: Path) -> Path:
    """Write all samples of a folder to one PNG picture, three times as large. Returns `out`."""
    found = image_files.read(folder, pattern="username_*")
    larger = found.images.repeat(ZOOM, axis=2).repeat(ZOOM, axis=3)
    Image.fromarray(image_files.tile(larger, COLUMNS, gap=ZOOM)).save(out)
    return out


def label_counts(path: Path) -> str:
    """The number of files with each label in a label file, for example `8434 files: 2100 real, ...`."""
    labels = label_csv.read(path)
    counts = Counter(labels.values())
    return f"{len(labels)} files: {', '.join(f'{counts[number]} {name}' for number, name in enumerate(config.CLASSES))}"


def summary(notebooks: list[Path]) -> list[str]:
    """Lines that say where the results of executed notebooks are. This also writes the contact sheets."""
    where, lines = config.results_folder(), []
    names = [path.name for path in notebooks]
    if any("DLcw1_clean" in name or name == "GenAI Models.ipynb" for name in names):
        for kind in ("GAN", "VAE"):
            sheet = contact_sheet(where / f"{kind}_hands", config.run_folder() / f"{kind}_hands.png")
            lines.append(f"300 new hands by the {kind}: {where / f'{kind}_hands'}, all on one sheet: {sheet}")
    if any("DLcw2_clean" in name or name == "Classifier.ipynb" for name in names):
        labels = where / "username_classified_hands.csv"
        lines.append(f"labels of the test images: {labels} ({label_counts(labels)})")
    for folder in sorted({path.parent.name for path in notebooks if path.parent != config.PROJECT.resolve()}):
        if (where / folder).is_dir():
            lines.append(f"files of the task: {where / folder}")
    return lines + [f"executed notebook: {config.run_folder() / name}" for name in names]
