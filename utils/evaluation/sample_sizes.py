"""The one check that every measure makes first: are there enough images to compute it?"""

from __future__ import annotations


def require(least: int, purpose: str, **counts: int) -> None:
    """Check that there are enough images for a measure, so that no figure is ever NaN.

    Args:
        least: the smallest number that is allowed.
        purpose: what needs them, the subject of the message.
        counts: the number of images in each set, by the name of the set.

    Raises:
        ValueError: a set is smaller than `least`; names the set, its size, what is needed and why.
    """
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{count} {name.replace('_', ' ')} are too few: {purpose} needs at least {least}.")
