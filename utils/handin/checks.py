"""What `utils.handin.briefs` can ask for, one function each.

Every check takes the hand-in's folder, returns what it found, and raises `Failed` with what is wrong, or `Unchecked`
with what keeps it from telling.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from utils import config
from utils.handin.inspection import Failed, Unchecked, cells, content, find, listing, text

SIZE = (32, 32)
SAMPLES = 300
COPY = 3.0  # grey levels (root mean square) below which an image counts as a copy of a training image
MOST_CELLS_ALONE = 4  # code cells in a row without a word
FEWEST_WORDS = 200
PLACEHOLDERS = ("**Name:** Your Name", "**CID:** 00000000", "**Username:** username")
OWN_FOLDERS = ("utils", "tests", "benchmarks")  # that may hold .py files; the last two are no part of what runs
PRETRAINED = re.compile(
    r"pretrained\s*=\s*True|weights\s*=\s*['\"](?!none)\w|\w+_Weights\.|torch\.hub\.load\b|\.from_pretrained\("
    r"|include_top\s*=|hub\.KerasLayer",
    re.I,
)


def is_there(folder: Path, name: str) -> str:
    return f"{find(folder, name)}, {len(cells(folder, name))} cells"


def signed(folder: Path, name: str) -> str:
    texts = "\n".join(cell.source for cell in cells(folder, name) if not cell.code)
    left = [what for what in PLACEHOLDERS if what in texts]
    if PLACEHOLDERS[-1] in left:
        raise Unchecked("it bears the template's name still: python -m utils rename USERNAME --name --cid")
    if left:
        raise Failed(f"it still says {' and '.join(left)}")
    return "no placeholder left"


def executed(folder: Path, name: str) -> str:
    code = [cell for cell in cells(folder, name) if cell.code]
    if not code:
        raise Failed("it has no code")
    for number, cell in enumerate(code, start=1):
        first = cell.source.strip().splitlines()[0][:60]
        for output in cell.outputs:
            if output.get("output_type") == "error":
                raise Failed(f"code cell {number} ended in {output.get('ename', 'an error')}: {first}")
        if cell.count is None:
            raise Failed(f"code cell {number} was not executed: {first}")
        if cell.count != number:
            raise Failed(f"code cell {number} was executed as number {cell.count}: not in one go from top to bottom")
    if not any(cell.outputs for cell in code):
        raise Failed("no cell has an output: they were cleared before saving")
    return f"{len(code)} code cells, executed 1 to {len(code)}"


def explained(folder: Path, name: str) -> str:
    every, alone = cells(folder, name), 0
    for number, cell in enumerate(every, start=1):
        alone = alone + 1 if cell.code else 0
        if alone > MOST_CELLS_ALONE:
            raise Failed(f"{alone} code cells in a row without text, up to cell {number}")
    words = sum(len(cell.source.split()) for cell in every if not cell.code)
    if words < FEWEST_WORDS:
        raise Failed(f"{words} words of text in all")
    return f"{words} words of text"


def from_scratch(folder: Path, name: str) -> str:
    for cell in cells(folder, name):
        for line in cell.source.splitlines() if cell.code else ():
            if not line.lstrip().startswith("#") and PRETRAINED.search(line):
                raise Failed(f"it loads weights that were trained elsewhere: {line.strip()[:80]}")
    return "nothing that loads pre-trained weights"


def loss_plot(folder: Path, name: str) -> str:
    every = cells(folder, name)
    for number, cell in enumerate(every):
        near = " ".join(other.source for other in every[max(0, number - 1) : number + 2]).lower()
        if cell.code and cell.pictures() and ("loss" in near or "entropy" in near):
            return f"a picture beside the word loss in cell {number + 1}"
    raise Failed("no cell whose text or code speaks of a loss has a picture")


def sections(folder: Path, name: str, titles: tuple[str, ...]) -> str:
    texts = [cell.source for cell in cells(folder, name) if not cell.code]
    headings = re.findall(r"^#{1,4} +(.+)$", "\n".join(texts), re.M)
    place = 0
    for title in titles:
        following = [i for i, heading in enumerate(headings) if i >= place and title in heading.lower()]
        if not following:
            anywhere = any(title in heading.lower() for heading in headings)
            raise Failed(f"no heading with '{title}'" + (" after the ones before it" if anywhere else ""))
        place = following[0] + 1
    return f"{len(titles)} sections in order"


def _images(folder: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Names and pixels (N, H, W) of a folder's samples.

    Raises:
        Failed: anything that the brief asks of them is not so.
    """
    names = [Path(n).name for n in listing(folder) if Path(n).parent.as_posix() == name]
    numbered = [re.fullmatch(r"(.+?)_?(?:VAE|GAN)?(\d{3})\.jpe?g", n) for n in names]
    ours = sorted(match.group(0) for match in numbered if match and not re.match(r"(VAE|GAN)_hand", match.group(0)))
    if len(ours) != SAMPLES:
        raise Failed(f"{name} holds {len(ours)} images named <username>_001.jpeg ..., not {SAMPLES}")
    others = [n for n in names if n not in ours and not re.match(r"(VAE|GAN)_hand_", n)]
    if others:
        raise Failed(f"{name} holds something else: {others[0]}")
    users = {match.group(1) for match in numbered if match and match.group(0) in ours}
    if len(users) > 1:
        raise Failed(f"{name} mixes names: {', '.join(sorted(users)[:3])}")
    numbers = sorted(int(match.group(2)) for match in numbered if match and match.group(0) in ours)
    if numbers != list(range(1, SAMPLES + 1)):
        missing = sorted(set(range(1, SAMPLES + 1)) - set(numbers))
        raise Failed(f"{name} has no number {missing[0]:03d}")
    pixels = []
    for n in ours:
        try:
            with Image.open(io.BytesIO(content(folder, f"{name}/{n}")), formats=("JPEG",)) as image:
                if image.size != SIZE or image.mode != "L":
                    raise Failed(f"{name}/{n} is {image.width} x {image.height}, mode {image.mode}; wanted 32 x 32, L")
                pixels.append(np.asarray(image))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Failed(f"{name}/{n} is no whole JPEG: {error}") from error
    return ours, np.stack(pixels)


