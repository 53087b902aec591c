"""Hand-ins for the five briefs, in the form in which students hand them in, and the empty templates.

The students do not exist. Names, folders, counts and image modes differ from those of this project on purpose.
"""

import base64
import io
import json
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from utils import config
from utils.data import head_images, image_files

USER = "acse-ab1223"
WORDS = "We try this because the loss of the discriminator falls too fast at the beginning of the training. "
JUSTIFICATION = (
    "Justification of choice VAE/GAN\n\nExplain in **two or three sentences** and/or a few **bullet points** why you "
    "have chosen to use a VAE or a GAN."
)
TEMPLATE_HEAD = "### ***Name***: [*your name*]\n### ***username***: [*your username*]\n### ***CID***: [*your CID*]"
HEAD = "### ***Name***: [*Siân O’Neill*]\n### ***username***: [*acse-ab1223*]\n### ***CID***: [*02123456*]"
QUESTION_1 = (
    "### Question 1 [150 words maximum]\nIf I asked you to do the first coursework again, but now I gave you 5 days "
    "and 500 compute units (instead of 100 compute units), what would you do differently to improve your results.\n\n"
)
QUESTION_2 = (
    "<br>\n\n### Question 2 [100 words maximum]\nAdditionally to the newly defined hypotethical assessment in "
    "**Question 1**, if i told you that now the images were 512x512 pixels:\n\n**a.** as much compute power as you "
    "want, but only have the 10000 images provided. <br>\n**b.** as many more images in your dataset as you want, but "
    "only have the 500 compute units availabe.\n\nWhich one would you choose and why? Again justify your answers.\n\n"
)


def picture(width: int = 80) -> nbformat.NotebookNode:
    """An output with a picture, as matplotlib makes it."""
    pixels = np.random.default_rng(width).integers(0, 255, (60, width), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return nbformat.v4.new_output("display_data", data={"image/png": base64.b64encode(file.getvalue()).decode()})


def printed(text: str = "done\n") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text)


def text(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source)


def code(source: str, *outputs: nbformat.NotebookNode, count: int | None = None) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=count)


def write(path: Path, cells: list[nbformat.NotebookNode]) -> None:
    """Write a notebook as Colab does: without cell ids, format 4.0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.nbformat_minor = 0
    for cell in notebook.cells:
        cell.pop("id", None)
    path.write_text(json.dumps(notebook), encoding="utf-8")


def edit(path: Path, change) -> None:
    """Change the cells of a notebook."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["cells"], content)
    path.write_text(json.dumps(content), encoding="utf-8")


def code_cell(cells: list[dict], words: str) -> dict:
    """The code cell that holds these words."""
    return next(cell for cell in cells if cell["cell_type"] == "code" and words in "".join(cell["source"]))


def hands(model: str = "VAE") -> np.ndarray:
    """300 hands uint8 (300, 32, 32) that are not those in this repository: they are mirrored."""
    shipped = image_files.read(config.PROJECT / f"{model}_hands", pattern="*_[0-9][0-9][0-9].jpeg").images[-300:, 0]
    return np.ascontiguousarray(shipped[:, :, ::-1])


def save_hands(
    folder: Path, pixels: np.ndarray, name: str = f"{USER}_{{:03d}}.jpeg", mode: str = "RGB", **options
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pixels, start=1):
        Image.fromarray(image).convert(mode).save(folder / name.format(number), **{"format": "JPEG"} | options)


TRAIN = (
    "liveloss = PlotLosses()\nfor epoch in range(n_epochs):\n    loss = train(generator, discriminator)\n"
    "    liveloss.update({'loss': loss})\n    liveloss.send()"
)


def cw1_clean_cells() -> list[nbformat.NotebookNode]:
    return [
        text('<img src="https://drive.google.com/uc?id=1" width="500"/>\n\n---\n'),
        text(f"{HEAD}\n\nYou can save this notebook in Colab by clicking `File` from the top menu"),
        text(f"## 1. {JUSTIFICATION}"),
        text(f"**ANSWER:**\n\n{WORDS * 2}"),
        code("!pip install livelossplot"),
        code("from google.colab import drive\ndrive.mount('/content/drive')", printed("Mounted\n")),
        text(f"## 2. Data preparation\n{WORDS}"),
        code("data = load('real_hands')\n# look at some hands\nplt.imshow(data[0])", picture(), count=7),
        text("## Network design and implementation"),
        code("class Generator(nn.Module):\n    def __init__(self):\n        super().__init__()\n    x = 1", count=0),
        text("## Training and evaluation loops"),
        code("def train(generator, discriminator):\n    return 0\n# one epoch, as in the lecture", count=12),
        text("## Network training\nadd text blocks as you need"),
        code(TRAIN, picture(), printed("Loss\n\tgenerator (min: 0.1)"), count=9),
        text("## Generate 300 new samples with your trained network"),
        code("samples = generator(noise)\nprint(samples.shape)", printed("torch.Size([300, 1, 32, 32])\n"), count=15),
        text("## Save the 300 generated samples as `.jpeg` files"),
        code("for i in range(300):\n    save(samples[i], f'acse-ab1223_{i + 1:03d}.jpeg')", count=16),
    ]


