"""Makes a folder that is ready to be handed in: it holds the files that a brief requires, with the required names."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from pathlib import Path

import nbformat

from utils.handin import inspection, rename, source

ANSWERED = ("Answer to question 1", "Answer to question 2")  # headings in the README
RUNNING = ("utils/*.json", "requirements.txt", "constraints.txt", "LICENSE", "weights/*.safetensors")
ANSWERS = ("docs/data_and_time.png",)  # pictures in the answers in the README
LEAST_MINOR_WITH_IDS = 5  # of nbformat 4
# For each brief: patterns of the files to copy, and files that get another name. `{user}` is the username, `{model}` is
# GAN or VAE. The files in RUNNING and the modules that the notebooks import are always copied.
LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "cw1": (("{user}_DLcw1_*.ipynb", "{model}_hands/{user}_*", "references.md"), {}),
    "cw2": (
        (
            "{user}_DLcw2_*.ipynb", "{user}_classified_hands.csv", "references.md",
            "GAN_hands/{user}_*", "VAE_hands/{user}_*", *ANSWERS,
        ),
        {},
    ),
    "portfolio": (
        ("GAN_hands/{user}_*", "VAE_hands/{user}_*", "references.md", *ANSWERS),
        {
            "{user}_DLcw1_clean.ipynb": "GenAI Models.ipynb",
            "{user}_DLcw2_clean.ipynb": "Classifier.ipynb",
            "{user}_classified_hands.csv": "Classification Result.csv",
        },
    ),
    "mri": (
        ("brain_mri/*.ipynb", "brain_mri/*.md", "brain_mri/test_set_nogaps.npy", "brain_mri/weights/*.safetensors"),
        {},
    ),
    "final": (
        (
            "fashion_mnist/*.ipynb", "fashion_mnist/report.md", "fashion_mnist/samples/*.png",
            "fashion_mnist/figures/*.png", "fashion_mnist/results.json", "fashion_mnist/weights/*",
            "references.md",
        ),
        {},
    ),
}  # fmt: skip


def merged(notebooks: list[Path]) -> nbformat.NotebookNode:
    """Join executed notebooks into one. The execution numbers continue from one notebook to the next."""
    whole, done = nbformat.read(notebooks[0], as_version=4), 0
    whole.cells = []
    for path in notebooks:
        part = nbformat.read(path, as_version=4)
        for cell in part.cells:
            if cell.cell_type == "code" and cell.execution_count is not None:
                cell.execution_count += done
                for output in cell.outputs:
                    if "execution_count" in output:
                        output.execution_count = cell.execution_count
        done += sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in part.cells)
        whole.cells += part.cells
    for number, cell in enumerate(whole.cells):
        cell["id"] = f"cell-{number}"
    whole.nbformat_minor = max(whole.nbformat_minor, LEAST_MINOR_WITH_IDS)
    return whole


def valid(content: bytes) -> bytes:
    """A notebook's content that is valid for nbformat: cells have ids, and the minor version allows them.

    It stays as it is if it is valid already, and if it is not format 4.
    """
    notebook = json.loads(content)
    cells = notebook.get("cells", [])
    with_ids = sum("id" in cell for cell in cells)
    minor = notebook.get("nbformat_minor", 0)
    if notebook.get("nbformat") != 4 or with_ids == (len(cells) if minor >= LEAST_MINOR_WITH_IDS else 0):
        return content
    for number, cell in enumerate(cells):
        cell.setdefault("id", f"cell-{number}")
    notebook["nbformat_minor"] = max(minor, LEAST_MINOR_WITH_IDS)
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()


def imported(project: Path, notebooks: list[str], files: tuple[str, ...]) -> set[str]:
    """The modules of `utils` that notebooks import, those that these import, and so on: their paths."""
    there, found, handin = set(files), set[str](), inspection.HandIn(project)
    trees = [source.parse(cell.source) for name in notebooks for cell in handin.cells(name) if cell.code]
    while trees:
        modules = source.imports([tree for tree in trees if tree is not None])
        paths = {f"{module.replace('.', '/')}.py" for module in modules}
        parents = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
        paths |= {f"{parent}/__init__.py" for parent in parents} | {f"{path[:-3]}/__init__.py" for path in paths}
        new = {path for path in paths & there if path.startswith("utils/")} - found
        found |= new
        trees = [source.parse((project / path).read_text(encoding="utf-8")) for path in new]
    return found


def answers(readme: str) -> str:
    """The README of a hand-in: the answers to the two questions, from the project's README."""
    parts = [
        match.group(0).strip()
        for heading in ANSWERED
        if (match := re.search(rf"^## {heading}\n.*?(?=^## |\Z)", readme, re.M | re.S))
    ]
    return "# Classification coursework: the two questions\n\n" + "\n\n".join(parts) + "\n"


