"""A complete hand-in for four briefs, by a student ab123 who does not exist, and many ways to break it."""

import shutil
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from utils.data import head_images
from utils.data.image_files import write_jpegs
from utils.handin import briefs

PICTURE = nbformat.v4.new_output("display_data", data={"image/png": "iVBORw0KGgo="})
SECTIONS = {
    "DLcw1": ["Justification", "Data preparation", "Network design", "The loops", "Training", "Generating", "Saving"],
    "DLcw2": ["Model selection", "Data", "Network", "Loops", "Training", "Evaluation", "Predictions"],
    "MRI": ["Question 1: data", "Question 2: loaders", "Question 3: network"],
    "final": ["Data", "Variational autoencoder", "GAN", "Autoregressive", "Normalising flow", "Comparison"],
}


def write_notebook(path, sections) -> None:
    """Write an executed notebook. Each section has a heading, some words, and a code cell with output."""
    notebook = nbformat.v4.new_notebook()
    for number, section in enumerate(sections, start=1):
        words = " ".join(["because the loss says so"] * 8)
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"## {number}. {section}\n\n{words}"))
        printed = nbformat.v4.new_output("stream", text="done\n")
        notebook.cells.append(
            nbformat.v4.new_code_cell("plot(loss)", execution_count=number, outputs=[printed, PICTURE])
        )
    if len(sections) < 7:
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell("A word. " * 120))
    nbformat.write(notebook, path)


