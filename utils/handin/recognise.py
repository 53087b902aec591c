"""Finds out which briefs a hand-in answers, and which of its files is what.

Names count most, but renamed files are recognised by their content, in sub-folders and zip files too.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from utils.data import head_images
from utils.handin import source
from utils.handin.briefs import ENDINGS, Brief, File, load, names
from utils.handin.inspection import Cell, Failed, HandIn, Unchecked, folder_of, last_part

LEAST_STATEMENTS = 3  # a notebook with fewer lines of code of its own, and fewer words of its own in text cells,
LEAST_WORDS = 30  # is the untouched template, or nearly empty
FIELD = re.compile(r"\W*(name|username|cid)\W*:(.*?)(?=\b(?:name|username|cid)\W*:|\[|$)", re.I)  # at the top
COURSE_IMAGE = re.compile(r"(real_|test_)?(VAE|GAN|real|test)_?hand_?\d+\.\w+|\d{6}\.jpe?g", re.I)  # the course's own
COURSE_FOLDERS = ("real_hands", "test_hands", "real_hand", "test_hand", "raw_data")
IMAGE = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".gif")
T = TypeVar("T")
EXACT, BY_WORD, BY_SIGN, BESIDE = 100, 10, 3, 4  # how much it counts: a name, a word, a sign, the same folder


def normal(text: str) -> str:
    """The words of a text in small letters, to compare it with a template."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def named_like(name: str, pattern: str) -> bool:
    """Is a file's name the pattern, apart from capital letters, spaces, hyphens and underscores?"""
    plain = [re.sub(r"[ _-]+", "_", text.lower()) for text in (last_part(name), pattern)]
    return fnmatch.fnmatchcase(*plain)


def _names_elsewhere(brief: Brief) -> list[str]:
    """The names with a username that other briefs ask for. A notebook with such a name does not belong to this one."""
    others = [load(name) for name in names() if name != brief.name]
    return [file.names[0] for other in others for file in other.files.values() if "*" in file.names[0]]