def hypertune_cells(network: str) -> list[nbformat.NotebookNode]:
    return [
        text(HEAD),
        text(f"## Hyperparameter tunning notebook\n\nExplain the steps and tests you do.\n\n{WORDS * 3}"),
        code(
            f"import torch\n# the {network} of the lecture\nrates = [0.1, 0.01]\nfor rate in rates:\n    fit(rate)",
            count=1,
        ),
        code("for rate in rates:\n    print(rate, run(rate, 'real_hands', GAN))", printed("0.1 3.2\n"), count=2),
        code(
            "results",
            nbformat.v4.new_output("execute_result", data={"text/plain": "[3.2]"}, execution_count=3),
            count=3,
        ),
    ]


def cw1(root: Path) -> Path:
    """Coursework 1 as a student hands it in: Colab's notebooks, counts missing or doubled, RGB images."""
    root.mkdir(parents=True, exist_ok=True)
    write(root / f"{USER}_DLcw1_clean.ipynb", cw1_clean_cells())
    write(root / f"{USER}_DLcw1_hypertune.ipynb", hypertune_cells("GAN"))
    save_hands(root / "GAN_hands", hands())
    (root / "references.md").write_text(
        "##References\n\n\n| Student name | *Siân O’Neill* |\n| --- | --- |\n| CID | *02123456* |\n\nAdd the "
        "references you have used below (links to sites)\n\n- **[1]** A. Radford et al., DCGAN, arXiv:1511.06434\n",
        encoding="utf-8",
    )  # fmt: skip
    return root


def cw1_template(root: Path) -> Path:
    """The folder as the course hands it out."""
    titles = (
        "## Data preparation", "## Network design and implementation", "## Training and evaluation loops",
        "## Network training\nUse the best hyperparameters and network design here (and justify briefly your choices",
        "## Generate 300 new samples with your trained network", "## Save the 300 generated samples as `.jpeg` files",
    )  # fmt: skip
    cells = [
        text(TEMPLATE_HEAD),
        text(f"## {JUSTIFICATION}"),
        text("your answer here"),
    ]
    for title in titles:
        cells += [text(title), text("add text blocks as you need"), code("### add code blocks as you need")]
    write(root / "your_username_DLcw1_clean.ipynb", cells)
    write(
        root / "your_username_DLcw1_hypertune.ipynb",
        [
            text(TEMPLATE_HEAD), text("## Hyperparameter tunning notebook\n\nExplain the steps and tests you do.\n"),
            text("add text blocks as you need"), code("### add code blocks as you need"),
        ],
    )  # fmt: skip
    (root / "references.md").write_text(
        "##References\n\n\n| Student name | *your name* |\n| ----------- | ----------- |\n| CID | *your CID* |\n\n"
        "Add the references you have used below (links to sites you used):\n\n- reference 1\n- reference 2\n- etc...",
        encoding="utf-8",
    )  # fmt: skip
    return root


ANSWER_1 = f"### ANSWER to question 1:\n\n{'word ' * 140}\n\n- a *point*\n\n![a figure](docs/my%20figure.png)\n\n"
ANSWER_2 = f"### ANSWER to question 2:\n\n{'word ' * 90}\n"


