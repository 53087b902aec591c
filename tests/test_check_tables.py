"""The checks of coursework 2: its table of labels, the answers in its README, and pre-trained weights."""

import shutil

import pytest

from tests import made_hand_in as made
from tests.made_hand_in import USER, code, edit
from tests.test_checks import found as all_found
from tests.test_checks import only_these_faults

pytestmark = pytest.mark.xdist_group("tables")  # one process, because they share an expensive fixture
CSV, CLEAN = f"{USER}_classified_hands.csv", f"{USER}_DLcw2_clean.ipynb"
LABELS = "table of labels: one label for each test file"
FIRST, SECOND = (
    "question 1 answered, at most 150 words and one figure or table",
    "question 2 answered, at most 100 words",
)


def found(root, kind="fault"):
    return all_found(root, "cw2", kind)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made.cw2(tmp_path_factory.mktemp("cw2") / "student")


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_students_good_hand_in_has_no_fault(whole):
    assert found(whole) == {} and found(whole, "unchecked") == {}
    assert set(found(whole, "remark")) == {"clean notebook: headings"}


def test_the_courses_own_readme_has_no_answers(tmp_path):
    faults = found(made.cw2_template(tmp_path))
    assert set(faults) == {"table of labels", "clean notebook", "hypertune notebook", FIRST, SECOND, "references"}
    assert faults[FIRST] == ["question 1 is unanswered"] and faults[SECOND] == ["question 2 is unanswered"]


def test_a_hypertuning_notebook_with_the_text_of_coursework_1_alone_is_the_template(root):
    def emptied(cells):
        template = [
            made.text("## Hyperparameter tunning notebook\n\nExplain the steps and tests you do.\n\nOrganise it ")
        ]
        template[0]["source"] += "well to show how the data you present here has helped you design your final network "
        template[0]["source"] += "hyperparameters (that you will use for the final training in the clean notebook)."
        cells[:] = [cells[0], *template]

    edit(root / f"{USER}_DLcw2_hypertune.ipynb", lambda cells, _: emptied(cells))
    assert set(found(root)) == {"hypertune notebook"}


def rows(change):
    def harm(root):
        lines = (root / CSV).read_text(encoding="utf-8").splitlines()
        (root / CSV).write_bytes(change(lines))

    return harm


def joined(lines):
    return ("\n".join(lines) + "\n").encode()


def each(change):
    return rows(lambda lines: joined([change(*line.split(", ")) for line in lines]))


def moved(name):
    def change(root):
        (root / name).parent.mkdir(exist_ok=True)
        (root / CSV).rename(root / name)

    return change


HEADER = "filename,label"
TABLES = [
    (rows(lambda lines: joined(lines[:-1])), {LABELS}, "1 test files have no line: test_hand_8434.jpeg"),
    (rows(lambda lines: joined([HEADER, *lines[:-2]])), {LABELS}, "test_hand_8433.jpeg, test_hand_8434.jpeg"),
    (
        rows(lambda lines: joined(["test_hand_0001.jpeg, 3", *lines[1:]])),
        {LABELS},
        "line 1: test_hand_0001.jpeg, 3 has no",
    ),
    (each(lambda name, label: f"{name}, {['real', 'VAE', 'GAN'][int(label)]}"), {LABELS}, "has no label 0, 1 or 2"),
    (rows(lambda lines: joined([*lines, lines[5]])), {LABELS}, "test_hand_0006.jpeg is named more than once"),
    (rows(lambda lines: joined([*lines, "test_hand_9000.jpeg, 1"])), {LABELS}, "test_hand_9000.jpeg"),
    (rows(lambda lines: b"nothing\nhere 12345\n"), {LABELS}, "no line with a test file"),
    (rows(lambda lines: b""), {"table of labels"}, "is empty"),
    (moved("predictions.csv"), {"table of labels: name"}, "predictions.csv was taken for it"),
    (moved(f"results/{CSV}"), {"table of labels: at the top, in no sub-folder"}, "in the folder results"),
    (lambda root: (root / CSV).unlink(), {"table of labels"}, "there is no *_classified_hands.csv"),
]


@pytest.mark.parametrize(("harm", "expected", "said"), TABLES)
def test_each_fault_of_the_table_is_found_and_nothing_else(root, harm, expected, said):
    only_these_faults(root, harm, expected, said, "cw2")


