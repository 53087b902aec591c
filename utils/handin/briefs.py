"""The requirements of each brief, as data. `utils.handin.compare` checks a hand-in against them.

To add a requirement, add a line to `REQUIREMENTS`. File names are patterns: `*` stands for the username.
"""

from __future__ import annotations

from typing import NamedTuple

BRIEFS = {
    "cw1": "generative coursework",
    "cw2": "classification coursework",
    "portfolio": "both courseworks in one hand-in",
    "mri": "MRI imputation",
    "final": "final assignment",
}
# A folder counts as a hand-in for a brief if it holds one of these files.
SIGNS = {
    "cw1": ("*_DLcw1_clean.ipynb", "*_DLcw1_hypertune.ipynb"),
    "cw2": ("*_DLcw2_clean.ipynb", "*_DLcw2_hypertune.ipynb", "*_classified_hands.csv"),
    "portfolio": ("GenAI Models.ipynb", "Classifier.ipynb", "Classification Result.csv"),
    "mri": ("Assessment.ipynb", "brain_mri/Assessment.ipynb"),
    "final": ("fashion_mnist/*.ipynb", "fashion_mnist/report.md"),
}
ANSWER_WORDS = {"Answer to question 1": 150, "Answer to question 2": 100}
TEST_FILES = 8434
# Words that a heading must contain, in small letters. EXAMPLES has a heading for each word that is only a stem.
GENERATIVE = ("justification", "data", "network", "loop", "training", "generat", "sav")
CLASSIFICATION = ("model selection", "data", "network", "loop", "training", "evaluation", "prediction")
MRI = ("question 1", "question 2", "question 3")
FINAL = ("data", "autoencoder", "gan", "autoregressive", "flow", "comparison")
REPORT = ("architecture", "training", "search", "results", "lessons")
EXAMPLES = {
    "generat": "generation", "sav": "saving", "loop": "loops", "gan": "GAN", "lessons": "lessons learned",
}  # fmt: skip


def heading(word: str) -> str:
    """A heading that contains one of the words above, to show to the user."""
    return EXAMPLES.get(word, word)


class Requirement(NamedTuple):
    """One thing that a brief asks for."""

    brief: str  # a key of BRIEFS
    wording: str  # what is asked for
    check: str  # the function in utils.handin that checks it, as 'module.function'
    arguments: dict  # the function's arguments besides the folder
    advice: str  # what to do if the requirement is not met


def notebook(brief: str, name: str, sections: tuple[str, ...] = (), loss: bool = True) -> list[Requirement]:
    """The requirements that every brief has for a notebook. With `sections`, it also needs these headings in order."""

    def ask(wording: str, check: str, advice: str, **further) -> Requirement:
        return Requirement(brief, wording, f"check_notebooks.{check}", {"name": name} | further, advice)

    asked = [
        ask(f"a notebook {name}", "is_there", "Save the notebook under exactly this name."),
        ask(
            f"{name}: has its author's name", "signed",
            "python -m utils rename USERNAME --name 'Your Full Name' --cid 12345678",
        ),
        ask(
            f"{name}: all cells executed, outputs visible, no errors", "executed",
            "Restart the kernel, run all cells from top to bottom, and save the notebook.",
        ),
        ask(
            f"{name}: text explains the code", "explained",
            "Before each step, write one or two sentences about what it does and why.",
        ),
        ask(
            f"{name}: networks trained from scratch, no pre-trained weights", "from_scratch",
            "Build the network without pre-trained weights and train it in the notebook.",
        ),
    ]  # fmt: skip
    if loss:
        asked.append(ask(f"{name}: a plot of the loss", "loss_plot", "Plot the losses over training."))
    if sections:
        advice = f"Give each section a heading (## ...), in this order: {', '.join(map(heading, sections))}."
        asked.append(ask(f"{name}: sections in the brief's order", "sections", advice, titles=sections))
    return asked