def cw2(root: Path) -> Path:
    """Coursework 2 as a student hands it in. A line for the file that is no image is missing."""
    root.mkdir(parents=True, exist_ok=True)
    cells = [
        text(f"# Classifier\n{WORDS * 3}"),
        code(
            "train = ImageFolder(['real_hands', 'VAE_hands', 'GAN_hands'])\nprint(len(train))",
            printed("1400\n"),
            count=1,
        ),
        text("## Training"),
        code("class ResNet18(nn.Module):\n    pass\nmodel = ResNet18(weights=None)\nF.cross_entropy", count=2),
        code("for x, y in train:\n    loss.backward()\nplt.plot(losses)", picture(), count=3),
        code("write_csv('acse-ab1223_classified_hands.csv', predict(model, 'test_hands'))", count=4),
    ]
    write(root / f"{USER}_DLcw2_clean.ipynb", cells)
    write(root / f"{USER}_DLcw2_hypertune.ipynb", hypertune_cells("classifier"))
    rows = [f"test_hand_{i:04d}.jpeg, {i % 3}" for i in range(1, 8435) if i != 3551]
    (root / f"{USER}_classified_hands.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "docs").mkdir(exist_ok=True)
    Image.new("L", (9, 9)).save(root / "docs" / "my figure.png")
    (root / "README.md").write_text(
        f"## DL module coursework 2\n\n{QUESTION_1}{ANSWER_1}{QUESTION_2}{ANSWER_2}", encoding="utf-8"
    )
    (root / "references.md").write_text("# References\n1. He et al., Deep residual learning\n", encoding="utf-8")
    return root


def cw2_template(root: Path) -> Path:
    """The README of the course, and nothing else."""
    root.mkdir(parents=True, exist_ok=True)
    readme = f"## DL\n\n{QUESTION_1}### ANSWER to question 1:\n\n{QUESTION_2}### ANSWER to question 2:\n\n"
    (root / "README.md").write_text(readme, encoding="utf-8")
    return root


MRI_TEXTS = (
    "## **Question 1**  (25%)\n\nUsing the provided image-generation network, create a dataset of brain images",
    "## **Question 2** (25%)\n\nUsing the data generated in **Question 1**, create a PyTorch `TensorDataset`",
    "## **Question 3** (50%)\n\nUsing the dataset created in **Question 2**, design and train an architecture",
)
GENERATE = (
    "from ese_invldm import generate\n\nsamples = generate(\n    num_samples=10, # in all\n    num_inference_steps=50,"
    "\n    batch_size=10,\n    scheduler='ddim',\n    temperature=1,\n    seed=42,\n)"
)
MRI_CODE = (
    "from ese_invldm import generate\nheads = generate(num_samples=10)\nplt.imshow(heads[0])",
    "test = torch.tensor(np.load('test_set.npy'))\nloader = DataLoader(TensorDataset(test))\nplt.imshow(test[0])",
    "model = UNet()\nfit(model)  # the loss is the mean squared error\nplt.imshow(model(test)[0])",
)


def mri(root: Path) -> Path:
    """The MRI coursework as a student hands it in: without the axis of channels, and known pixels a little changed."""
    root.mkdir(parents=True, exist_ok=True)
    cells = [text("# **Assessment 1**\n\nFor our first assessment, our goal is to solve an imputation problem")]
    for title, source in zip(MRI_TEXTS, MRI_CODE):
        cells += [text(title), code(source, picture()), text(WORDS)]
    write(root / "Assessment.ipynb", cells)
    np.save(root / "test_set_nogaps.npy", student_heads())
    (root / "References.md").write_text(
        "# Coursework 1 - References\n\n1. Reference 1 - saving\n- ChatGPT : https://chatgpt.com/share/1\n",
        encoding="utf-8",
    )
    return root


def student_heads() -> np.ndarray:
    """Filled heads float32 (100, 64, 64), a little unlike those in this repository."""
    noise = np.random.default_rng(0).normal(0, 0.01, (100, 64, 64))
    return np.clip(np.load(head_images.ANSWER)[:, 0] + noise, 0, 1).astype(np.float32)


def test_set() -> np.ndarray:
    """A test set float32 (100, 1, 64, 64) with tilted stripes, which fits the heads in this repository."""
    rows, columns = np.indices((64, 64))
    stripes = (columns - rows // 4) % 4 < 2
    return np.where(stripes, 0, np.load(head_images.ANSWER)).astype(np.float32)


def mri_template(root: Path) -> Path:
    """The folder as the course hands it out."""
    write(root / "Assessment.ipynb", [
        text("# **Assessment 1**\n\nFor our first assessment, our goal is to solve an imputation problem"),
        text(MRI_TEXTS[0]), code("import os\nimport sys"), code(GENERATE),
        text(MRI_TEXTS[1]), text(MRI_TEXTS[2]),
    ])  # fmt: skip
    (root / "References.md").write_text(
        "# Coursework 1 - References\n\n1. Reference 1\n2. Reference 2\n...\n", encoding="utf-8"
    )
    return root


def final(root: Path) -> Path:
    """The final assignment as a student hands it in: one family, and a notebook with a name of its own."""
    root.mkdir(parents=True, exist_ok=True)
    write(root / "VAE_fashion.ipynb", [
        text(f"# A VAE for Fashion-MNIST\n{WORDS}"),
        code("data = FashionMNIST('.')\nmodel = VAE()\nprint(model)", printed("VAE()\n"), count=1),
        code("history = fit(model)\nplt.plot(history['loss'])", picture(), count=2),
    ])  # fmt: skip
    (root / "samples").mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40), np.uint8)).save(root / "samples" / "grid.png")
    words = "We split the data and use the optimizer Adam with a learning rate of 0.001 and a loss. " * 8
    parts = ("Architecture", "Training", "Hyper-parameter search", "Results: FID", "Lessons learned", "More")
    body = "".join(f"## {part}\n\n{words}\n\n" for part in parts)
    (root / "report.md").write_text(f"# Report\n\n![loss](samples/grid.png)\n\n{body}", encoding="utf-8")
    return root


def portfolio(root: Path) -> Path:
    """Both courseworks in one hand-in, from the two above."""
    cw1(root)
    cw2(root)
    names = {
        f"{USER}_DLcw1_clean.ipynb": "GenAI Models.ipynb", f"{USER}_DLcw1_hypertune.ipynb": "Hypertuning.ipynb",
        f"{USER}_DLcw2_clean.ipynb": "Classifier.ipynb", f"{USER}_classified_hands.csv": "Classification Result.csv",
    }  # fmt: skip
    for old, new in names.items():
        (root / old).rename(root / new)
    (root / f"{USER}_DLcw2_hypertune.ipynb").unlink()
    return root
