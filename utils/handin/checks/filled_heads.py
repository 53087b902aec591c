"""Checks of the filled head images (NumPy). A check gets the work and the role of the array, and yields findings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from utils.data import head_images, likeness
from utils.handin.briefs import check
from utils.handin.inspection import Failed, Finding, Unchecked, fault, last_part, ok, remark, some, unchecked
from utils.handin.recognise import Work

SAME_IMAGE = 0.8  # median correlation of the known pixels; below, the images do not show the test images
OTHER_PLACE = 0.02  # a better correlation with another test image by at least this much means a wrong place
FEW_DIFFERENT = 20  # if all images are most like fewer test images than this, they are all nearly the same
OVERSHOOT = 1e-3  # values outside [0, 1] by at most this much are not mentioned
KNOWN = 1e-6  # a larger change of a known pixel is mentioned
AGREES = 0.3  # correlation of filled pixels with those beside the gap; below, they look like noise
CONSTANT = 1e-4  # standard deviation of the filled pixels of an image; below, they are one constant


class Heads:
    """The filled images beside the test set.

    Attributes:
        images: (100, 64, 64) float64, or None if the shape or the type is wrong.
        shape, dtype: as stored.
        given: the test set (100, 64, 64), or None if it is not known.
        missing: its gaps, bool (64, 64).
        similar: correlation (100, 100) of the known pixels of each image with those of each test image.
        slope, offset: the images are about `slope * test image + offset` at the known pixels.
    """

    def __init__(self, work: Work, role: str):
        name = work.taken[role]
        stored = head_images.load_array(work.handin.read(name), last_part(name))
        self.shape, self.dtype = stored.shape, stored.dtype
        self.images = self.given = self.missing = self.similar = None
        self.slope, self.offset = 1.0, 0.0
        squeezed = {(100, 1, 64, 64): (100, 64, 64), (100, 64, 64, 1): (100, 64, 64)}.get(stored.shape, stored.shape)
        if squeezed != (100, 64, 64) or stored.dtype.kind not in "fiu":
            return
        self.images = stored.reshape(squeezed).astype(np.float64)
        self.given = course_test_set(work)
        if self.given is None or not np.isfinite(self.images).all():
            return
        self.missing = (self.given == 0).all(axis=0)
        ours, theirs = self.images[:, ~self.missing], self.given[:, ~self.missing]
        self.similar = likeness.standardised(ours) @ likeness.standardised(theirs).T
        place = self.similar.argmax(1)
        self.slope = float(ours.std() / theirs[place].std())  # a regression would be lower for blurred images
        self.offset = float(ours.mean() - self.slope * theirs[place].mean())

    @property
    def shows_them(self) -> bool:
        """Do the images show the test images at all, in any order and scale?"""
        return self.similar is not None and float(np.median(self.similar.max(1))) > SAME_IMAGE

    @property
    def right_scale(self) -> bool:
        """Are the values on the scale of the test set?"""
        return 0.7 < self.slope < 1.4 and abs(self.offset) < 0.15

    @property
    def all_alike(self) -> bool:
        """Do all images show the same few test images best?"""
        return len(set(self.similar.argmax(1).tolist())) < FEW_DIFFERENT

    def misplaced(self) -> list[tuple[int, int]]:
        """The images that show another test image than their own, with its number."""
        best, own = self.similar.argmax(1), np.diag(self.similar)
        return [(i, int(b)) for i, b in enumerate(best) if b != i and self.similar[i, b] > own[i] + OTHER_PLACE]

    def beside(self) -> np.ndarray:
        """The gaps (100, G), filled linearly along the rows from the known pixels of the images."""
        filled, columns = np.zeros_like(self.images), np.arange(self.images.shape[2])
        for row, gaps in enumerate(self.missing):
            known = columns[~gaps]
            if len(known):
                filled[:, row] = [np.interp(columns, known, image[row, known]) for image in self.images]
        return filled[:, self.missing]


def course_test_set(work: Work) -> np.ndarray | None:
    """The course's test set (100, 64, 64): this project's copy, or the one in the hand-in. None if there is neither."""
    try:
        found = [head_images.find("test_set.npy").read_bytes()]
    except (OSError, ValueError):
        found = []
    others = [name for name in work.handin.names if last_part(name).lower() == "test_set.npy"]
    for name in [] if found else others:
        try:
            found.append(work.handin.read(name))
        except (Failed, Unchecked):
            continue
    for content in found:
        try:
            given = head_images.load_array(content, "test_set.npy")
        except ValueError:
            continue
        if given.size == 100 * 64 * 64 and given.dtype.kind == "f":
            given = given.reshape(100, 64, 64).astype(np.float64)
            if 0.2 < (given == 0).all(axis=0).mean() < 0.8:
                return given
    return None


def heads(work: Work, role: str) -> Heads:
    """The array with this role."""
    return work.kept(("heads", role), lambda: Heads(work, role))


def _comparable(work: Work, role: str, shown: bool = True) -> Heads:
    """The array, if its values can be compared with the test set.

    Args:
        shown: must the images show the test images?

    Raises:
        Unchecked: they cannot be compared. The message says why.
    """
    found = heads(work, role)
    if found.images is None:
        raise Unchecked("the array has another shape or type, see above")
    if not np.isfinite(found.images).all():
        raise Unchecked("the array holds values that are no numbers, see above")
    if found.given is None:
        raise Unchecked("this needs the course's test_set.npy in brain_mri/ of this project")
    if shown and not found.shows_them:
        raise Unchecked("the images do not show the test images, see above")
    return found


@check
def array_shape(work: Work, role: str) -> Iterator[Finding]:
    """There are 100 images of 64 x 64 numbers."""
    found = heads(work, role)
    if found.images is None:
        yield fault(f"shape {found.shape} of {found.dtype}; (100, 64, 64) or (100, 1, 64, 64) of floats is needed")
        return
    yield ok(f"{found.shape}, {found.dtype}")
    if found.shape == (100, 64, 64, 1):
        yield remark("the channel comes last, unlike in test_set.npy")


@check
def array_numbers(work: Work, role: str) -> Iterator[Finding]:
    """All values are numbers, not NaN or infinity."""
    found = heads(work, role)
    if found.images is None:
        yield unchecked("the array has another shape or type, see above")
        return
    wrong = ~np.isfinite(found.images)
    if wrong.any():
        numbers = np.flatnonzero(wrong.any(axis=(1, 2)))
        yield fault(f"{wrong.sum()} values are NaN or infinity, in images {some(numbers.tolist())}")
    else:
        yield ok(f"from {found.images.min():.3f} to {found.images.max():.3f}")


@check
def array_order(work: Work, role: str) -> Iterator[Finding]:
    """Each image shows the test image at its place. The known pixels prove it."""
    found = _comparable(work, role, shown=False)
    if not found.shows_them:
        yield fault(_what_else(found))
        return
    wrong = found.misplaced()
    if found.all_alike:
        yield fault("the images hardly differ from each other, so they are no answers to 100 different images")
    elif wrong:
        pairs = [f"image {i} shows test image {b}" for i, b in wrong]
        yield fault(f"{len(wrong)} of 100 images are at another place: {some(pairs, 3)} (counted from 0)")
    else:
        yield ok(f"the known pixels agree: correlation at least {np.diag(found.similar).min():.2f}")


def _what_else(found: Heads) -> str:
    """What the images are, if they are not the test images."""
    changes = {
        "mirrored from left to right": found.images[:, :, ::-1], "upside down": found.images[:, ::-1],
        "turned by 180 degrees": found.images[:, ::-1, ::-1],
        "with rows and columns swapped": found.images.swapaxes(1, 2),
    }  # fmt: skip
    theirs = likeness.standardised(found.given[:, ~found.missing])
    for change, images in changes.items():
        if np.median((likeness.standardised(images[:, ~found.missing]) * theirs).sum(1)) > SAME_IMAGE:
            return f"the images are {change}"
    typical = float(np.median(np.diag(found.similar)))
    return f"the images do not show the test images: the known pixels' correlation is {typical:.2f}"


@check
def array_scale(work: Work, role: str) -> Iterator[Finding]:
    """The values are on the scale of the test set, [0, 1]. A small overshoot is a remark."""
    found = heads(work, role)
    low, high = (0.0, 1.0) if found.images is None else (np.nanmin(found.images), np.nanmax(found.images))
    try:
        _comparable(work, role)
    except Unchecked:
        if found.images is None or not (high > 2 or low < -0.5 or high - low < 1e-3):
            raise
        yield fault(f"values from {low:.2f} to {high:.2f}, but test_set.npy is in [0, 1]")
        return
    if not found.right_scale:
        yield fault(
            f"values from {low:.2f} to {high:.2f}; at the known pixels they are about {found.slope:.2f} times the test "
            f"set's {'+' if found.offset >= 0 else '-'} {abs(found.offset):.2f}: map them back to [0, 1]"
        )
        return
    outside = (found.images < -OVERSHOOT) | (found.images > 1 + OVERSHOOT)
    if outside.any():
        yield remark(f"{outside.mean():.1%} of the values are outside [0, 1], from {low:.2f} to {high:.2f}")
    else:
        yield ok("in [0, 1]")


@check
def array_filled(work: Work, role: str) -> Iterator[Finding]:
    """The gaps are filled: not left empty, not one constant, and not noise."""
    found = _comparable(work, role)
    inside, beside = found.images[:, found.missing], found.beside()
    constant = inside.std(axis=1) < CONSTANT * max(abs(found.slope), 1e-6)
    empty = constant & (np.abs(inside).max(axis=1) == 0)
    if empty.any():
        yield fault(f"{empty.sum()} images still have their gaps: {some(np.flatnonzero(empty).tolist())}")
    if (constant & ~empty).any():
        numbers = np.flatnonzero(constant & ~empty).tolist()
        yield fault(f"the gaps of {len(numbers)} images hold one constant: {some(numbers)}")
    if constant.all():
        return
    bright = beside > found.offset + 0.15 * found.slope
    left = np.array([(row[near] == 0).mean() if near.any() else 0 for row, near in zip(inside, bright)])
    partly = np.flatnonzero((left > 0.1) & ~constant).tolist()
    if partly:
        yield fault(f"{len(partly)} images still have a part of their gaps: {some(partly)}")
    agreement = (likeness.standardised(inside) * likeness.standardised(beside)).sum(1)[~constant]
    if np.median(agreement) < AGREES:
        yield remark(f"the filled pixels hardly agree with those beside them (correlation {np.median(agreement):.2f})")
    elif agreement.min() > 0.9999:
        yield remark("the gaps are filled by drawing lines along the rows: is this a network's answer?")
    else:
        yield ok(f"correlation with the pixels beside the gaps: {np.median(agreement):.2f}")


@check
def array_known(work: Work, role: str) -> Iterator[Finding]:
    """The known pixels are the test set's."""
    found = _comparable(work, role)
    if not found.right_scale or found.misplaced():
        yield unchecked("another scale or order changes them all, see above")
        return
    change = np.abs(found.images - found.given)[:, ~found.missing]
    changed = (change > KNOWN).any(axis=1).sum()
    if changed:
        yield remark(f"known pixels of {changed} images were changed, by {change.mean():.3f} on average")
    else:
        yield ok("unchanged")
