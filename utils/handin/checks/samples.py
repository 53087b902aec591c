"""Checks of generated images. A check gets the work and the role of the images, and yields findings."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils import config
from utils.data import hand_images, likeness
from utils.handin.briefs import check
from utils.handin.inspection import Failed, Finding, Unchecked, fault, folder_of, last_part, ok, remark, some, unchecked
from utils.handin.recognise import IMAGE, Work

MOST_IMAGES = 2000  # of one kind; further ones are not opened
LARGEST_IMAGE = 20_000_000  # bytes
NO_USERNAMES = (*config.SHIPPED, "stand_in", "yourusername", "your_username", "your-username")
GENERIC = re.compile(
    r"(vae|gan|hand|hands|image|img|generated|sample|samples|fake|output|new|synthetic)*[_ -]*"
    r"(vae|gan|hand|hands|image|img|sample|samples|output)?", re.I,
)  # fmt: skip
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # Pillow raises these for damaged files

FEW_COPIES = 2  # so many may be chance: a remark, no fault
ALIKE_RMS = 6.0  # grey levels; if the median image has another one this near, the images are nearly identical
NOISE = 0.4  # correlation of pixels side by side: above 0.5 in 99 of 100 images of students, below 0.3 in noise


class Sample(NamedTuple):
    """One image file. `pixels` is None if it cannot be read."""

    name: str
    format: str
    size: tuple[int, int]  # width, height
    grey: bool  # are all channels the same?
    mode: str
    pixels: np.ndarray | None  # uint8 (H, W)
    problem: str


def wanted_count(work: Work, role: str) -> int:
    """The number of samples that the brief asks for; MOST_IMAGES if it names none."""
    counts = [x.arguments["count"] for x in work.brief.requests if x.check == "sample_count" and x.of == role]
    return counts[0] if counts else MOST_IMAGES


def group(work: Work, role: str) -> tuple[str, list[str], list[str]]:
    """The folder with the samples, their paths, and the other folders that hold samples too.

    If there are several, it is the one whose number of images is nearest to the wanted one, because only one is used.
    """
    groups, count = work.sample_groups(work.brief.files[role]), wanted_count(work, role)
    place = min(groups, key=lambda g: (abs(len(groups[g]) - count), g.count("/"), g))
    return place, groups[place], [g for g in groups if g != place]


def samples(work: Work, role: str) -> list[Sample]:
    """The samples of the chosen folder, at most MOST_IMAGES."""
    return work.kept(("samples", role), lambda: [_open(work, name) for name in group(work, role)[1][:MOST_IMAGES]])


def _open(work: Work, name: str) -> Sample:
    try:
        data = work.handin.read(name, LARGEST_IMAGE)
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "BMP", "TIFF", "GIF")) as image:
            mode, size = image.mode, image.size
            if max(size) > 4096:
                return Sample(name, str(image.format), size, True, mode, None, "")
            colours = np.asarray(image.convert("RGB") if mode not in ("L", "1") else image.convert("L"))
            grey = colours.ndim == 2 or int(np.ptp(colours.astype(np.int16), axis=2).max()) <= 8
            pixels = colours if colours.ndim == 2 else np.asarray(image.convert("L"))
            return Sample(name, str(image.format), size, grey, mode, pixels, "")
    except IMAGE_ERRORS as error:  # Failed and Unchecked are ValueErrors
        return Sample(name, "", (0, 0), True, "", None, " ".join(str(error).split()) or type(error).__name__)


@check
def sample_count(work: Work, role: str, count: int) -> Iterator[Finding]:
    """There are exactly so many images, and all can be read."""
    place, names, others = group(work, role)
    if len(names) != count:
        yield fault(f"{place} holds {len(names)} images, not {count}")
    else:
        yield ok(f"{count} in {place}")
    for sample in samples(work, role):
        if sample.problem:
            yield fault(f"{last_part(sample.name)} cannot be opened: {sample.problem[:80]}")
    for other in others:
        yield remark(f"{other} holds images too; only one of the two is used")
    further = [n for n in work.handin.names if folder_of(n) == folder_of(names[0]) and not n.lower().endswith(IMAGE)]
    if further:
        yield remark(f"{place} also holds {some([last_part(n) for n in further], 3)}")


@check
def sample_format(work: Work, role: str, format: str, width: int, height: int) -> Iterator[Finding]:
    """All images have this format and this size."""
    opened = [sample for sample in samples(work, role) if not sample.problem]
    wrong = [f"{last_part(s.name)} ({s.format})" for s in opened if s.format != format]
    if wrong:
        yield fault(f"not {format}: {some(wrong, 3)}")
    sizes = [f"{last_part(s.name)} ({s.size[0]} x {s.size[1]})" for s in opened if s.size != (width, height)]
    if sizes:
        yield fault(f"not {width} x {height}: {some(sizes, 3)}")
    if opened and not wrong and not sizes:
        yield ok(f"{format}, {width} x {height}")


@check
def sample_names(work: Work, role: str) -> Iterator[Finding]:
    """The names are `<username>_001.jpeg` or `<username>_VAE001.jpeg`. Small differences are remarks."""
    names = [last_part(name) for name in group(work, role)[1]]
    parts = [re.fullmatch(r"(.*?)[_ -]*(?:VAE|GAN)?[_ -]*(\d+)\.(\w+)", name, re.I) for name in names]
    if None in parts:
        bad = [name for name, match in zip(names, parts) if not match]
        yield fault(f"the names have no number: {some(bad, 3)}")
        return
    users = sorted({match[1] for match in parts})
    if len(users) > 1:
        yield fault(f"the names begin differently: {some(users, 3)}")
    elif users[0].lower() in NO_USERNAMES:
        yield fault(f"'{users[0]}' is not a username: {names[0]}")
    elif users[0].lower() == "username":
        yield unchecked("the username was not filled in: python -m utils rename USERNAME")
    elif GENERIC.fullmatch(users[0]):
        yield fault(f"the names have no username: {names[0]}")
    else:
        yield ok(f"{users[0]}, {names[0]} ...")
    numbers = sorted(int(match[2]) for match in parts)
    if numbers != list(range(1, len(numbers) + 1)):
        found = fault if numbers[-1] > max(len(numbers), wanted_count(work, role)) else remark
        yield found(f"the numbers go from {numbers[0]} to {numbers[-1]}, not from 1 to {len(numbers)}")
    if len({len(match[2]) for match in parts}) > 1:
        yield remark(f"the numbers have no zeros in front: {names[0]}")
    endings = sorted({match[3] for match in parts} - {"jpeg"})
    if endings:
        yield remark(f"the names end in .{', .'.join(endings)} instead of .jpeg")


@check
def sample_grey(work: Work, role: str) -> Iterator[Finding]:
    """The images are saved with one channel, like the training images."""
    opened = [sample for sample in samples(work, role) if not sample.problem]
    coloured = [last_part(sample.name) for sample in opened if not sample.grey]
    modes = sorted({sample.mode for sample in opened} - {"L"})
    if coloured:
        yield remark(f"images have colours: {some(coloured, 3)}")
    elif modes:
        yield remark(f"grey images saved in mode {', '.join(modes)} instead of L")
    elif opened:
        yield ok("mode L")


@check
def sample_new(work: Work, role: str) -> Iterator[Finding]:
    """The images differ from each other, are no noise, and are no copies of training images, changed or not."""
    opened = [s for s in samples(work, role) if s.pixels is not None]
    shapes = {s.pixels.shape for s in opened}
    if not opened or len(shapes) > 1:
        yield unchecked("the images have different sizes, so they were not compared")
        return
    names = [last_part(s.name) for s in opened]
    pixels = np.stack([s.pixels for s in opened])
    problems = list(_among_themselves(names, pixels, wanted_count(work, role)))
    yield from problems
    training = training_images()
    if training is None:
        yield unchecked("the search for copies needs the course's training images in this project's real_hands/")
        return
    if shapes != {training.shape[2:]}:
        yield unchecked("the images have another size than the training images, so copies were not searched for")
        return
    if any(finding.kind == "fault" for finding in problems):
        return
    similar = likeness.most_similar(pixels, training[:, 0])
    copies = [f"{n} ({c:.3f})" for n, c in zip(names, similar) if c > likeness.COPY]
    if len(copies) > FEW_COPIES:
        yield fault(
            f"copies of training images, perhaps mirrored, shifted or brightened (correlation): {some(copies, 3)}"
        )
    elif copies:
        yield remark(f"very similar to a training image (correlation): {some(copies, 3)}")
    else:
        yield ok(f"all different; the highest correlation with a training image is {similar.max():.3f}")


def _among_themselves(names: list[str], pixels: np.ndarray, count: int) -> Iterator[Finding]:
    """Findings about images uint8 (N, H, W) that need no training images; `count` images are wanted."""
    first: dict[bytes, str] = {}
    twice = [f"{n} = {first[p.tobytes()]}" for n, p in zip(names, pixels) if first.setdefault(p.tobytes(), n) != n]
    if twice:  # if there are too many files, that is the fault
        kind = fault if len(names) <= count else remark
        yield kind(f"the same image several times: {some(twice, 3)}")
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    blank = [n for n, low, high in zip(names, flat.min(1), flat.max(1)) if high - low < 8]
    if blank:
        yield fault(f"blank images: {some(blank, 3)}")
        if len(blank) == len(names):
            return
    if len(flat) > 20 and not twice:
        some_of_them = flat[:400]
        squares = (some_of_them**2).sum(1)
        distances = squares[:, None] + squares - 2 * some_of_them @ some_of_them.T
        np.fill_diagonal(distances, np.inf)
        typical = float(np.median(np.sqrt(np.maximum(distances.min(1), 0) / flat.shape[1])))
        if typical < ALIKE_RMS:
            yield fault(f"nearly identical images: the nearest other one is {typical:.1f} grey levels away (median)")
    left, right = pixels[:, :, :-1].reshape(len(pixels), -1), pixels[:, :, 1:].reshape(len(pixels), -1)
    smooth = likeness.correlation(left, right)
    noisy = [n for n, c in zip(names, smooth) if c < NOISE / 2 and n not in blank]
    if np.median(smooth) < NOISE:
        yield fault(f"the images look like noise: the correlation of pixels side by side is {np.median(smooth):.2f}")
    elif noisy:
        yield remark(f"images that look like noise: {some(noisy, 3)}")


@lru_cache(maxsize=1)
def training_images() -> np.ndarray | None:
    """The training images of this project, uint8 (N, 1, 32, 32), or None if the course's images are not here.

    Training images in the hand-in are not used, because they may be any images.
    """
    try:
        if hand_images.kind() != "course":
            return None
        paths = hand_images.course_images(config.PROJECT / "real_hands")
        try:
            return np.stack([_read_quickly(path) for path in paths])[:, None]
        except IMAGE_ERRORS:  # one of them is no image of the usual size
            return hand_images.read_real().images
    except ValueError:  # real_hands also holds stand-ins, or only a part of the course's images
        return None


def _read_quickly(path: Path) -> np.ndarray:
    """A training image uint8 (32, 32). Reading all 8000 one by one takes half as long as by `read_real`."""
    with Image.open(io.BytesIO(path.read_bytes()), formats=("JPEG",)) as image:
        pixels = np.asarray(image)
    if pixels.shape != (32, 32):
        raise ValueError(f"{path.name} has shape {pixels.shape}")
    return pixels


@check
def sample_pictures(work: Work, role: str) -> Iterator[Finding]:
    """There are pictures of samples, and none of them is blank."""
    wanted = work.brief.files[role].names
    every = [n for n in work.handin.names if n.lower().endswith(IMAGE)]
    found = [n for n in every if any(p.lower() in wanted for p in n.split("/")[:-1])] or [
        n for n in every if re.search(r"sampl|generat|recon|grid|fake", n, re.I)
    ]
    if not found:
        yield fault("there are no pictures of samples")
        return
    opened = [_open(work, name) for name in found[:MOST_IMAGES]]
    for sample in opened:
        if sample.problem:
            yield fault(f"{last_part(sample.name)} cannot be opened: {sample.problem[:80]}")
        elif sample.pixels is not None and np.ptp(sample.pixels) == 0:
            yield fault(f"{last_part(sample.name)} is blank")
    yield ok(f"{len(found)} pictures")


@check
def own_work(work: Work, role: str) -> Iterator[Finding]:
    """The file is not one of those that this project ships."""
    if work.brief.files[role].kind == "images":
        names = group(work, role)[1]
    else:
        names = [work.taken[role]]
    shipped = _shipped()
    try:
        same = [n for n in names[:MOST_IMAGES] if _digest(work.handin.read(n)) in shipped]
    except (Failed, Unchecked):
        return
    if same and work.handin.path.resolve() != config.PROJECT:
        yield remark(
            f"the same file as in the project that holds this checker: {some([last_part(n) for n in same], 3)}"
        )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


@lru_cache(maxsize=1)
def _shipped() -> frozenset[bytes]:
    """Digests of the results that this project ships."""
    patterns = ("*_classified_hands.csv", "brain_mri/test_set_nogaps.npy", "[GV]A[NE]_hands/*_[0-9][0-9][0-9].jpeg")
    return frozenset(_digest(path.read_bytes()) for pattern in patterns for path in config.PROJECT.glob(pattern))
