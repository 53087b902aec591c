"""Reads Python code in notebooks and files by its syntax tree. Nothing is executed.

It answers what a cell must show, which modules are imported, and which pre-trained weights are loaded.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import NamedTuple

from utils.handin.inspection import Cell

NOT_PYTHON = re.compile(r"%%(?!time\b|timeit\b|prun\b|capture\b|matplotlib)\w+")  # such cell magics change the language
PLOTS = {
    "plot", "imshow", "scatter", "hist", "bar", "barh", "matshow", "subplots", "figure", "contour", "contourf",
    "boxplot", "errorbar", "pie", "semilogy", "semilogx", "loglog", "fill_between", "violinplot",
}  # fmt: skip
SHOWN_CALLS = {"len", "type", "list", "dict", "set", "str", "sorted", "tuple", "int", "float", "round", "sum"}
SHOWN_METHODS = {"head", "tail", "describe", "value_counts", "size", "keys"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# torchvision's constructors of networks
NETWORKS = re.compile(
    r"(alexnet|convnext_\w+|deeplabv3_\w+|densenet\d+|efficientnet_\w+|fasterrcnn_\w+|fcn_\w+|googlenet|inception_v3"
    r"|maskrcnn_\w+|maxvit_t|mnasnet\w+|mobilenet_\w+|regnet_\w+|resnet\d+|resnext\w+|retinanet_\w+|shufflenet_\w+"
    r"|squeezenet\w+|swin_\w+|vgg\d+(_bn)?|vit_\w+|wide_resnet\w+|get_model)"
)
KERAS = re.compile(
    r"(ResNet\w+|VGG\d+|DenseNet\d+|MobileNet\w*|EfficientNet\w+|Inception\w+|Xception|NASNet\w+|ConvNeXt\w+)"
)
LOADERS = ("load_state_dict_from_url", "KerasLayer")  # functions that load somebody's weights, whatever their arguments


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a cell or a file. IPython's own lines are left out. None if it is not Python."""
    lines = text.lstrip().splitlines()
    if lines and NOT_PYTHON.match(lines[0]):
        return None
    return _parsed(text) or _parsed("\n".join(map(_plain, lines)))


