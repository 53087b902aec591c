"""Measures how good the results are. The first check of every measure is here: are there enough images?"""

from __future__ import annotations


def require(least: int, purpose: str, **counts: int) -> None:
    """Check that there are enough images for a measure, so that the result is never NaN.

    Args:
        least: the smallest allowed number.
        purpose: the measure that needs the images. It is the subject of the error message.
        counts: the number of images in each set, by the name of the set.

    Raises:
        ValueError: a set is smaller than `least`. The message gives the set, its size, the purpose and the least size.
    """
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{count} {name.replace('_', ' ')} are too few: {purpose} needs at least {least}.")