def _sample_folders(folder: Path, folders: tuple[str, ...]) -> list[str]:
    """Those of the folders that hold anything of the author's."""
    own = {Path(name).parent.as_posix() for name in listing(folder) if not re.search(r"/(VAE|GAN)_hand_\d+\.", name)}
    found = [name for name in folders if name in own]
    if not found:
        raise Failed(f"there are no images in {' or '.join(folders)}")
    return found


def samples(folder: Path, folders: tuple[str, ...]) -> str:
    found = _sample_folders(folder, folders)
    for name in found:
        _images(folder, name)
    return f"{SAMPLES} in {' and in '.join(found)}"


def new_samples(folder: Path, folders: tuple[str, ...]) -> str:
    found = {name: _images(folder, name) for name in _sample_folders(folder, folders)}
    for name, (names, pixels) in found.items():
        first: dict[bytes, str] = {}
        for n, image in zip(names, pixels):
            if first.setdefault(image.tobytes(), n) != n:
                raise Failed(f"{name}: {n} has the pixels of {first[image.tobytes()]}")
    training = training_images()
    if training is None:
        raise Unchecked("all different; whether any is a copy needs the training images in real_hands/")
    from utils.evaluation import fidelity  # here, because the other checks work without torch

    closest = np.inf
    for name, (names, pixels) in found.items():
        distance, _ = fidelity.nearest(pixels[:, None], training)
        closest = min(closest, distance.min())
        if distance.min() < COPY:
            raise Failed(f"{name}/{names[distance.argmin()]} is a copy of a training image")
    return f"all different; the closest is {closest:.1f} grey levels from a training image"


@lru_cache(maxsize=1)
def training_images() -> np.ndarray | None:
    """This project's copy of the training images, uint8 (N, 1, 32, 32); the hand-in's own would prove nothing."""
    from utils.data import hand_images, image_files

    if not hand_images.origin().endswith("real_hands/") or hand_images.origin().startswith("STAND-IN"):
        return None
    return image_files.read(config.PROJECT / "real_hands", pattern="*.jp*g").images


def references(folder: Path, name: str) -> str:
    found = text(folder, find(folder, name))
    entries = len(re.findall(r"^\s*(?:[-*|]|\d+[.)]|\[\d+\])|https?://", found, re.M))
    if not entries:
        raise Failed(f"{name} lists nothing")
    return f"{len(found.split())} words"


def one_utils(folder: Path) -> str:
    scripts = [name for name in listing(folder) if name.endswith(".py")]
    outside = [name for name in scripts if name.split("/")[0] not in OWN_FOLDERS]
    if outside:
        raise Failed(f"{len(outside)} .py files outside utils/, the first: {outside[0]}")
    return f"{len(scripts)} .py files, all in their place"


def csv(folder: Path, name: str, lines: int) -> str:
    name = find(folder, name)
    rows = text(folder, name).splitlines()
    for number, row in enumerate(rows, start=1):
        if not re.fullmatch(r"test_hand_\d+\.jpeg, ?[012]", row):
            raise Failed(f"{name}, line {number}: '{row[:50]}' is not '<file>, <0, 1 or 2>'")
    names = [row.split(",")[0] for row in rows]
    if len(set(names)) < len(names):
        raise Failed(f"{name} names {len(names) - len(set(names))} files twice")
    if names != sorted(names):
        raise Failed(f"{name} is not in name order")
    if len(rows) != lines:
        raise Failed(f"{name} has {len(rows)} lines, not {lines}")
    return f"{len(rows)} lines"