def write_hand_in(root: Path) -> None:
    """Write the hand-in to a new folder."""
    root.mkdir()
    rng = np.random.default_rng(0)
    write_jpegs(rng.integers(0, 255, (300, 1, 32, 32), np.uint8), root / "GAN_hands", "ab123", 300)
    for coursework in ("DLcw1", "DLcw2"):
        write_notebook(root / f"ab123_{coursework}_clean.ipynb", SECTIONS[coursework])
        write_notebook(root / f"ab123_{coursework}_hypertune.ipynb", ["A", "B", "C", "D", "E", "F", "G"])
    rows = [f"test_hand_{i:04d}.jpeg, {i % 3}" for i in range(1, briefs.TEST_FILES + 1)]
    (root / "ab123_classified_hands.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "references.md").write_text("- Goodfellow et al. 2014\n", encoding="utf-8")
    answers = [f"## {heading}\n\n" + "word " * 90 + "\n\n![a](b.png)\n" for heading in briefs.ANSWER_WORDS]
    (root / "README.md").write_text("# Mine\n\n" + "\n".join(answers), encoding="utf-8")
    (root / "utils").mkdir()
    (root / "utils" / "models.py").write_text("raise SystemExit('a check must not run this')\n", encoding="utf-8")
    (root / "brain_mri").mkdir()
    write_notebook(root / "brain_mri" / "Assessment.ipynb", SECTIONS["MRI"])
    shutil.copy(head_images.ANSWER, root / "brain_mri")
    (root / "brain_mri" / "References.md").write_text(
        "- diffusers, https://github.com/huggingface/diffusers\n", encoding="utf-8"
    )
    final = root / "fashion_mnist"
    (final / "samples").mkdir(parents=True)
    write_notebook(final / "generative_models.ipynb", SECTIONS["final"])
    Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(final / "samples" / "VAE.png")
    words = "We split the data by seed, and the optimiser is Adam with a learning rate of 0.001. " * 12
    headings = ("Architecture", "Training", "Hyper-parameter search", "Results", "Lessons learned")
    report = "".join(f"## {heading}\n\n{words}\n\n" for heading in headings)
    (final / "report.md").write_text(f"# Report\n\n![samples](samples/VAE.png)\n\n{report}", encoding="utf-8")


def edit(path, change) -> None:
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def clean(root):
    return root / "ab123_DLcw1_clean.ipynb"


def name_forgotten(root):
    def change(notebook):
        notebook.cells[0].source += "\n\n**Name:** Your Name **Username:** ab123 **CID:** 01234567"

    edit(clean(root), change)


def not_executed(root):
    edit(clean(root), lambda notebook: notebook.cells[3].update(execution_count=None))


def out_of_order(root):
    edit(clean(root), lambda notebook: notebook.cells[3].update(execution_count=9))


def ended_in_an_error(root):
    error = nbformat.v4.new_output("error", ename="NameError", evalue="x", traceback=[])
    edit(clean(root), lambda notebook: notebook.cells[3].outputs.append(error))


def outputs_cleared(root):
    def change(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []

    edit(root / "ab123_DLcw1_hypertune.ipynb", change)


def no_words(root):
    def change(notebook):
        cell = notebook.cells[1]
        copies = [nbformat.v4.new_code_cell(cell.source, outputs=cell.outputs) for _ in range(6)]
        notebook.cells = copies + notebook.cells
        for number, cell in enumerate([c for c in notebook.cells if c.cell_type == "code"], start=1):
            cell.execution_count = number

    edit(root / "ab123_DLcw2_hypertune.ipynb", change)


def pretrained(root):
    def change(notebook):
        notebook.cells[3].source = "model = torchvision.models.resnet18(weights='IMAGENET1K_V1')  # loss"

    edit(root / "ab123_DLcw2_clean.ipynb", change)


def no_loss_plot(root):
    def change(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = cell.outputs[:1]

    edit(clean(root), change)


def sections_swapped(root):
    def change(notebook):
        notebook.cells[2].source, notebook.cells[6].source = notebook.cells[6].source, notebook.cells[2].source

    edit(clean(root), change)


def image(root, number):
    return root / "GAN_hands" / f"ab123_{number:03d}.jpeg"


def colour(root):
    Image.open(image(root, 7)).convert("RGB").save(image(root, 7), "JPEG")


def png(root):
    Image.open(image(root, 7)).convert("L").save(image(root, 7), "PNG")


def cut_off(root):
    image(root, 7).write_bytes(image(root, 7).read_bytes()[:200])


def one_too_few(root):
    image(root, 300).unlink()


def alike(root):
    shutil.copy(image(root, 7), image(root, 8))


def samples_of_the_command(root):
    for number in range(1, 301):
        image(root, number).rename(root / "GAN_hands" / f"hands-gan_{number:03d}.jpeg")


def a_script_outside(root):
    (root / "helpers.py").write_text("x = 1\n", encoding="utf-8")


def change_csv(root, change):
    path = root / "ab123_classified_hands.csv"
    path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")


def label_3(root):
    change_csv(root, lambda rows: ["test_hand_0001.jpeg, 3", *rows[1:]])


def csv_unsorted(root):
    change_csv(root, lambda rows: rows[::-1])


def csv_short(root):
    change_csv(root, lambda rows: rows[:-1])


def too_many_words(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    (root / "README.md").write_text(text + "word " * 20, encoding="utf-8")


def altered_pixels(root):
    path = root / "brain_mri" / "test_set_nogaps.npy"
    images = np.load(path)
    np.save(path, (images * 0.99).astype(np.float32))


def wrong_shape(root):
    path = root / "brain_mri" / "test_set_nogaps.npy"
    np.save(path, np.load(path)[:, 0])


def pickled(root):
    path = root / "brain_mri" / "test_set_nogaps.npy"
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)


def change_report(root, old, new):
    path = root / "fashion_mnist" / "report.md"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def blank_samples(root):
    Image.new("L", (40, 40)).save(root / "fashion_mnist" / "samples" / "VAE.png")


BROKEN = [
    (lambda root: clean(root).rename(root / "ab123_dlcw1_clean.ipynb"), "*_DLcw1_clean.ipynb", "no *_DLcw1_clean"),
    (name_forgotten, "*_DLcw1_clean.ipynb: has its author's name", "still says **Name:"),
    (not_executed, "*_DLcw1_clean.ipynb: all cells executed", "cell 2 was not executed"),
    (out_of_order, "*_DLcw1_clean.ipynb: all cells executed", "has execution number 9"),
    (ended_in_an_error, "*_DLcw1_clean.ipynb: all cells executed", "ended in NameError"),
    (outputs_cleared, "*_DLcw1_hypertune.ipynb: all cells executed", "cleared"),
    (no_words, "*_DLcw2_hypertune.ipynb: text explains", "code cells in a row"),
    (pretrained, "*_DLcw2_clean.ipynb: networks trained from scratch", "resnet18"),
    (no_loss_plot, "*_DLcw1_clean.ipynb: a plot of the loss", "no code cell with a picture"),
    (sections_swapped, "*_DLcw1_clean.ipynb: sections", "'network' after the ones before it"),
    (colour, "300 new hands", "mode RGB"),
    (png, "300 new hands", "not a complete JPEG"),
    (cut_off, "300 new hands", "not a complete JPEG"),
    (one_too_few, "300 new hands", "holds 299 images"),
    (alike, "300 new hands: all different", "ab123_008.jpeg has the same pixels as ab123_007.jpeg"),
    (lambda root: (root / "GAN_hands" / "notes.txt").touch(), "300 new hands", "something else: notes.txt"),
    (lambda root: (root / "references.md").write_text("none", encoding="utf-8"), "references.md", "lists nothing"),
    (a_script_outside, "helper code", "the first: helpers.py"),
    (label_3, "*_classified_hands.csv", "line 1"),
    (csv_unsorted, "*_classified_hands.csv", "not in name order"),
    (csv_short, "*_classified_hands.csv", "8433 lines"),
    (too_many_words, "README.md: 'Answer to question 2'", "10 too many"),
    (lambda root: (root / "README.md").write_text("# Mine", encoding="utf-8"), "README.md: 'Answer", "has no heading"),
    (altered_pixels, "test_set_nogaps.npy", "known pixels of 100 images were changed"),
    (wrong_shape, "test_set_nogaps.npy", "has shape (100, 64, 64)"),
    (pickled, "test_set_nogaps.npy", "holds Python objects, not numbers"),
    (samples_of_the_command, "300 new hands", "'hands-gan' is not a username"),
    (lambda root: change_report(root, "## Results", "## What came of it"), "report.md", "no heading with 'results'"),
    (lambda root: change_report(root, "split", "cut"), "report.md", "does not mention the split"),
    (lambda root: change_report(root, "VAE.png", "GAN.png"), "report.md", "GAN.png, which is not there"),
    (lambda root: change_report(root, "by seed", "by seed " * 20), "report.md", "about two pages are"),
    (blank_samples, "samples/", "VAE.png is blank"),
]