def without_dead_links(text: str, folder: Path) -> str:
    """Turn Markdown links to files that are not in the folder into plain text."""

    def kept(match: re.Match) -> str:
        address = match.group(2).split("#")[0]
        return match.group(0) if "://" in address or (folder / address).exists() else match.group(1)

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", kept, text)


def _is_source(name: str, user: str) -> bool:
    """Is this file of the project handed in for some brief?"""
    wanted = [p for patterns, renamed in LAYOUTS.values() for p in (*patterns, *renamed)] + ["utils/*", *RUNNING]
    return any(fnmatch.fnmatchcase(name, p.format(user=user, model="[GV]A[NE]")) for p in wanted)


def export(project: Path, brief: str, out: Path, model: str = "GAN") -> Path:
    """Write the hand-in to `out`, and return `out`. If this fails, nothing is written.

    Args:
        project: a folder like this repository.
        brief: one of `LAYOUTS`.
        out: a new or empty folder.
        model: GAN or VAE. The 300 hands of this model are handed in for coursework 1.

    Raises:
        FileExistsError: `out` is not empty.
        ValueError: `out` is inside a folder of the project whose files are handed in.
        FileNotFoundError: a required file is not in the project.
        Failed: a notebook is damaged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{out}' already exists. Choose a new folder, or remove it.")
    user, files = rename.current_name(project), inspection.listing(project)
    if out.resolve().is_relative_to(project.resolve()):
        top = out.resolve().relative_to(project.resolve()).parts
        if not top or any(name.startswith(f"{top[0]}/") and _is_source(name, user) for name in files):
            raise ValueError(f"'{out}' is inside a folder of the project that is handed in. Choose another folder.")
    patterns, renamed = LAYOUTS[brief]
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        chosen: dict[str, str] = {}
        for pattern in (*patterns, *renamed, *RUNNING):
            wanted = pattern.format(user=user, model=model)
            found = [name for name in files if fnmatch.fnmatchcase(name, wanted)]
            if not found:
                raise FileNotFoundError(f"'{project}' has no {wanted}, which the hand-in needs.")
            chosen |= {name: renamed.get(pattern, name) for name in found}
        notebooks = [name for name in chosen if name.endswith(".ipynb")]
        parts = [f"{user}_DLcw{number}_hypertune.ipynb" for number in (1, 2)] if brief == "portfolio" else []
        chosen |= {name: name for name in imported(project, [*notebooks, *parts], files)}
        if parts:
            nbformat.write(merged([project / part for part in parts]), building / "Hypertuning.ipynb")
        for name, target in chosen.items():
            (building / target).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".ipynb"):
                (building / target).write_bytes(valid((project / name).read_bytes()))
            else:
                shutil.copyfile(project / name, building / target)
        if brief in ("cw2", "portfolio"):
            text = answers((project / "README.md").read_text(encoding="utf-8"))
            (building / "README.md").write_text(without_dead_links(text, building), encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out