FORMS = [
    (rows(lambda lines: joined([HEADER, *lines])), "line 1 is a header"),
    (rows(lambda lines: b"\xef\xbb\xbf" + joined(lines)), "byte order mark (BOM)"),
    (rows(lambda lines: "\n".join(lines).encode("utf-16")), "UTF-16"),
    (rows(lambda lines: joined(lines) + b"\n"), "blank lines"),
    (rows(lambda lines: "\r\n".join(lines).encode()), ""),
    (rows(lambda lines: joined(lines[::-1])), "not in name order"),
    (each(lambda name, label: f"{name},{label}"), ""),
    (each(lambda name, label: f' "{name}" , "{label}" '), "quotes"),
    (each(lambda name, label: f"{name}, {label}.0"), "2.0"),
    (each(lambda name, label: f"test_hands/{name}, {label}"), "folders in front"),
    (each(lambda name, label: f"7,{name},{label}"), "more columns"),
    (each(lambda name, label: f"{name};{label}"), "comma"),
    (each(lambda name, label: f"{name[:-5]}, {label}"), "no ending"),
    (rows(lambda lines: joined([*lines, "test_hand_3551.jpeg, 1"])), "not in name order"),
]


@pytest.mark.parametrize(("change", "said"), FORMS)
def test_another_form_of_the_table_is_no_fault(root, change, said):
    change(root)
    remarks = found(root, "remark").get("table of labels: form", [])
    assert found(root) == {} and (any(said in text for text in remarks) if said else remarks == [])


def test_a_table_with_one_label_everywhere_is_worth_a_look(root):
    each(lambda name, label: f"{name}, 1")(root)
    assert found(root) == {} and found(root, "remark")[LABELS] == ["all labels are 1"]


# ---- the answers


def readme(first=made.ANSWER_1, second=made.ANSWER_2, questions=(made.QUESTION_1, made.QUESTION_2)):
    def change(root):
        text = f"## DL module coursework 2\n\n{questions[0]}{first}{questions[1]}{second}"
        (root / "README.md").write_text(text, encoding="utf-8")

    return change


A, B = "### ANSWER to question 1:\n\n", "### ANSWER to question 2:\n\n"
FIGURE = "![a](docs/my%20figure.png)\n\n"
TABLE = "| a | b |\n| --- | --- |\n| one | two |\n\n"
ANSWERS = [
    (readme(first=A + "word " * 151), {FIRST}, "1 too many"),
    (readme(first=A + "word " * 100 + "\n\n#### Why\n\n" + "word " * 60), {FIRST}, "161 words"),
    (
        readme(first=A + "word " * 145 + "\n\n| a | b |\n| --- | --- |\n| one two | three four |\n\n"),
        {FIRST},
        "151 words",
    ),
    (readme(first=A + "*word word* " * 76), {FIRST}, "152 words"),
    (readme(first=A + "`word` " * 151), {FIRST}, "151 words"),
    (readme(second=B + "word " * 101), {SECOND}, "1 too many"),
    (readme(first=A + "word " * 90 + "\n\n" + FIGURE * 2), {FIRST}, "2 figures and tables, but at most 1 is allowed"),
    (readme(first=A + "word " * 90 + "\n\n" + FIGURE + TABLE), {FIRST}, "2 figures and tables"),
    (readme(first=A), {FIRST}, "question 1 is unanswered"),
    (readme(second=B + "your answer here"), {SECOND}, "question 2 is unanswered"),
    (readme(second="", questions=(made.QUESTION_1, "")), {SECOND}, "has no question 2"),
    (lambda root: (root / "README.md").unlink(), {"README with the answers"}, "no README.md"),
]


@pytest.mark.parametrize(("harm", "expected", "said"), ANSWERS)
def test_each_fault_of_an_answer_is_found_and_nothing_else(root, harm, expected, said):
    only_these_faults(root, harm, expected, said, "cw2")


RIGHT = [
    readme(first="###ANSWER to question 1:\n\n" + "word " * 150),  # as many public answers have it
    readme(first="**ANSWER to question 1:** " + "word " * 150),
    readme(first="#### ANSWER 1:\n\n" + "word " * 150),
    readme(first="Answer to question 1\n---\n\n" + "word " * 150),
    readme(first="**Answer:**\n\n" + "word " * 150),
    readme(first="word " * 150 + "\n\n", second="word " * 100),  # below the question, without a label
    readme(first=A + "word<br>" * 149 + "word\n\n<!-- " + "word " * 50 + "-->\n\n<br>\n\n"),
    readme(first=A + '<div style="color: orange; padding: 2px">' + "word " * 150 + "</div>\n\n"),
    readme(first=A + "word " * 90 + "\n\n---\n\n***\n\n" + "- word\n" * 60),
    readme(first=A + "word " * 90 + "\n\n---\n\n" + FIGURE),
    readme(
        first=A
        + "word " * 90
        + '\n\n<center><img src=".\\docs\\my figure.png" alt="x" style="zoom:50%;"/></center>\n\n'
    ),
    readme(first=A + "word " * 90 + '\n\n![a](<docs/my figure.png> "title")\n\n'),
    readme(first=A + "word " * 90 + "\n\n![a][one]\n\n[one]: docs/my%20figure.png\n\n"),
    readme(first=A + "word " * 90 + "\n\n![a](data:image/png;base64,iVBORw0KGgo=)\n\n"),
    readme(second=B + "word " * 90 + FIGURE + TABLE),  # only question 1 limits figures
    readme(second=B + "word " * 99 + "\n\n## References\n\n" + "word " * 90),
    readme(second=B + "word " * 99 + "\n\n**References**\n\n" + "word " * 90),
]