def _plain(line: str) -> str:
    """A line of IPython as a line of Python: `!ls` and `%time` become `pass`, and `x = !ls` becomes `x = None`."""
    bare = line.lstrip()
    if bare.startswith(("!", "%", "?")) or (bare.endswith("?") and "#" not in bare and "'" not in bare):
        return f"{line[: len(line) - len(bare)]}pass"
    match = re.match(r"\s*[\w, ]+=\s*[!%]", line)
    return f"{match[0].rstrip()[:-1]} None" if match else line


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escape sequences
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_python(text: str) -> bool:
    """Should the cell be Python? Cells such as %%bash, and cells with only comments, are not."""
    lines = [line for line in text.strip().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(lines) and not NOT_PYTHON.match(lines[0])


def comments(text: str) -> list[str]:
    """The texts of the comments in a cell, without commented-out code."""
    found = [match.group(1).strip(" #") for match in re.finditer(r"(?:^|\s)#+\s*([^\n]*)", text)]
    return [c for c in found if len(c.split()) > 1 and not re.search(r"[=(\[{]\s*\S*[)\]}]?$|^(import|from)\s|^!", c)]


def called(node: ast.Call) -> str:
    """The dotted name of what is called, such as `plt.plot`. Empty if it has no name."""
    return dotted(node.func)


def dotted(node: ast.AST) -> str:
    """A dotted name such as `torchvision.models.resnet18`. Parts without a name are left out."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return ""


class Facts(NamedTuple):
    """What a syntax tree holds.

    Attributes:
        names: the full name of each imported name: {'plt': 'matplotlib.pyplot', 'DataLoader': 'torch.utils.data...'}.
        modules: the full names of the imported modules, and of the names imported from them.
        own: the names of the functions and classes that it defines.
        functions: the functions.
        values: the value that was given to each name.
        calls: all calls.
    """

    names: dict[str, str]
    modules: set[str]
    own: set[str]
    functions: dict[str, ast.AST]
    values: dict[str, ast.expr]
    calls: list[ast.Call]


def facts(tree: ast.Module) -> Facts:
    """What a syntax tree holds. It is computed once, and kept with the tree."""
    if not hasattr(tree, "facts"):
        found = Facts({}, set(), set(), {}, {}, [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found.calls.append(node)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.split(".")[0]
                    found.names[alias.asname or name] = name
                    found.modules.add(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = f"{'.' * node.level}{node.module or ''}"
                for alias in node.names:
                    found.names[alias.asname or alias.name] = f"{module}.{alias.name}"
                    found.modules.update([] if node.level else [module, f"{module}.{alias.name}"])
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                found.own.add(node.name)
                if isinstance(node, FUNCTIONS):
                    found.functions[node.name] = node
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found.values[target.id] = node.value
        tree.facts = found
    return tree.facts


def imports(trees: list[ast.Module]) -> set[str]:
    """The full names of the imported modules, and of the names imported from them."""
    return set().union(*(facts(tree).modules for tree in trees))


class Shows(NamedTuple):
    """What a cell must show."""

    text: bool
    picture: bool

    def either(self, other: Shows) -> Shows:
        """What is shown by two parts."""
        return Shows(self.text or other.text, self.picture or other.picture)


NOTHING = Shows(False, False)


class Notebook:
    """The code of a notebook, cell by cell."""

    def __init__(self, cells: list[Cell]):
        self.cells = [cell for cell in cells if cell.code]
        self.trees = {cell.number: parse(cell.source) for cell in self.cells}
        parsed = [facts(tree) for tree in self.trees.values() if tree is not None]
        self.functions = {name: node for found in parsed for name, node in found.functions.items()}
        self.names = {name: full for found in parsed for name, full in found.names.items()}
        self.nones = {  # names that are None somewhere
            name
            for found in parsed
            for name, value in found.values.items()
            if isinstance(value, ast.Constant) and value.value is None
        }
        self.plotters = {  # names of livelossplot's plots
            name
            for found in parsed
            for name, value in found.values.items()
            if isinstance(value, ast.Call) and called(value).rpartition(".")[2] == "PlotLosses"
        }
        every = "\n".join(cell.source for cell in self.cells)
        other_backend = re.search(
            r"matplotlib\.use\(|%matplotlib\s+(?!inline)\w+|plt\.ioff\(|\.switch_backend\(", every
        )
        self.draws = not other_backend  # do figures appear below their cell?

    def must_show(self, cell: Cell) -> bool:
        """Does the cell certainly show something when it is executed?"""
        tree = self.trees.get(cell.number)
        if tree is None or re.match(r"\s*%%capture", cell.source):
            return False
        shown = self._block(tree.body, ())
        last = tree.body[-1] if tree.body else None
        quiet = cell.source.rstrip().endswith(";")
        if isinstance(last, ast.Expr) and not quiet and self._is_displayed(last.value):
            return True
        closed = re.search(r"\bplt\.close\(|\bplt\.clf\(|clear_output\(", cell.source)
        printed = shown.text and "clear_output(" not in cell.source
        return printed or (shown.picture and self.draws and not closed)

    def _is_displayed(self, value: ast.expr) -> bool:
        """Is the value of a cell's last line certainly shown?"""
        if isinstance(value, ast.Name):
            return value.id not in self.nones and value.id not in ("None", "_")
        if isinstance(value, ast.Attribute):
            return value.attr in ("shape", "dtype", "columns", "T", "size", "device")
        if isinstance(value, (ast.Compare, ast.BinOp, ast.List, ast.Dict, ast.Tuple, ast.JoinedStr)):
            return True
        if isinstance(value, ast.Call):
            name = called(value)
            if name in self.functions:
                return False
            return name in SHOWN_CALLS or (isinstance(value.func, ast.Attribute) and value.func.attr in SHOWN_METHODS)
        return False

    def _block(self, body: list[ast.stmt], inside: tuple[str, ...]) -> Shows:
        """What a block of statements must show. `inside` names the functions that are being followed."""
        shown = NOTHING
        for statement in body:
            if isinstance(statement, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)):
                shown = shown.either(self._block(statement.body, inside))
            elif isinstance(statement, ast.Try):
                shown = shown.either(self._block(statement.finalbody, inside))
            elif isinstance(statement, ast.If):
                both = self._block(statement.body, inside), self._block(statement.orelse, inside)
                shown = shown.either(Shows(both[0].text and both[1].text, both[0].picture and both[1].picture))
                if any(isinstance(node, (ast.Return, ast.Raise)) for node in ast.walk(statement)):
                    break  # what follows may not be reached
            elif isinstance(statement, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
                if isinstance(statement, ast.Return) and statement.value is not None:
                    shown = shown.either(self._expression(statement.value, inside))
                break
            elif isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign)) and statement.value:
                shown = shown.either(self._expression(statement.value, inside))
        return shown

    def _expression(self, value: ast.expr, inside: tuple[str, ...]) -> Shows:
        """What the call in an expression must show."""
        if not isinstance(value, ast.Call):
            return NOTHING
        name = called(value)
        first, _, last = name.rpartition(".")
        if last in ("send", "draw") and first in self.plotters:
            return Shows(False, True)
        if name == "print":
            to_file = any(keyword.arg == "file" for keyword in value.keywords)
            blank = not value.args or all(isinstance(a, ast.Constant) and a.value == "" for a in value.args)
            return Shows(not to_file and not blank, False)
        if self.names.get(first) == "matplotlib.pyplot" or first == "plt":
            return Shows(False, last in PLOTS)
        if name == "display" and value.args:
            return Shows(True, False)
        if name in self.functions and name not in inside and len(inside) < 4:
            function = self.functions[name]
            generator = any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function))
            text = ast.unparse(function)
            if generator or not isinstance(function, ast.FunctionDef) or "clear_output(" in text:
                return NOTHING
            shown = self._block(function.body, (*inside, name))
            return Shows(shown.text, shown.picture and "close(" not in text)
        return NOTHING

    def near(self, cell: Cell) -> str:
        """The code of a cell, and of the functions that it calls."""
        tree = self.trees.get(cell.number)
        if tree is None:
            return cell.source
        names = {called(node) for node in facts(tree).calls}
        bodies = [ast.unparse(self.functions[name]) for name in names if name in self.functions]
        return "\n".join([cell.source, *bodies])


