"""How close generated images are to real ones, and whether they are copies of training images.

Images are uint8 (N, C, H, W) in [0, 255], as they are read from their files. So the measures describe the images that
are handed in. A feature space is a module that maps these images to features float32 (N, D), where D is its attribute
`num_features`; see `feature_spaces`. Every distance depends on the number of images. Do not compare it with zero.
Compare it with the floor: the distance between real images and the same number of other real images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import dctn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from utils import config
from utils.data import image_files
from utils.evaluation import require
from utils.evaluation.feature_spaces import BATCH, features
from utils.training import devices

NEIGHBOURS = 5  # k of precision and recall (Kynkaanniemi et al. 2019 use k = 3 for 50,000 images)
TWO_SAMPLE_FOLDS = 10  # folds of the cross-validation in the two-sample test
BAND = 4  # width of a band of frequencies


def frechet_distance(space: nn.Module, real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance between two Gaussians that are fitted to the features (Heusel et al. 2017); 0 is best.

    It is biased upwards, and the bias is larger for fewer images. So 300 real images do not get 0.

    Raises:
        ValueError: there are fewer than 2 real or 2 generated images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # here, because this import is slow

    require(2, "the covariance of a Frechet distance", real_images=len(real), generated_images=len(fake))
    metric = FrechetInceptionDistance(feature=space, normalize=True)
    for images, are_real in ((real, True), (fake, False)):
        for batch in torch.from_numpy(images).split(BATCH):
            metric.update(batch, real=are_real)
    return max(0.0, float(metric.compute()))  # rounding can make it a little less than 0


def kernel_distance(space: nn.Module, real: np.ndarray, fake: np.ndarray) -> float:
    """Squared maximum mean discrepancy with a polynomial kernel (Binkowski et al. 2018), times 1000.

    It is unbiased: real images get 0 on average, for any number of images. The features are standardised first.

    Raises:
        ValueError: there are fewer than 2 real or 2 generated images.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    require(2, "the unbiased kernel distance", real_images=len(real), generated_images=len(fake))
    known = features(space, real)
    centre, scale = (torch.from_numpy(x) for x in (known.mean(0), known.std(0).clip(1e-6)))

    class Standardised(nn.Module):
        num_features = space.num_features

        def forward(self, images: Tensor) -> Tensor:
            return (space(images) - centre) / scale

    size = min(len(real), len(fake))
    with devices.seeded(0):  # the metric draws its subsets from the global random state
        metric = KernelInceptionDistance(feature=Standardised(), subsets=50, subset_size=size, normalize=True)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(fake), real=False)
        return 1000 * float(metric.compute()[0])