@pytest.mark.parametrize("change", RIGHT)
def test_answers_in_other_forms_are_no_fault(root, change):
    change(root)
    assert found(root) == {}
    assert not any("not in the hand-in" in text for texts in found(root, "remark").values() for text in texts)


def test_numbers_and_captions_beyond_the_limit_are_a_remark(root):
    readme(first=A + "word " * 149 + "512 [1] [2]\n\n<div>FIG1: a caption of some words</div>\n\n")(root)
    assert found(root) == {} and "149 words, or" in found(root, "remark")[FIRST][0]


def test_a_lost_figure_is_a_remark(root):
    readme(first=A + "word " * 90 + "\n\n![a](nowhere.png)\n\n")(root)
    assert found(root) == {} and "nowhere.png" in found(root, "remark")[FIRST][0]


# ---- pre-trained weights

MODELS = (
    "from torchvision import models\nimport torchvision, timm, torch\nfrom torchvision.models import resnet50, vgg16\n"
)
LOADED = [
    "net = models.resnet18(pretrained=True)",
    "net = models.resnet18(True)",
    "net = resnet50('IMAGENET1K_V2')",
    "net = torchvision.models.vgg16(weights=torchvision.models.VGG16_Weights.DEFAULT)",
    "net = vgg16(\n    weights=(\n        'IMAGENET1K_V1'\n    ),\n)",
    "W = 'IMAGENET1K_V1'\nnet = resnet50(weights=W)",
    "net = timm.create_model('resnet18', pretrained=True)",
    "net = timm.create_model('resnet18', True)",
    "net = torch.hub.load('pytorch/vision', 'resnet18')",
    "from torch.hub import load_state_dict_from_url\nload_state_dict_from_url(u)",
    "from transformers import ViTModel\nViTModel.from_pretrained('google/vit')",
    "from tensorflow.keras.applications import ResNet50\nnet = ResNet50()",
    "net = models.get_model('resnet18', weights='DEFAULT')",
]
NOT_LOADED = [
    "net = models.resnet18(weights=None)",
    "net = resnet50()",
    "net = models.resnet18(pretrained=False)",
    "net = vgg16(False)",
    "loss = nn.CrossEntropyLoss(weight=class_weights)",
    "knn = KNeighborsClassifier(weights='distance')",
    "torch.save(net, 'imagenet_pretrained.pth')",
    "net = timm.create_model('resnet18')",
    "net.load_state_dict(torch.load('a.pth'))",
    "# net = models.resnet18(pretrained=True)",
    "s = 'resnet18(pretrained=True)'",
    "sampler = WeightedRandomSampler(weights=w)",
    "def resnet34(flag):\n    return flag\nnet = resnet34(True)",
    "VAE.from_pretrained('./my_weights')",
    "optimizer = Adam(p, weights=None)",
    "from keras.applications import ResNet50\nnet = ResNet50(weights=None)",
    "np.average(x, weights=w)",
]


@pytest.mark.parametrize("source", LOADED)
def test_pretrained_weights_are_found(root, source):
    edit(root / CLEAN, lambda cells, _: cells.append(code(MODELS + source, count=9)))
    assert set(found(root)) == {"clean notebook: trained from scratch"}


def test_what_only_looks_like_pretrained_weights_is_none(root):
    edit(root / CLEAN, lambda cells, _: cells.extend([code(MODELS + source, count=9) for source in NOT_LOADED]))
    assert found(root) == {}
    assert "torchvision's resnet18" in " ".join(found(root, "remark")["clean notebook: network implemented explicitly"])


def test_pretrained_weights_in_the_hypertune_notebook_are_a_remark(root):
    path = root / f"{USER}_DLcw2_hypertune.ipynb"
    edit(path, lambda cells, _: cells.append(code(MODELS + LOADED[0], count=9)))
    assert found(root) == {} and "hypertune notebook: no pre-trained weights" in found(root, "remark")


def test_pretrained_weights_in_a_module_are_found(root):
    (root / "utils").mkdir()
    (root / "utils" / "nets.py").write_text(MODELS + LOADED[0], encoding="utf-8")
    edit(root / CLEAN, lambda cells, _: cells.append(code("from utils.nets import net", count=9)))
    assert "utils/nets.py" in found(root)["clean notebook: trained from scratch"][0]
