"""Decides whether two trainings are the same run: they have the same settings, data and source code of the model.

A checkpoint holds all three. If one of them differs, a training does not go on from the checkpoint.
The identity does not depend on the machine. It is the same on a CPU and on a GPU, on every system and in every version
of Python. So a run that was finished on one machine can be loaded on another.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import tokenize
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

import torch
from torch import Tensor, nn

WHOLE_BYTES = 2**28  # if a tensor is larger, only some of its rows are read
SAMPLED_ROWS = 1024
ROOMS = (
    "utils.models",
    "utils.data",
    "utils.training.loop",
    "utils.training.run",
    "utils.evaluation.feature_spaces",
    "__main__",  # a notebook's cells
)
AFTER_TRAINING = ("sample", "latent_bank", "logits", "export", "from_weights")  # methods that use a trained model
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)


def of_data(tensors: tuple[Tensor, ...]) -> str:
    """A hash of 16 hexadecimal digits. It changes if the shape, the dtype or a value of the tensors changes.

    If a tensor has more than WHOLE_BYTES bytes, only SAMPLED_ROWS evenly spaced rows of it are read. Such a tensor may
    be mapped from a file that is larger than memory.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in _some_rows(tensor) if tensor.nbytes > WHOLE_BYTES else (tensor,):
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _some_rows(tensor: Tensor) -> Iterator[Tensor]:
    """Evenly spaced rows, including the first and the last."""
    count = min(len(tensor), SAMPLED_ROWS)
    for i in range(count):
        row = i * (len(tensor) - 1) // max(1, count - 1)
        yield tensor[row : row + 1]


def of_source(model: nn.Module, *functions: FunctionType) -> dict[str, str]:
    """A hash for each function, class and constant of this project that the training of a model uses, by its name.

    The search begins with the classes of the model's modules and with `functions`. It adds the functions, classes and
    constants in ROOMS that their code names, then those that the new code names, and so on. So an edited loss function
    or helper gives another hash, and an edit elsewhere in the same file does not. Comments, docstrings and blank lines
    do not count. Methods that only use a trained model (AFTER_TRAINING) do not count either, unless the code of the
    training names them.

    Constants are numbers, strings, and tuples, lists and dicts of them. Objects that a function makes at run time are
    not found.
    """
    waiting = [kind for module in model.modules() for kind in type(module).__mro__] + list(functions)
    texts: dict[str, str] = {}
    left_out: list[FunctionType] = []
    names: set[str] = set()
    while waiting or any(method.__name__ in names for method in left_out):
        if not waiting:
            waiting = [method for method in left_out if method.__name__ in names]
            left_out = [method for method in left_out if method.__name__ not in names]
        thing = waiting.pop()
        name = f"{thing.__module__}.{thing.__qualname__}".removeprefix("utils.")
        if name in texts or not thing.__module__.startswith(ROOMS):
            continue
        if inspect.isclass(thing):
            texts[name] = _class_text(thing)
            methods = [method for method in map(_function, vars(thing).values()) if method]
            left_out += [method for method in methods if method.__name__ in AFTER_TRAINING]
            waiting += [method for method in methods if method.__name__ not in AFTER_TRAINING]
        else:
            texts[name] = _function_text(thing)
            named = _names(thing.__code__)
            names |= named
            for key, value in _globals(thing, named):
                if inspect.isclass(value) or _function(value):
                    waiting.append(_function(value) or value)
                elif plain := _plain(value):
                    texts[f"{thing.__module__}.{key}".removeprefix("utils.")] = plain
    return {name: hashlib.sha256(text.encode()).hexdigest()[:8] for name, text in sorted(texts.items())}


def _function(value: object) -> FunctionType | None:
    """The function behind a method, a property, a decorator or a cache; None if there is none."""
    value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, FunctionType) else None


def _names(code: CodeType) -> set[str]:
    """All global names and attributes in the code, including the code of inner functions."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _globals(function: FunctionType, names: set[str]) -> Iterator[tuple[str, object]]:
    """The values of the names: globals of the function, and globals of the modules in ROOMS that it names."""
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield name, value
        elif value.__name__.startswith(ROOMS):
            yield from ((f"{name}.{inner}", vars(value)[inner]) for inner in names & vars(value).keys())


def _plain(value: object) -> str:
    """A number, a string, or a tuple, list or dict of them as text. "" for other values and for empty ones."""
    try:
        return json.dumps(value, sort_keys=True) if value else ""
    except (TypeError, ValueError, RuntimeError):  # such as a tensor, an object, or a dict with other keys
        return ""


def _class_text(kind: type) -> str:
    """A class without its methods: its bases and its constants."""
    constants = {name: _plain(value) for name, value in vars(kind).items() if not name.startswith("__")}
    bases = [base.__qualname__ for base in kind.__bases__]
    return json.dumps([bases, {name: text for name, text in constants.items() if text}], sort_keys=True)


def _function_text(function: FunctionType) -> str:
    """A function's source without comments, docstrings and blank lines, and the values of its defaults.

    Raises:
        OSError: the file with the source is missing.
    """
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        if not function.__code__.co_filename.startswith("<"):
            raise
        source = function.__qualname__  # made at run time, for example by a dataclass
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return "\n".join([without_comments(source), *map(_plain, defaults)])


def without_comments(source: str) -> str:
    """Python source without comments, docstrings, blank lines and spaces at the ends of lines."""
    lines, statement = source.splitlines(), []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
            if token.type == tokenize.NEWLINE:
                if all(part.type == tokenize.STRING for part in statement):
                    for part in statement:
                        lines[part.start[0] - 1 : part.end[0]] = [""] * (part.end[0] - part.start[0] + 1)
                statement = []
            elif token.type not in LAYOUT:
                statement.append(token)
    except (tokenize.TokenError, SyntaxError):  # not a complete statement, for example the line of a lambda
        return source
    return "\n".join(line.rstrip() for line in lines if line.strip())


def differences(saved: dict, wanted: dict) -> list[str]:
    """The differences of two runs, one readable line each. "data" and "source" are results of the functions above."""
    lines = []
    for key in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(key, "absent"), wanted.get(key, "absent")
        if old == new:
            continue
        if key == "data":
            lines.append("the images, or other data, differ")
        elif key == "source" and isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            lines.append(f"the model's source has changed: {', '.join(changed)}")
        else:
            lines.append(f"{key}: {old} in the file, {new} wanted")
    return lines