def precision_recall(
    space: nn.Module, real: np.ndarray, fake: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall in [0, 1] (Kynkaanniemi et al. 2019).

    Precision is the share of fakes in the manifold of the reals. Recall is the share of reals in the manifold of the
    fakes. A manifold is a union of balls around the images. The radius of each ball is the distance to the k-th
    neighbour of the same kind. The radii depend on the number of images, so the same number of each kind is used: the
    first ones.

    Raises:
        ValueError: one kind has at most `neighbours` images.
    """
    purpose = f"a manifold of {neighbours} neighbours"
    require(neighbours + 1, purpose, real_images=len(real), generated_images=len(fake))
    size = min(len(real), len(fake))
    device = devices.accelerator().device
    a, b = (torch.from_numpy(features(space, x[:size])).to(device) for x in (real, fake))
    radius_a = torch.cdist(a, a).kthvalue(neighbours + 1, dim=1).values
    radius_b = torch.cdist(b, b).kthvalue(neighbours + 1, dim=1).values
    between = torch.cdist(a, b)
    precision = (between <= radius_a[:, None]).any(0).float().mean()
    recall = (between <= radius_b[None, :]).any(1).float().mean()
    return float(precision), float(recall)


def two_sample_accuracy(
    spaces: list[nn.Module], real: np.ndarray, fake: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017): how well reals and fakes can be told apart.

    The classifier is a logistic regression on the standardised features of all spaces. It gets equal numbers of reals
    and fakes.

    Returns:
        Mean and standard error of the accuracy over 10 folds of a cross-validation. Guessing gives 0.5.

    Raises:
        ValueError: there are fewer than 10 real or 10 generated images.
    """
    purpose = f"a two-sample test of {TWO_SAMPLE_FOLDS} folds"
    require(TWO_SAMPLE_FOLDS, purpose, real_images=len(real), generated_images=len(fake))
    size = min(len(real), len(fake))
    x = np.concatenate([np.concatenate([features(s, i[:size]) for s in spaces], 1) for i in (real, fake)])
    y = np.repeat([0, 1], size)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    folds = StratifiedKFold(TWO_SAMPLE_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_score(model, x, y, cv=folds)
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


def frequency_energy(images: np.ndarray) -> np.ndarray:
    """The mean energy of a coefficient of the cosine transform, by frequency: one value for each BAND frequencies.

    A coefficient that counts u half-waves down and v half-waves across has the frequency sqrt(u ** 2 + v ** 2). Band k
    holds the frequencies from k * BAND up to, not including, (k + 1) * BAND, below the image's shorter side. Blurred
    images have too little energy at high frequencies.

    Args:
        images: uint8 (N, C, H, W).

    Raises:
        ValueError: there are no images.
    """
    require(1, "an energy", images=len(images))
    energy = (dctn(images.astype(np.float64), axes=(2, 3), norm="ortho") ** 2).mean((0, 1))
    frequency = np.hypot(*np.indices(energy.shape))
    bands = [(frequency >= low) & (frequency < low + BAND) for low in range(0, min(energy.shape), BAND)]
    return np.array([energy[band].mean() for band in bands])


def nearest(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distance to each image's nearest training image, and the index of this training image: two arrays (N,).

    The distance is the root mean square difference in grey levels, in [0, 255]. A copy has distance 0. A copy that
    was saved as JPEG has a distance of about 1.

    Raises:
        ValueError: there are no images or no training images.
    """
    require(1, "the nearest training image", images=len(images), training_images=len(training))
    device = devices.accelerator().device
    a, b = (torch.from_numpy(x).to(device).flatten(1).float() for x in (images, training))
    best = [torch.cdist(chunk, b).min(1) for chunk in a.split(500)]
    distance = torch.cat([m.values for m in best]).cpu() / a.shape[1] ** 0.5
    return distance.numpy(), torch.cat([m.indices for m in best]).cpu().numpy()


def report(spaces: dict[str, nn.Module], real: np.ndarray, fake: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """The measures of this module, by name, as one row of a table.

    Args:
        spaces: feature spaces by name.
        real: uint8 (N, 1, H, W), held-out images that `fake` is compared with.
        fake: uint8 (M, 1, H, W), the images to measure.
        training: uint8 (K, 1, H, W), the images that the model was trained on.

    Raises:
        ValueError: there are fewer than 10 real or 10 generated images, or no training images.
    """
    least = max(TWO_SAMPLE_FOLDS, NEIGHBOURS + 1)
    require(least, "a table of fidelity", real_images=len(real), generated_images=len(fake))
    row: dict[str, float] = {}
    for name, space in spaces.items():
        row[f"FD {name}"] = frechet_distance(space, real, fake)
        row[f"KD {name}"] = kernel_distance(space, real, fake)
        row[f"precision {name}"], row[f"recall {name}"] = precision_recall(space, real, fake)
    row["two-sample accuracy"], _ = two_sample_accuracy(list(spaces.values()), real, fake)
    distance, _ = nearest(fake, training)
    copies = int((distance < config.NEAR_COPY_RMS).sum())
    return row | {"nearest (grey levels)": float(np.median(distance)), "copies": copies}


def frechet_distance_hook(
    space: nn.Module, reference: np.ndarray, count: int, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    """A hook for `loop.fit`: the Frechet distance between samples and reference images in a feature space.

    Args:
        reference: uint8 (N, C, H, W).
        count: number of samples.
        seed: the seed of the samples.

    Raises:
        ValueError: there are fewer than 2 images or samples.
    """
    require(2, "a Frechet distance", validation_images=len(reference), samples=count)

    def evaluate(model: nn.Module) -> dict[str, float]:
        made = image_files.to_uint8(model.sample(count, seed))
        return {"Frechet distance (validation)": frechet_distance(space, reference, made)}

    return evaluate