def pretrained(trees: dict[str, ast.Module]) -> list[tuple[str, str, bool]]:
    """Each place where pre-trained weights are loaded: where, the code, and whether it is only a measure's network.

    Args:
        trees: the trees, by the name of their place. Names that one of them imports or defines are known in all.
    """
    every = [facts(tree) for tree in trees.values()]
    names = {name: full for found in every for name, full in found.names.items()}
    own = set().union(*(found.own for found in every))
    values = {name: value for found in every for name, value in found.values.items()}
    found = []
    for place, tree in trees.items():
        for node in facts(tree).calls:
            if _loads(node, names, own, values):
                code = " ".join(ast.unparse(node).split())[:80]
                found.append((place, code, "inception" in code.lower() or "frechet" in code.lower()))
    return found


def _loads(node: ast.Call, names: dict[str, str], own: set[str], values: dict[str, ast.expr]) -> bool:
    name = called(node)
    first, _, rest = name.partition(".")
    if not name or (first in own and first not in names):
        return False
    full = f"{names.get(first, first)}{'.' if rest else ''}{rest}"
    last = full.rpartition(".")[2]
    keywords = {keyword.arg: values.get(dotted(keyword.value), keyword.value) for keyword in node.keywords}
    positional = [values.get(dotted(argument), argument) for argument in node.args]

    def is_true(value: ast.expr | None) -> bool:
        return isinstance(value, ast.Constant) and value.value is True

    def names_weights(value: ast.expr | None) -> bool:  # such as ResNet18_Weights.DEFAULT, or "IMAGENET1K_V1"
        if isinstance(value, ast.Constant):
            return isinstance(value.value, str) and bool(re.search(r"imagenet|^default$|coco", value.value, re.I))
        return bool(re.search(r"_Weights\.\w+$", dotted(value))) if value is not None else False

    if last in LOADERS or full in ("torch.hub.load", "torch.utils.model_zoo.load_url", "tensorflow_hub.load"):
        return True
    if last == "load_url" and "model_zoo" in full:
        return True
    if last == "from_pretrained":
        given = positional[0] if positional else None
        return isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value[:1] not in "./~"
    if is_true(keywords.get("pretrained")) or names_weights(keywords.get("weights")):
        return True
    if full.startswith("timm.") and last == "create_model":
        return len(positional) > 1 and is_true(positional[1])
    if NETWORKS.fullmatch(last) and ("torchvision" in full or first in ("models", "torchvision", "tv")):
        return any(is_true(value) or names_weights(value) for value in positional[:2])
    if KERAS.fullmatch(last) and "applications" in full:
        given = keywords.get("weights", positional[1] if len(positional) > 1 else ast.Constant("imagenet"))
        return not (isinstance(given, ast.Constant) and given.value is None)
    return False


def library_networks(trees: list[ast.Module]) -> list[str]:
    """The networks that the code takes from torchvision instead of building them."""
    names = {name: full for tree in trees for name, full in facts(tree).names.items()}
    found = set()
    for node in (node for tree in trees for node in facts(tree).calls):
        first, _, rest = called(node).partition(".")
        full = f"{names.get(first, first)}.{rest}".rstrip(".")
        if full.startswith("torchvision") and NETWORKS.fullmatch(full.rpartition(".")[2]):
            found.add(full.rpartition(".")[2])
    return sorted(found)
