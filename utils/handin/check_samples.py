"""Checks of generated images: the 300 hands, and the final assignment's sample grids.

A check returns what it found. It raises `Failed` if the requirement is not met, and `Unchecked` if it cannot decide.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from utils import config
from utils.data import hand_images
from utils.handin.inspection import Failed, Unchecked, content, listing

SIZE = (32, 32)
SAMPLES = 300
NO_USERNAMES = (*config.SHIPPED, "stand_in")  # the names of samples of `python -m utils sample`, and of stand-ins
CHUNK = 100  # number of samples that are compared with all training images at the same time
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # Pillow raises these for damaged files


def samples(folder: Path, folders: tuple[str, ...]) -> str:
    """Each sample folder in the hand-in holds the 300 required JPEGs, and nothing else."""
    found = _sample_folders(folder, folders)
    for name in found:
        _read_samples(folder, name)
    return f"{SAMPLES} in {' and in '.join(found)}"


def new_samples(folder: Path, folders: tuple[str, ...]) -> str:
    """All samples are different from each other and from the training images."""
    found = {name: _read_samples(folder, name) for name in _sample_folders(folder, folders)}
    for name, (names, pixels) in found.items():
        first: dict[bytes, str] = {}
        for n, image in zip(names, pixels):
            if first.setdefault(image.tobytes(), n) != n:
                raise Failed(f"{name}: {n} has the same pixels as {first[image.tobytes()]}")
    training = training_images()
    if training is None:
        raise Unchecked("all samples are different; the search for copies needs the training images in real_hands/")
    closest = np.inf
    for name, (names, pixels) in found.items():
        distance = nearest(pixels[:, None], training)
        closest = min(closest, distance.min())
        if distance.min() < config.NEAR_COPY_RMS:
            raise Failed(f"{name}/{names[distance.argmin()]} is a copy of a training image")
    return f"all different; the closest sample is {closest:.1f} grey levels from a training image"


def sample_pictures(folder: Path, name: str) -> str:
    """There are pictures in a folder with this name, and none of them is blank."""
    found = [n for n in listing(folder) if name in Path(n).parts[:-1] and re.search(r"\.(png|jpe?g)$", n, re.I)]
    if not found:
        raise Failed(f"there are no pictures in a folder called {name}")
    for n in found:
        try:
            with Image.open(io.BytesIO(content(folder, n)), formats=("PNG", "JPEG")) as image:
                low, high = image.convert("L").getextrema()
        except IMAGE_ERRORS as error:
            raise Failed(f"{n} is not a complete PNG or JPEG: {error}") from error
        if low == high:
            raise Failed(f"{n} is blank")
    return f"{len(found)} pictures"


def nearest(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The distance of each image uint8 (N, 1, H, W) to its nearest training image uint8 (M, 1, H, W).

    Returns:
        Root mean square differences (N,) in grey levels, in [0, 255].
    """
    references = training.reshape(len(training), -1).astype(np.float32)
    squares = (references**2).sum(1)
    distances = []
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].reshape(-1, references.shape[1]).astype(np.float32)
        # |a - b|^2 = |a|^2 - 2ab + |b|^2, and |a|^2 is the same for all b. This is exact enough to find the nearest
        # image, but not for its distance, so the distance is computed directly.
        index = (squares - 2 * chunk @ references.T).argmin(1)
        distances.append(np.sqrt(((chunk - references[index]) ** 2).mean(1)))
    return np.concatenate(distances)


@lru_cache(maxsize=1)
def training_images() -> np.ndarray | None:
    """The training images of this project, uint8 (N, 1, 32, 32), or None if the course's images are not here.

    Training images in the hand-in are not used, because they may be any images.
    """
    try:
        return hand_images.read_real().images if hand_images.kind() == "course" else None
    except ValueError:  # real_hands also holds stand-ins, or only a part of the course's images
        return None


def _sample_folders(folder: Path, folders: tuple[str, ...]) -> list[str]:
    """The names of the folders that hold anything besides the course's own images."""
    own = {name.rpartition("/")[0] for name in listing(folder) if not re.search(r"/(VAE|GAN)_hand_\d+\.", name)}
    found = [name for name in folders if name in own]
    if not found:
        raise Failed(f"there are no images in {' or '.join(folders)}")
    return found


def _read_samples(folder: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Names and pixels uint8 (N, H, W) of a folder's samples.

    Raises:
        Failed: the number, names, size or format of the images are wrong.
    """
    names = _sample_names(folder, name)
    pixels = []
    for n in names:
        try:
            with Image.open(io.BytesIO(content(folder, f"{name}/{n}")), formats=("JPEG",)) as image:
                if image.size != SIZE or image.mode != "L":
                    raise Failed(f"{name}/{n} is {image.width} x {image.height}, mode {image.mode}; needed: 32 x 32, L")
                pixels.append(np.asarray(image))
        except IMAGE_ERRORS as error:
            raise Failed(f"{name}/{n} is not a complete JPEG: {error}") from error
    return names, np.stack(pixels)


def _sample_names(folder: Path, name: str) -> list[str]:
    """The names of a folder's samples, sorted; see `_read_samples`."""
    names = [n.removeprefix(f"{name}/") for n in listing(folder) if n.rpartition("/")[0] == name]
    names = [n for n in names if not re.match(r"(VAE|GAN)_hand_", n)]  # the course's own images may stay
    matches = [match for n in names if (match := re.fullmatch(r"(.+?)_?(?:VAE|GAN)?(\d{3})\.(?i:jpe?g)", n))]
    if len(matches) != SAMPLES:
        raise Failed(f"{name} holds {len(matches)} images named <username>_001.jpeg ..., not {SAMPLES}")
    ours = sorted(match.group(0) for match in matches)
    others = [n for n in names if n not in ours]
    if others:
        raise Failed(f"{name} also holds something else: {others[0]}")
    users = sorted({match.group(1) for match in matches})
    if len(users) > 1:
        raise Failed(f"{name} holds images with different usernames: {', '.join(users[:3])}")
    if users[0] in NO_USERNAMES:
        raise Failed(f"{name} holds images named {users[0]}_001.jpeg ...: '{users[0]}' is not a username")
    missing = sorted(set(range(1, SAMPLES + 1)) - {int(match.group(2)) for match in matches})
    if missing:
        raise Failed(f"{name} has no image with the number {missing[0]:03d}")
    return ours
