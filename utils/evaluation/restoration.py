"""Measures of filled images: error on the missing pixels, structure, and traces of the stripes.

Confidence intervals are here too, and the classical methods that the network is compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.interpolate import griddata
from scipy.spatial import QhullError
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from utils.data import masks
from utils.evaluation import require

STRIPE_FREQUENCY = 16  # of the test images' mask, in cycles per row of 64 pixels
BOOTSTRAP_SAMPLES = 2000  # of a confidence interval
SSIM_WINDOW = 11  # width in pixels of the window of structural similarity


def psnr(filled: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (N,) in dB of each image on its missing pixels, at most 120 dB.

    Args:
        filled, truth: (N, 1, H, W) in [0, 1].
        missing: bool, can be broadcast to their shape.

    Raises:
        ValueError: there are no images, an image has no missing pixels, or a value is not finite. The message names
            the image.
    """
    require(1, "a PSNR", images=len(truth))
    missing = np.broadcast_to(missing, truth.shape)
    counts = missing.sum(axis=(1, 2, 3))
    if not counts.all():
        raise ValueError(f"image {np.argmin(counts)} has no missing pixel to compute the PSNR on")
    squares = np.where(missing, (filled.astype(float) - truth) ** 2, 0).sum(axis=(1, 2, 3))
    if not np.isfinite(squares).all():
        raise ValueError(f"image {np.argmin(np.isfinite(squares))} has missing pixels that are now NaN or infinite")
    return -10 * np.log10(squares / counts + 1e-12)


def ssim(filled: np.ndarray, truth: np.ndarray, missing: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity (N,) of images (N, 1, H, W) in [0, 1] (Wang et al. 2004; scikit-image).

    Args:
        missing: bool (H, W). With it, the mean is over these pixels, otherwise over the whole image.

    Raises:
        ValueError: there are no images, or they are smaller than 11 x 11 pixels.
    """
    require(1, "a structural similarity", images=len(truth))
    require(SSIM_WINDOW, "the window of structural similarity", pixels_on_the_shorter_side=min(truth.shape[2:]))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # as in the paper
    found = [structural_similarity(a[0], b[0], data_range=1.0, full=True, **window) for a, b in zip(filled, truth)]
    return np.array([whole if missing is None else map_[missing].mean() for whole, map_ in found])


def bootstrap_interval(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """95 % confidence interval of the mean of values (N,), by the bootstrap (Efron 1979).

    Args:
        groups: int (N,). Whole groups are drawn, because the values in a group depend on each other. Without groups,
            single values are drawn.

    Returns:
        The lower and the upper limit.

    Raises:
        ValueError: there are fewer than 2 values or groups.
    """
    groups = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    require(2, "a confidence interval", values_or_groups=len(sums))
    drawn = np.random.default_rng(0).integers(len(sums), size=(BOOTSTRAP_SAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def row_spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power (W // 2 + 1,) of the rows of images (N, 1, H, W) at each horizontal frequency, in cycles per row.

    Raises:
        ValueError: there are no images.
    """
    require(1, "a spectrum", images=len(images))
    rows = images - images.mean(axis=3, keepdims=True)
    return (np.abs(np.fft.rfft(rows, axis=3)) ** 2).mean(axis=(0, 1, 2))


def stripe_energy(filled: np.ndarray, truth: np.ndarray) -> float:
    """Power of filled images (N, 1, H, W) at the stripes' frequency over that of the complete images. 1 is ideal."""
    return float(row_spectrum(filled)[STRIPE_FREQUENCY] / row_spectrum(truth)[STRIPE_FREQUENCY])


def stripe_contrast(images: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """How much rougher each image is in the missing stripes than in the known stripes: a ratio (N,).

    The roughness is the mean absolute difference between vertical neighbours. Both pixels of a pair are missing, or
    both are known. Complete heads have a ratio of a little less than 1.

    Args:
        images: (N, 1, H, W).
        missing: bool (H, W).

    Raises:
        ValueError: the mask has no such pairs, or the known pixels of an image all have the same value.
    """
    step = np.abs(np.diff(images, axis=2))[:, 0]
    inside = missing[1:] & missing[:-1]
    outside = ~missing[1:] & ~missing[:-1]
    purpose = "the roughness of stripes"
    require(1, purpose, missing_vertical_neighbours=inside.sum(), known_vertical_neighbours=outside.sum())
    known = step[:, outside].mean(1)
    if not known.all():
        raise ValueError(f"image {np.argmin(known)} is constant in its known pixels, so the stripes cannot be compared")
    return step[:, inside].mean(1) / known


def fill_cubic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill images by piecewise cubic interpolation between the known pixels (Clough-Tocher, from SciPy).

    The interpolation is not defined outside the convex hull of the known pixels. The nearest known pixel is used there.

    Args:
        images: float (N, 1, H, W) in [0, 1]. The missing pixels may have any value.
        known: bool (N, 1, H, W).

    Raises:
        ValueError: the known pixels of an image lie on one line, or there are fewer than 4.
    """
    filled = images.copy()
    for number, (image, is_known) in enumerate(zip(filled[:, 0], known[:, 0])):
        have, want = np.argwhere(is_known), np.argwhere(~is_known)
        require(4, f"cubic interpolation of image {number}", known_pixels=len(have))
        try:
            values = griddata(have, image[is_known], want, method="cubic")
        except QhullError as error:
            raise ValueError(f"image {number}: all known pixels lie on one line, so there are no triangles") from error
        nearest = griddata(have, image[is_known], want, method="nearest")
        image[~is_known] = np.where(np.isnan(values), nearest, values).clip(0, 1)
    return filled


def fill_biharmonic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill images by biharmonic inpainting (Damelin & Hoang 2018; scikit-image). The arguments are as in `fill_cubic`.

    Raises:
        ValueError: an image has no known pixels.
    """
    for number, is_known in enumerate(known):
        require(1, f"inpainting of image {number}", known_pixels=is_known.sum())
    filled = [inpaint_biharmonic(image, ~is_known) for image, is_known in zip(images[:, 0], known[:, 0])]
    return np.where(known, images, np.stack(filled)[:, None].clip(0, 1)).astype(images.dtype)


def _for_tensors(fill: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Tensor, Tensor], Tensor]:
    """The same method, with tensors instead of arrays."""
    return lambda images, known: torch.from_numpy(fill(images.numpy(), known.numpy()))


CLASSICAL = {  # each takes images (N, 1, H, W) in [0, 1] and bool (N, 1, H, W), true at known pixels; all are tensors
    "row-wise linear": masks.fill_rows,
    "cubic (SciPy)": _for_tensors(fill_cubic),
    "biharmonic (scikit-image)": _for_tensors(fill_biharmonic),
}
