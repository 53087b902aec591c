"""The checks of coursework 1: a student's good hand-in has no fault, and each fault gives exactly its own line."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests import made_hand_in as made
from tests.made_hand_in import USER, code, code_cell, edit, hands, printed, save_hands, text
from utils.data import likeness
from utils.handin import compare
from utils.handin.checks import samples

pytestmark = pytest.mark.xdist_group("checks")  # one process, because they share expensive fixtures
CLEAN, TUNE = f"{USER}_DLcw1_clean.ipynb", f"{USER}_DLcw1_hypertune.ipynb"


def found(root, brief="cw1", kind="fault", **chosen) -> dict[str, list[str]]:
    """What was found, by requirement, for one kind of line."""
    (result,) = compare.check(root, [brief], chosen)
    assert not any("check failed" in text for line in result.lines for text in line.found)
    return {line.requirement: line.found for line in result.lines if line.kind == kind}


def only_these_faults(root, harm, expected, said, brief="cw1"):
    """Change a good hand-in. Exactly the expected requirements have faults, and one of these says the given words."""
    harm(root)
    faults = found(root, brief)
    assert set(faults) == expected
    assert any(said in text for texts in faults.values() for text in texts), faults


def trained():
    return np.ascontiguousarray(hands("GAN")[:, ::-1])


@pytest.fixture(scope="module", autouse=True)
def training():
    """Training images that are hands of this repository, upside down, so that real ones are not needed."""
    with pytest.MonkeyPatch.context() as patch:
        images = trained()[:, None]
        patch.setattr(samples, "training_images", lambda: images)
        yield images[:, 0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made.cw1(tmp_path_factory.mktemp("cw1") / "student")


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture
def linked(whole, tmp_path):
    """A copy whose images are links to the same files, for changes of the notebooks."""
    copy = tmp_path / "linked"
    shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("*.jpeg"))
    for path in (whole / "GAN_hands").iterdir():
        (copy / "GAN_hands" / path.name).hardlink_to(path)
    return copy


def test_a_students_good_hand_in_has_no_fault(whole):
    assert found(whole) == {} and found(whole, kind="unchecked") == {}
    assert set(found(whole, kind="remark")) == {"clean notebook: executed in order", "samples: grey"}


def test_the_empty_template_is_recognised_for_what_it_is(tmp_path):
    four = {"clean notebook", "hypertune notebook", "samples", "references: sources listed"}
    assert set(found(made.cw1_template(tmp_path))) == four
    for path in tmp_path.glob("*.ipynb"):  # the same without the cell with the name, and with one line of code
        edit(path, lambda cells, _: cells.pop(0) and cells.append(code("x = 1")))
    assert set(found(tmp_path)) == four
    assert "untouched template" in found(tmp_path)["clean notebook"][0]


# ---- notebooks


def cells_of(change, name=CLEAN):
    return lambda root: edit(root / name, lambda cells, content: change(cells))


def without_outputs(words):
    return cells_of(lambda cells: code_cell(cells, words).update(outputs=[]))


def error(name, *before):
    output = {"output_type": "error", "ename": name, "evalue": "", "traceback": []}
    return cells_of(lambda cells: code_cell(cells, "PlotLosses").update(outputs=[*before, output]))


def replaced(old, new, name=CLEAN):
    def harm(root):
        path = root / name
        content = path.read_text(encoding="utf-8")
        assert json.dumps(old)[1:-1] in content
        path.write_text(content.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]), encoding="utf-8")

    return harm


def rewrite(path, old, new):
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def cleared(cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = []


def no_words(cells):
    for cell in cells:
        kept = [line for line in "".join(cell["source"]).splitlines() if not line.startswith(("# ", "We try"))]
        cell["source"] = "\n".join(kept).replace("**ANSWER:**", "It is the best model that I know, and it is quick.")


PRETRAINED = "import torchvision.models as models\nnet = models.resnet18(\n    weights=\n    'IMAGENET1K_V1')"
NOTEBOOKS = [
    (
        without_outputs("plt.imshow"),
        {"clean notebook: executed, outputs visible"},
        "1 of 8 code cells shows no output, although its code prints or draws something: 3",
    ),
    (without_outputs("print(samples"), {"clean notebook: executed, outputs visible"}, "something: 7"),
    (
        cells_of(cleared),
        {"clean notebook: executed, outputs visible", "clean notebook: plot of the loss"},
        "none of its",
    ),
    (error("NameError", made.picture()), {"clean notebook: executed, outputs visible"}, "ended in NameError"),
    (
        error("KeyboardInterrupt"),
        {"clean notebook: executed, outputs visible", "clean notebook: plot of the loss"},
        "before",
    ),
    (
        replaced("[*Siân O’Neill*]", "[*your name*]"),
        {"clean notebook: name, username and CID filled in"},
        "filled in: name",
    ),
    (
        replaced("## Network training", "## Last things"),
        {"clean notebook: the template's sections"},
        "network training",
    ),
    (replaced("[*02123456*]", "[*your CID*]"), {"clean notebook: name, username and CID filled in"}, "cid"),
    (
        cells_of(lambda cells: cells[3].update(source="your answer here")),
        {"clean notebook: choice of the model justified"},
        "unanswered",
    ),
    (cells_of(no_words), {"clean notebook: code explained"}, "words explain the code"),
    (
        cells_of(lambda cells: cells.append(code(PRETRAINED, count=20))),
        {"clean notebook: trained from scratch"},
        "resnet18",
    ),
    (
        cells_of(lambda cells: code_cell(cells, "PlotLosses").update(outputs=[printed("Loss: 3")])),
        {"clean notebook: plot of the loss"},
        "no code cell shows a picture of a loss",
    ),
    (lambda root: (root / CLEAN).unlink(), {"clean notebook"}, "there is no *_DLcw1_clean.ipynb"),
    (lambda root: (root / CLEAN).write_text("{}", encoding="utf-8"), {"clean notebook"}, "it has no cells"),
    (lambda root: (root / CLEAN).write_text("", encoding="utf-8"), {"clean notebook"}, "is empty"),
    (lambda root: (root / CLEAN).rename(root / "my_gan.ipynb"), {"clean notebook: name"}, "my_gan.ipynb was taken"),
    (lambda root: shutil.copy(root / TUNE, root / "old.ipynb"), {"no other notebooks"}, "old.ipynb"),
    (lambda root: (root / "references.md").unlink(), {"references"}, "no references.md"),
    (
        lambda root: rewrite(
            root / "references.md", "- **[1]** A. Radford et al., DCGAN, arXiv:1511.06434", "- etc..."
        ),
        {"references: sources listed"},
        "lists no source",  # the name and the CID are filled in, which is no source
    ),
]


@pytest.mark.parametrize(("harm", "expected", "said"), NOTEBOOKS)
def test_each_fault_of_a_notebook_is_found_and_nothing_else(linked, harm, expected, said):
    only_these_faults(linked, harm, expected, said)


def with_module(name):
    def change(root):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("def plot():\n    pass\n", encoding="utf-8")
        cells_of(lambda cells: cells.append(code(f"from {name[:-3].replace('/', '.')} import plot", count=30)))(root)

    return change


def old_template(root):
    made.cw1_template(root / "old")
    for path in (root / "old").glob("*.ipynb"):
        path.rename(root / path.name)
    shutil.rmtree(root / "old")


def nothing_counted(cells):
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["execution_count"] = None


ALIKE = [  # what looks like a fault and is none
    cells_of(nothing_counted),
    cells_of(lambda cells: code_cell(cells, "plt.imshow").update(execution_count=0)),
    error("KeyboardInterrupt", made.picture()),
    cells_of(lambda cells: cells.append(code("%%capture\nprint('x')", count=40))),
    cells_of(lambda cells: cells.append(code("%%bash\nls", count=40))),
    cells_of(lambda cells: cells.append(code("# resnet18(pretrained=True)\nnet = resnet18(weights=None)", count=41))),
    cells_of(lambda cells: cells.append(code("loss = nn.CELoss(weights=class_weights)\nplt.close()", count=42))),
    cells_of(lambda cells: cells.append(code("plt.plot(x)\nplt.savefig('a.png')\nplt.close()", count=42))),
    cells_of(lambda cells: cells.append(code("for i in range(9):\n    if i > 100:\n        print(i)", count=43))),
    cells_of(lambda cells: cells.append(code("assert x, # not valid", count=44))),
    cells_of(lambda cells: cells.__setitem__(slice(4, 6), [text("**Data preparation**"), *cells[4:6]])),
    replaced("## Network design and implementation", "Network design\n----------"),
    replaced("## Generate 300 new samples with your trained network", "<h2>Generation and saving</h2>"),
    with_module("utils/plots.py"),
    lambda root: (root / "setup.py").touch(),
    old_template,
    cells_of(lambda cells: cells[3].update(source=f"## Why I took a GAN for these hands\n\n- {made.WORDS}")),
    cells_of(lambda cells: cells[3].update(source=f"# GAN\n\n{made.WORDS}")),
    cells_of(lambda cells: cells[3].update(source=f"Answer:\n### Reasons\n- {made.WORDS}")),
    cells_of(lambda cells: cells.__setitem__(slice(2, None), [text(made.WORDS * 3)]), TUNE),
    lambda root: (root / "references.md").rename(root / "References.md"),
    lambda root: (root / CLEAN).rename(root / CLEAN.replace("_DLcw1_", "_dlCW1-")),
    lambda root: (root / CLEAN).write_bytes(b"\xef\xbb\xbf" + (root / CLEAN).read_bytes()),
    lambda root: (root / CLEAN).write_bytes((root / CLEAN).read_text(encoding="utf-8").encode("utf-16")),
]


@pytest.mark.parametrize("change", ALIKE)
def test_what_only_looks_like_a_fault_is_none(linked, change):
    change(linked)
    assert found(linked) == {}


def test_a_search_that_is_only_described_in_words_is_for_a_reader_to_judge(linked):
    cells_of(lambda cells: cells.__setitem__(slice(2, None), [text(made.WORDS * 3)]), TUNE)(linked)
    (remarks,) = (texts for line, texts in found(linked, kind="remark").items() if line.startswith("hypertune"))
    assert "no code of its own" in remarks[0]


def test_a_notebook_that_says_too_little_of_itself_is_taken_by_a_word_in_its_name(linked):
    def vague(cells):
        for cell in cells:
            cell["source"] = "".join(cell["source"]).replace("real_hands", "data").replace("GAN", "net")

    cells_of(vague, TUNE)(linked)
    (linked / TUNE).rename(linked / "Hypertuning.ipynb")
    assert set(found(linked)) == {"hypertune notebook: name"}


def test_a_syntax_error_is_one_finding(linked):
    wrong = {"output_type": "error", "ename": "SyntaxError", "evalue": "", "traceback": []}
    cells_of(lambda cells: cells.append(code("for i in 3:", count=30) | {"outputs": [wrong]}))(linked)
    assert set(found(linked)) == {"clean notebook: executed, outputs visible"}
    assert not [line for line in found(linked, kind="remark") if "executed, outputs" in line]


def test_most_numbers_missing_is_not_called_executed_in_order(linked):
    cells_of(nothing_counted)(linked)
    cells_of(lambda cells: code_cell(cells, "plt.imshow").update(execution_count=1))(linked)
    assert found(linked, kind="remark")["clean notebook: executed in order"] == [
        "7 of 8 code cells have no execution number"
    ]


def test_a_module_outside_utils_is_a_fault_if_a_notebook_imports_it(linked):
    with_module("src/plots.py")(linked)
    assert set(found(linked)) == {"modules in one folder, utils"}


def test_every_finding_is_listed(linked):
    without_outputs("plt.imshow")(linked)
    without_outputs("print(samples")(linked)
    error("NameError")(linked)
    texts = found(linked)["clean notebook: executed, outputs visible"]
    assert any("their code prints or draws something: 3, 7" in text for text in texts)
    assert any("NameError" in text for text in texts)


# ---- samples


def moved(names, mode="RGB", **options):
    """The same images under other names."""

    def change(root):
        shutil.rmtree(root / "GAN_hands")
        save_hands(root / "GAN_hands", hands(), names, mode, **options)

    return change


def pixels(change, count=300):
    def harm(root):
        shutil.rmtree(root / "GAN_hands")
        save_hands(root / "GAN_hands", np.ascontiguousarray(change()[:count]))

    return harm


def one(root):
    return root / "GAN_hands" / f"{USER}_007.jpeg"


def constants():
    return np.repeat(np.arange(0, 240, 0.8).astype(np.uint8), 1024).reshape(300, 32, 32)


def noise(share=1.0):
    random = np.random.default_rng(3).integers(0, 255, (300, 32, 32))
    return (share * random + (1 - share) * hands()[:1]).astype(np.uint8)


def copies(change):
    return pixels(lambda: change(trained().astype(float)).clip(0, 255).astype(np.uint8))


SAMPLES = [
    (lambda root: one(root).unlink(), {"samples: 300 images"}, "holds 299 images"),
    (lambda root: one(root).write_bytes(one(root).read_bytes()[:200]), {"samples: 300 images"}, "cannot be opened"),
    (pixels(lambda: np.concatenate([hands()] * 2), 301), {"samples: 300 images"}, "301 images"),
    (moved(USER + "_{:03d}.png", format="PNG"), {"samples: JPEG, 32 x 32"}, "not JPEG"),
    (lambda root: Image.open(one(root)).save(one(root), "PNG"), {"samples: JPEG, 32 x 32"}, "007.jpeg (PNG)"),
    (lambda root: Image.new("L", (64, 64)).save(one(root), "JPEG"), {"samples: JPEG, 32 x 32"}, "64 x 64"),
    (moved("hand_{:03d}.jpeg"), {"samples: names"}, "no username"),
    (moved("{:03d}.jpeg"), {"samples: names"}, "no username"),
    (moved("your_username_{:03d}.jpeg"), {"samples: names"}, "not a username"),
    (moved("ab1223_{:d}7.jpeg"), {"samples: names"}, "go from 17 to 3007"),
    (lambda root: one(root).rename(one(root).with_name("other_007.jpeg")), {"samples: names"}, "begin differently"),
    (
        lambda root: shutil.copy(one(root), one(root).with_name(f"{USER}_008.jpeg")),
        {"samples: new images"},
        "same image",
    ),
    (lambda root: Image.new("L", (32, 32), 9).save(one(root), "JPEG"), {"samples: new images"}, "blank images"),
    (pixels(constants), {"samples: new images"}, "blank images"),
    (pixels(lambda: noise(1)), {"samples: new images"}, "look like noise"),
    (pixels(lambda: noise(0.02)), {"samples: new images"}, "nearly identical"),
    (copies(lambda x: x), {"samples: new images"}, "copies of training images"),
    (copies(lambda x: x[:, :, ::-1]), {"samples: new images"}, "copies of training images"),
    (copies(lambda x: np.roll(x, (2, -1), (1, 2))), {"samples: new images"}, "copies of training images"),
    (copies(lambda x: x * 0.7 + 15), {"samples: new images"}, "copies of training images"),
    (lambda root: shutil.rmtree(root / "GAN_hands"), {"samples"}, "there are no images"),
]


@pytest.mark.parametrize(("harm", "expected", "said"), SAMPLES)
def test_each_fault_of_the_samples_is_found_and_nothing_else(root, harm, expected, said):
    only_these_faults(root, harm, expected, said)


def zipped(root):
    with zipfile.ZipFile(root / "GAN_hands.zip", "w") as archive:
        for path in (root / "GAN_hands").iterdir():
            archive.write(path, f"GAN_hands/{path.name}")
        archive.writestr("__MACOSX/GAN_hands/._a.jpeg", b"x")
    shutil.rmtree(root / "GAN_hands")


def deeper(root):
    (root / "repository-main").mkdir()
    for path in list(root.iterdir()):
        if path.name != "repository-main":
            path.rename(root / "repository-main" / path.name)


def second_folder(root):
    save_hands(root / "VAE_hands", hands("GAN")[:50])


ALIKE_SAMPLES = [
    zipped,
    deeper,
    second_folder,
    moved(USER + "_{}.JPG"),
    moved(USER + "_GAN{:03d}.jpeg"),
    moved(USER + "_{:03d}.jpg", "L"),
    lambda root: (root / "GAN_hands").rename(root / "my samples"),
    lambda root: (
        (root / "GAN_hands" / "a").mkdir(),
        [p.rename(p.parent / "a" / p.name) for p in one(root).parent.glob("*.jpeg")],
    ),
    lambda root: save_hands(root / "VAE_hands", hands("GAN")[:50], "VAE_hand_{:03d}.jpeg"),
    lambda root: (root / "GAN_hands" / ".DS_Store").touch(),
    lambda root: (root / "GAN_hands" / "notes.txt").write_text("x", encoding="utf-8"),
    lambda root: save_hands(root / "real_hands", hands("GAN")[:9], "{:06d}.jpeg"),
]


@pytest.mark.parametrize("change", ALIKE_SAMPLES)
def test_other_forms_of_the_samples_are_no_fault(root, change):
    change(root)
    assert found(root) == {}


def test_without_training_images_copies_are_not_checked(whole, monkeypatch):
    monkeypatch.setattr(samples, "training_images", lambda: None)
    assert found(whole) == {} and "real_hands" in found(whole, kind="unchecked")["samples: new images"][0]


def test_files_of_this_project_are_noticed(root):
    shutil.rmtree(root / "GAN_hands")
    shutil.copytree(samples.config.PROJECT / "VAE_hands", root / "GAN_hands", ignore=shutil.ignore_patterns("VAE*"))
    assert "the same file as in the project" in found(root, kind="remark")["samples: your own"][0]


def test_changed_copies_are_found_again(training):
    order = np.random.default_rng(1).permutation(300)[:40]
    changed = np.roll(training[order][:, :, ::-1], (1, 2), (1, 2)) // 2 + 40
    assert np.median(likeness.most_similar(changed, training)) > likeness.COPY
