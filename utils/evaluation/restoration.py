"""How good filled images are: error on the missing pixels, structure, traces of the stripes, honest uncertainty."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import griddata
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic


def psnr(filled: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (N,) in dB of each image on its missing pixels.

    Args:
        filled, truth: (N, 1, H, W) in [0, 1].
        missing: bool, broadcast to their shape; some in every image.
    """
    missing = np.broadcast_to(missing, truth.shape)
    squares = np.where(missing, (filled.astype(float) - truth) ** 2, 0).sum(axis=(1, 2, 3))
    return -10 * np.log10(squares / missing.sum(axis=(1, 2, 3)) + 1e-12)


def ssim(filled: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity (N,) of whole images (N, 1, H, W) in [0, 1] (Wang et al. 2004; scikit-image)."""
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # as in the paper
    return np.array([structural_similarity(a[0], b[0], data_range=1.0, **window) for a, b in zip(filled, truth)])


def interval(values: np.ndarray, groups: np.ndarray | None = None, draws: int = 2000) -> tuple[float, float]:
    """95 % confidence interval of the mean, by bootstrap over groups (Efron 1979); without groups, over values."""
    groups = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    drawn = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power (W // 2 + 1,) of the images' rows at each horizontal frequency, in cycles a row; (N, 1, H, W)."""
    rows = images - images.mean(axis=3, keepdims=True)
    return (np.abs(np.fft.rfft(rows, axis=3)) ** 2).mean(axis=(0, 1, 2))


def stripe_contrast(images: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """How much rougher (N,) images are inside the missing stripes than inside the known ones: the ratio of the mean
    absolute step between vertical neighbours, both in a stripe. 1: the stripes have left no trace."""
    step = np.abs(np.diff(images, axis=2))
    inside = missing[1:] & missing[:-1]
    outside = ~missing[1:] & ~missing[:-1]
    return step[:, 0, inside].mean(1) / step[:, 0, outside].mean(1)


def fill_cubic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Piecewise cubic interpolation between scattered known pixels (SciPy's Clough-Tocher triangles); where that
    is undefined, outside their hull, the nearest one. Images float (N, 1, H, W), known bool (N, 1, H, W)."""
    filled = images.copy()
    for image, is_known in zip(filled[:, 0], known[:, 0]):
        have, want = np.argwhere(is_known), np.argwhere(~is_known)
        values = griddata(have, image[is_known], want, method="cubic")
        nearest = griddata(have, image[is_known], want, method="nearest")
        image[~is_known] = np.where(np.isnan(values), nearest, values).clip(0, 1)
    return filled


def fill_biharmonic(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """scikit-image's biharmonic inpainting (Damelin & Hoang 2018); arguments as of `fill_cubic`."""
    filled = [inpaint_biharmonic(image, ~is_known) for image, is_known in zip(images[:, 0], known[:, 0])]
    return np.where(known, images, np.stack(filled)[:, None].clip(0, 1)).astype(images.dtype)