class Work:
    """A hand-in as the answer to one brief.

    Attributes:
        handin, brief: what is compared.
        taken: the path of the file for each role.
        spare: notebooks that answer this brief too, but have no role.
    """

    def __init__(self, handin: HandIn, brief: Brief, chosen: dict[str, str] | None = None):
        self.handin, self.brief = handin, brief
        self.taken: dict[str, str] = {}
        self.spare: list[str] = []
        lines = [normal(line) for line in brief.template]
        self._lines, self._openings = set(lines), tuple(line for line in lines if len(line.split()) > 3)
        self._code_lines = re.compile("|".join(f"(?:{line})" for line in brief.template_code) or "(?!)")
        self._kept: dict[tuple, object] = {}
        self._recognise(chosen or {})

    def kept(self, key: tuple, make: Callable[[], T]) -> T:
        """The result of `make`, which is called only once for each key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    # ---- which file is what

    def _recognise(self, chosen: dict[str, str]) -> None:
        for role, wanted in chosen.items():
            if role not in self.brief.files:
                known = ", ".join(self.brief.files) or "none"
                raise ValueError(f"'{role}' is not a file of {self.brief.name}; there are {known}")
            found = [n for n in self.handin.names if n == wanted or last_part(n) == wanted]
            if not found:
                raise ValueError(f"there is no '{wanted}' in the hand-in, which was named as {role}")
            self.taken[role] = found[0]
        used = set(self.taken.values())
        self._take_best(("notebook",), used)
        self._last_notebooks(used)
        self._take_best(("table", "array", "text", "report"), used)  # they are looked for beside the notebooks
        left = [n for n in self.handin.notebooks if n not in used and self._belongs(n)]
        known = {last_part(name) for name in used}  # a copy of the hand-in in a sub-folder is no further notebook
        self.spare = [n for n in left if last_part(n) not in known and not self._is_untouched(n)]

    def _take_best(self, kinds: tuple[str, ...], used: set[str]) -> None:
        """Give each role of these kinds the file that fits it best. A file gets one role."""
        scores = []
        for role, file in self.brief.files.items():
            if role not in self.taken and file.kind in kinds:
                scores += [(*self._score(file, name), role, name) for name in self._candidates(file)]
        scores.sort(key=lambda s: (-s[0], s[1], s[3]))
        for score, _, role, name in scores:
            if score > 0 and role not in self.taken and name not in used:
                self.taken[role] = name
                used.add(name)

    def _candidates(self, file: File) -> list[str]:
        return [n for n in self.handin.names if n.lower().endswith(ENDINGS[file.kind])]

    def _score(self, file: File, name: str) -> tuple[int, int]:
        """How well a file fits a role; and its depth, because files near the top come first."""
        depth = name.count("/")
        bare = last_part(name)
        score = 0
        exact = any(fnmatch.fnmatchcase(bare, pattern) for pattern in file.names[:1])
        if exact or any(named_like(name, pattern) for pattern in file.names):
            score = EXACT + exact
        if file.kind == "notebook":
            if score:
                return score - 50 * self._is_untouched(name), depth
            if not self._belongs(name):
                return 0, depth
            return BY_WORD * self._has_word(name, file) + BY_SIGN * self._matches(name, file.signs), depth
        signs = self._matches(name, file.signs) if file.signs else 0
        if not score and signs:
            score = BY_WORD * self._has_word(name, file)
        if not score and not signs:
            return 0, depth
        near = self._nearness(folder_of(name)) if file.kind in ("text", "report") else BESIDE
        return (score + BY_SIGN * signs + near, depth) if near else (0, depth)

    def _nearness(self, folder: str) -> int:
        """How near a folder is to this brief's notebooks. 0 if it belongs to other notebooks."""
        own = {
            folder_of(self.taken[r]) for r, f in self.brief.files.items() if f.kind == "notebook" and r in self.taken
        }
        if not own or folder in own:
            return BESIDE
        if any(f"{place}/".startswith(f"{folder}/" if folder else "") for place in own):
            return BESIDE - 1  # above them
        if any(folder.startswith(f"{place}/" if place else "") for place in own):
            return BESIDE - 2  # below them
        return 0 if any(folder_of(n).startswith(folder) for n in self.handin.notebooks) else BESIDE - 3

    def _last_notebooks(self, used: set[str]) -> None:
        """Give the roles that are left to the notebooks that are left, in the brief's order."""
        roles = [r for r, f in self.brief.files.items() if f.kind == "notebook" and r not in self.taken]
        places = {folder_of(name) for name in self.taken.values()}
        for role in roles:  # such as a Hypertuning.ipynb beside this brief's notebook that says too little of itself
            for name in self.handin.notebooks:
                beside = folder_of(name) in places and name not in used and not self._is_elsewhere(name)
                if beside and role not in self.taken and self._has_word(name, self.brief.files[role]):
                    self.taken[role] = name
                    used.add(name)
        roles = [role for role in roles if role not in self.taken]
        left = [n for n in self.handin.notebooks if n not in used and self._belongs(n)]
        left.sort(key=lambda n: (self._is_untouched(n), n.count("/"), n))
        for role, name in zip(roles, left):
            words = [word for other, f in self.brief.files.items() if other != role for word in f.name_words]
            if role == next(iter(self.brief.files)) or not any(word in last_part(name).lower() for word in words):
                self.taken[role] = name
                used.add(name)

    def _belongs(self, name: str) -> bool:
        """Does a notebook answer this brief, by its content?"""
        return bool(self.brief.signs) and self.kept(("belongs", name), lambda: self._fits(name))

    def _fits(self, name: str) -> bool:
        text = self.handin.words(name)
        fits = bool(text) and all(re.search(sign.lower(), text) for sign in self.brief.signs)
        return fits and not self._is_elsewhere(name)

    def _is_elsewhere(self, name: str) -> bool:
        """Does a notebook answer another brief, by its content or its name?"""
        text = self.handin.words(name)
        against = any(re.search(sign.lower(), text) for sign in self.brief.against)
        return against or any(named_like(name, pattern) for pattern in _names_elsewhere(self.brief))

    @staticmethod
    def _has_word(name: str, file: File) -> bool:
        return any(word in last_part(name).lower() for word in file.name_words)

    def _matches(self, name: str, signs: list[str]) -> int:
        """The number of the regular expressions that match a file's content."""
        try:
            if name.lower().endswith(".ipynb"):
                text = self.handin.words(name)
            elif name.lower().endswith((".npy", ".pdf", ".docx")):
                return 0
            else:
                text = self.handin.text(name)[0][:20_000].lower()
        except (Failed, Unchecked):
            return 0
        return sum(bool(re.search(sign.lower(), text, re.M)) for sign in signs)

    def answers(self) -> bool:
        """Does the hand-in seem to answer this brief? It needs a notebook, a table, an array or a telling text."""
        files = [self.brief.files[role] for role in self.taken]
        telling = [f for f in files if f.kind in ("notebook", "table", "array")]
        texts = [f for f in files if f.kind in ("text", "report") and f.signs]
        telling += [f for f in texts if self._matches(self.taken[f.role], f.signs)]
        if self.brief.signs:
            return bool(telling)
        asked = [f for f in self.brief.files.values() if f.kind in ("notebook", "table", "array")]
        first = next(iter(self.brief.files)) in self.taken
        return first and len(telling) >= max(2, len(asked) - 1)  # without signs, nearly all names must be right

    def may_answer(self) -> bool:
        """Does it hold a report, or images that may be the samples? Without any other file, this is a hand-in too."""
        return any(self.brief.files[role].kind == "report" for role in self.taken) or any(
            self.sample_groups(file) for file in self.brief.files.values() if file.kind == "images"
        )

    # ---- what is in the files

    def cells(self, role: str) -> list[Cell]:
        """The cells of the notebook with this role.

        Raises:
            Failed, Unchecked: see `HandIn.cells`.
        """
        return self.handin.cells(self.taken[role])

    def code(self, role: str) -> source.Notebook:
        """The code of the notebook with this role."""
        return self.kept(("code", role), lambda: source.Notebook(self.cells(role)))

    def module(self, name: str) -> ast.Module | None:
        """The syntax tree of a Python file in the hand-in, or None if it is not Python."""
        if name not in self.handin.trees:
            try:
                self.handin.trees[name] = source.parse(self.handin.text(name)[0])
            except (Failed, Unchecked):
                self.handin.trees[name] = None
        return self.handin.trees[name]

    def is_template(self, line: str) -> bool:
        """Was this line written by the course?"""
        plain = normal(line)
        return plain in self._lines or plain.startswith(self._openings) or bool(self._code_lines.match(line.strip()))

    def own_lines(self, text: str) -> list[str]:
        """The lines of a text that the student wrote."""
        return [line for line in text.splitlines() if normal(line) and not self.is_template(line)]

    def _is_untouched(self, name: str) -> bool:
        """Has nobody written more than a line or two of code, or of text, into this notebook?"""
        try:
            cells = self.handin.cells(name)
        except (Failed, Unchecked):
            return True
        code = words = 0
        for cell in cells:
            lines = self.own_lines(cell.source)
            if cell.code:
                code += sum(line.strip()[0] not in "#!%" for line in lines)
            else:
                words += sum(len(normal(line).split()) for line in lines if not FIELD.match(line))
            if code >= LEAST_STATEMENTS or words >= LEAST_WORDS:
                return False
        return True

    def problem(self, role: str) -> str:
        """Why the file with this role cannot be judged; "" if it can be. Other findings would only follow from this."""
        return self.kept(("problem", role), lambda: self._problem(role))

    def usable(self, kind: str) -> list[str]:
        """The roles with files of this kind that can be judged."""
        return [role for role, file in self.brief.files.items() if file.kind == kind and not self.problem(role)]

    def _problem(self, role: str) -> str:
        file = self.brief.files[role]
        if file.kind == "images":
            pictures = any(n.lower().endswith(IMAGE) for n in self.handin.names)
            return "" if self.sample_groups(file) or (file.signs and pictures) else "there are no images"
        if role not in self.taken:
            return f"there is no {file.names[0]}"
        name = self.taken[role]
        try:
            if file.kind == "notebook":
                if not self.handin.cells(name):
                    return f"{last_part(name)} is empty"
                if self._is_untouched(name):
                    return f"{last_part(name)} is the untouched template, or nearly empty"
            elif file.kind == "array":
                head_images.load_array(self.handin.read(name), last_part(name))
            else:
                self.handin.read(name)
        except (Failed, Unchecked, ValueError) as error:
            return str(error)
        return ""

    # ---- images

    def sample_groups(self, file: File) -> dict[str, list[str]]:
        """The images that may be the samples: for each folder that counts as one place, their paths.

        Images of the course, of real_hands and test_hands, and single figures are left out.
        """
        found: dict[str, list[str]] = {}
        for name, place in self._images:
            level = next((i for i, p in enumerate(place) if any(named_like(p, q) for q in file.names)), None)
            if level is not None:
                found.setdefault("/".join(name.split("/")[: level + 1]), []).append(name)
        if not found:  # perhaps in a folder with another name: the largest folder of small images
            by_folder: dict[str, list[str]] = {}
            for name, place in self._images:
                if re.search(r"\d", last_part(name)) and not any(p in ("docs", "assets", "figures") for p in place):
                    by_folder.setdefault(folder_of(name), []).append(name)
            large = {place: names for place, names in by_folder.items() if len(names) >= 100}
            if large:
                place = max(large, key=lambda p: len(large[p]))
                found = {place or "the top folder": large[place]}
        return found

    @cached_property
    def _images(self) -> list[tuple[str, list[str]]]:
        """The path of each image that is not the course's, and the names of its folders without .zip."""
        found = []
        for name in self.handin.names:
            if name.lower().endswith(IMAGE) and not COURSE_IMAGE.fullmatch(last_part(name)):
                place = [re.sub(r"\.zip$", "", part, flags=re.I) for part in name.split("/")[:-1]]
                if not any(part.lower() in COURSE_FOLDERS for part in place):
                    found.append((name, place))
        return found

    @cached_property
    def tops(self) -> set[str]:
        """The folders that count as the top of this hand-in: the real top, and those of README and notebooks."""
        names = self.handin.names
        first = {name.split("/")[0] for name in names}
        shared = first.pop() if len(first) == 1 and all("/" in name for name in names) else ""
        own = {folder_of(self.taken[r]) for r, f in self.brief.files.items() if r in self.taken and f.kind != "table"}
        return {"", shared} | own