def answer(folder: Path, heading: str, words: int) -> str:
    found = text(folder, find(folder, "README.md"))
    match = re.search(rf"^#+ *{re.escape(heading)}\b[^\n]*\n(.*?)(?=^#+ |\Z)", found, re.M | re.S | re.I)
    if not match:
        raise Failed(f"README.md has no heading '{heading}'")
    body = match.group(1)
    figures = len(re.findall(r"!\[|<img", body)) + len(re.findall(r"^\s*\|?[\s:|-]*-{3,}[\s:|-]*$", body, re.M))
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)|^\|.*$|<img[^>]*>", " ", body, flags=re.M)
    plain = re.sub(r"^\s*\*[^*\n]+\*\s*$", " ", plain, count=1, flags=re.M)  # the question itself, in italics
    plain = re.sub(r"\]\([^)]*\)", "]", plain)  # a link's address is no word
    count = len(re.findall(r"[\w%][^\s]*", plain))
    if count > words:
        raise Failed(f"{count} words, {count - words} too many")
    if figures > 1:
        raise Failed(f"{figures} figures and tables; one is allowed")
    if count < 10:
        raise Failed(f"only {count} words")
    return f"{count} words, {figures} figure"


def filled(folder: Path, name: str) -> str:
    name = find(folder, name)
    try:
        images = np.load(io.BytesIO(content(folder, name)), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise Failed(f"{name} is no .npy file of numbers: {error}") from error
    if not isinstance(images, np.ndarray) or images.shape != (100, 1, 64, 64):
        raise Failed(f"{name} has shape {getattr(images, 'shape', 'of an archive')}, not (100, 1, 64, 64)")
    if images.dtype.kind != "f" or not np.isfinite(images).all():
        raise Failed(f"{name} holds {images.dtype}, or values that are no numbers")
    if images.min() < 0 or images.max() > 1:
        raise Failed(f"{name} has values from {images.min():.2f} to {images.max():.2f}, outside [0, 1]")
    from utils.data import head_images, masks

    try:
        given = head_images.read(head_images.find("test_set.npy"))
    except (FileNotFoundError, ValueError) as error:
        raise Unchecked("shape and range are right; the known pixels need the course's test_set.npy") from error
    known = ~masks.find_mask(given)
    change = np.abs(images - given)[:, :, known]
    if change.max() > 1e-6:
        wrong = (change > 1e-6).any(axis=(1, 2)).sum()
        raise Failed(f"known pixels of {wrong} images were altered, by {change.max():.3f} at most")
    if (images[:, :, ~known] == 0).all(axis=(1, 2)).any():
        raise Failed("an image still has its gaps")
    return "(100, 1, 64, 64), known pixels as they were"


def report(folder: Path, name: str, parts: tuple[str, ...], words: tuple[int, int], terms: tuple[str, ...]) -> str:
    name = find(folder, name)
    found = text(folder, name)
    headings = [heading.lower() for heading in re.findall(r"^#{1,4} +(.+)$", found, re.M)]
    for part in parts:
        if not any(part in heading for heading in headings):
            raise Failed(f"{name} has no heading with '{part}'")
    for term in terms:
        if term not in re.sub(r"optimizer", "optimiser", found.lower()):
            raise Failed(f"{name} does not speak of the {term}")
    figures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", found)
    if not figures:
        raise Failed(f"{name} shows no figure")
    for figure in figures:
        address = Path(name).parent / figure
        if "://" not in figure and address.as_posix() not in listing(folder):
            raise Failed(f"{name} shows {figure}, which is not there")
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)|^\|.*$|\]\([^)]*\)", " ", found, flags=re.M)
    count = len(re.findall(r"[\w%][^\s]*", plain))
    if not words[0] <= count <= words[1]:
        raise Failed(f"{count} words; about two pages are {words[0]} to {words[1]}")
    return f"{count} words, {len(figures)} figures"


def sample_pictures(folder: Path, name: str) -> str:
    found = [n for n in listing(folder) if name in Path(n).parts[:-1] and re.search(r"\.(png|jpe?g)$", n, re.I)]
    if not found:
        raise Failed(f"there is no picture in a folder called {name}")
    for n in found:
        try:
            with Image.open(io.BytesIO(content(folder, n)), formats=("PNG", "JPEG")) as image:
                low, high = image.convert("L").getextrema()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Failed(f"{n} is no whole PNG or JPEG: {error}") from error
        if low == high:
            raise Failed(f"{n} is blank")
    return f"{len(found)} pictures"
