"""What a cell of a notebook must show, and Markdown as a reader sees it."""

import pytest

from utils.handin import source
from utils.handin.checks import texts
from utils.handin.inspection import Cell

MUST = [
    "print(x)",
    "x",
    "len(x)",
    "x.shape",
    "df.head()",
    "f'{x}'",
    "a == b",
    "plt.plot(x)",
    "plt.imshow(x)\nplt.show()",
    "for i in range(3):\n    print(i)",
    "with torch.no_grad():\n    print(x)",
    "display(x)",
    "if x:\n    print(1)\nelse:\n    print(2)",
    "def f():\n    print(1)\nf()",
    "def f():\n    plt.imshow(x)\n    plt.show()\ndef g():\n    f()\ng()",
    "def f():\n    print(1)\n    return 2\ny = f()",
    "!ls\nprint(1)",
    "%matplotlib inline\nplt.plot(x)",
    "%%time\nprint(1)",
    "live = PlotLosses()\nfor i in range(3):\n    live.send()",
    "import matplotlib.pyplot as p\np.hist(x)",
]
NEED_NOT = [
    "x = 1",
    "import torch",
    "def f():\n    print(1)",
    "class A:\n    def f(self):\n        print(1)",
    "if x:\n    print(1)",
    "for i in x:\n    if i:\n        print(i)",
    "plt.plot(x)\nplt.savefig('a')\nplt.close()",
    "x;",
    "f(x)",
    "model.eval()",
    "print(x, file=f)",
    "print()",
    "!pip install torch",
    "%load_ext autoreload",
    "%%capture\nprint(1)",
    "%%bash\nls",
    "def f():\n    if x:\n        return\n    print(1)\nf()",
    "try:\n    print(x)\nexcept NameError:\n    pass",
    "plt.plot(x)\nclear_output()",
    "def f():\n    plt.plot(x)\n    plt.close()\nf()",
    "ax.plot(x)",
    "plt.style.use('default')",
    "def f():\n    yield print(1)\nf()",
    "x = None\nx",
    "files = !ls",
    "torch.manual_seed?",
    "while x:\n    print(x)",
    "def f():\n    f()\nf()",
    "lambda: print(1)",
    "matplotlib.use('Agg')\nplt.plot(x)",
    "assert x, # no",
    "",
]


@pytest.mark.parametrize(("text", "must"), [(t, True) for t in MUST] + [(t, False) for t in NEED_NOT])
def test_what_a_cell_must_show(text, must):
    cell = Cell({"cell_type": "code", "source": text}, 1)
    assert source.Notebook([cell]).must_show(cell) is must


def test_functions_of_other_cells_are_followed():
    cells = [Cell({"cell_type": "code", "source": text}, n) for n, text in enumerate(["def f():\n    print(1)", "f()"])]
    notebook = source.Notebook(cells)
    assert [notebook.must_show(cell) for cell in cells] == [False, True]


def test_comments_are_texts_but_commented_code_is_none():
    assert source.comments("x = 1  # the learning rate\n# print(x)\n# net = f(2)\n## why we do this") == [
        "the learning rate",
        "why we do this",
    ]


def words(text):
    return " ".join(piece.text for piece in texts.pieces(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a *b* **c** `d` ~~e~~", "a b c d e"),
        ("[link](https://a.b/c_d)", "link"),
        ("<b>a</b><br>b <!-- c -->d", "a b d"),
        ("<!-- a\nb -->", ""),
        ("<div>\na <i>b</i>\n</div>", "a b"),
        ("| a | b |\n| - | - |\n| c | d |", " a b c d"),
        ("###Title\ntext", "Title text"),
        ("Title\n=====\ntext", "Title text"),
        ("- a\n- b\n\n1. c", "a b c"),
        ("a &amp; b", "a & b"),
        ("![alt](x.png)", ""),
    ],
)
def test_words_are_counted_as_a_reader_sees_them(text, shown):
    assert words(text) == shown


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("![a](x%20y.png)", ["x%20y.png"]),
        ("![a](<x y.png>)", ["x%20y.png"]),
        ('![a](x.png "title")', ["x.png"]),
        ("![a][1]\n\n[1]: x.png", ["x.png"]),
        ("<img src='x.png'>", ["x.png"]),
        ('<center><IMG width=3 src="x.png"/></center>', ["x.png"]),
        ("text <img src=x.png > text", ["x.png"]),
        ("![a](data:image/png;base64,iVBORw0KGgo=)", ["data:image/png;base64,iVBORw0KGgo="]),
        ("---\n\n***\n\n___", []),
        ("| a |\n| --- |", ["table"]),
        ("```mermaid\ngraph\n```", ["diagram"]),
        ("`![a](x.png)`", []),
        ("<!-- ![a](x.png) -->", []),
    ],
)
def test_figures_are_found(text, figures):
    assert [address for piece in texts.pieces(text) for address in piece.figures] == figures