def samples(brief: str) -> list[Requirement]:
    """The requirements for the generated hands."""
    folders = {"folders": ("GAN_hands", "VAE_hands")}
    return [
        Requirement(
            brief, "300 new hands as JPEG, 32 x 32, 8-bit grey, named <username>_001.jpeg ...",
            "check_samples.samples", folders,
            "Write the 300 images again with utils.data.image_files.write_jpegs. Remove all other files there.",
        ),
        Requirement(
            brief, "300 new hands: all different, and no copies of training images",
            "check_samples.new_samples", folders,
            "Sample again with other seeds. If copies remain, the model has memorised its training images.",
        ),
    ]  # fmt: skip


def common(brief: str, references: str) -> list[Requirement]:
    """The requirements that every brief has for the folder."""
    return [
        Requirement(
            brief, f"{references}: sources listed",
            "check_texts.references", {"name": references}, "List the sources that you used.",
        ),
        Requirement(
            brief, "helper code in one folder, called utils",
            "check_texts.one_utils", {}, "Move all .py files that the notebooks import to utils/.",
        ),
    ]  # fmt: skip


def answers(brief: str) -> list[Requirement]:
    """The two questions of the classification coursework."""
    return [
        Requirement(
            brief, f"README.md: '{title}', at most {words} words and one figure or table",
            "check_texts.answer", {"heading": title, "words": words},
            f"Shorten it to {words} words. Keep at most one figure or table.",
        )
        for title, words in ANSWER_WORDS.items()
    ]  # fmt: skip


def labels(brief: str, name: str) -> Requirement:
    """The labels of the test images."""
    return Requirement(
        brief, f"{name}: a line '<file>, <0, 1 or 2>' for each of the {TEST_FILES} test files, in name order",
        "check_tables.csv", {"name": name, "lines": TEST_FILES}, "Write it again with utils.data.label_csv.write.",
    )  # fmt: skip


REQUIREMENTS = (
    *notebook("cw1", "*_DLcw1_clean.ipynb", GENERATIVE),
    *notebook("cw1", "*_DLcw1_hypertune.ipynb", loss=False),
    *samples("cw1"),
    *common("cw1", "references.md"),
    *notebook("cw2", "*_DLcw2_clean.ipynb", CLASSIFICATION),
    *notebook("cw2", "*_DLcw2_hypertune.ipynb", loss=False),
    labels("cw2", "*_classified_hands.csv"),
    *answers("cw2"),
    *common("cw2", "references.md"),
    *notebook("portfolio", "GenAI Models.ipynb", GENERATIVE),
    *notebook("portfolio", "Hypertuning.ipynb", loss=False),
    *notebook("portfolio", "Classifier.ipynb", CLASSIFICATION),
    *samples("portfolio"),
    labels("portfolio", "Classification Result.csv"),
    *answers("portfolio"),
    *common("portfolio", "references.md"),
    *notebook("mri", "Assessment.ipynb", MRI),
    Requirement(
        "mri", "test_set_nogaps.npy: (100, 1, 64, 64), same order, no missing pixels, known pixels unchanged",
        "check_tables.filled", {"name": "test_set_nogaps.npy"},
        "Remove it and fill the gaps again: python -m utils fill test_set.npy test_set_nogaps.npy",
    ),
    *common("mri", "References.md"),
    *notebook("final", "generative_models.ipynb", FINAL),
    Requirement(
        "final",
        "report.md: about two pages; architecture and hyper-parameters, splits and optimiser, searches, results and "
        "metrics, training curves, lessons learned",
        "check_texts.report",
        {"name": "report.md", "parts": REPORT, "words": (600, 1800), "terms": ("split", "optimiser", "learning rate")},
        "Give each part a heading (## ...). Say how the data were split and which optimiser was used. Show figures.",
    ),
    Requirement(
        "final", "samples/: a selection of samples as images", "check_samples.sample_pictures", {"name": "samples"},
        "Save grids of samples as PNG or JPEG in a folder called samples.",
    ),
    *common("final", "references.md"),
)  # fmt: skip
