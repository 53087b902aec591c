"""How close generated images are to real ones, and whether they were memorised.

Nothing is downloaded: the features are fixed functions of the pixels. Images are uint8
(N, 1, H, W) in [0, 255] throughout, as read back from the JPEGs, so what is measured is what is
handed in. Every distance depends on the number of images; compare it with `floor`'s, not with zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from utils import config
from utils.data import image_files
from utils.data.image_files import to_float

COMPONENTS = 64  # principal components of the pixels: 97 % of the variance of the hands
BATCH = 100  # images whose features are computed at a time: more of them no longer fit into a processor's caches
NEIGHBOURS = 5  # k of precision and recall (Kynkaanniemi et al. 2019 use 3 on 50,000 images)


class PixelComponents(nn.Module):
    """Leading principal components of the pixels: sees pose, shape and exposure, not texture.

    Args:
        reference: uint8 (N, 1, H, W), real images that the axes are fitted to.
        components: number of axes.
    """

    def __init__(self, reference: np.ndarray, components: int = COMPONENTS):
        super().__init__()
        flat = to_float(reference).flatten(1).double()
        self.register_buffer("mean", flat.mean(0))
        _, _, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.register_buffer("axes", axes[:components].T.contiguous())
        self.num_features = self.axes.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 1, H, W) to float32 (N, components), in units of pixels in [-1, 1]."""
        flat = images.flatten(1).double() / 127.5 - 1
        return ((flat - self.mean) @ self.axes).float()


class Texture(nn.Module):
    """Energy of fine detail, in place: oriented band-pass filters, rectified, pooled on a grid.

    First-order scattering coefficients (Bruna & Mallat 2013) from Gabor filters: 3 wavelengths x 4
    orientations, their modulus averaged over a 4 x 4 grid. Blur, checkerboards and noise move them;
    a shift by a pixel hardly does.
    """

    WAVELENGTHS = (2.5, 4.0, 6.5)  # pixels
    ORIENTATIONS = 4
    GRID = 4

    def __init__(self):
        super().__init__()
        radius = torch.arange(-5.0, 6.0)
        y, x = torch.meshgrid(radius, radius, indexing="ij")
        filters = []
        for wavelength in self.WAVELENGTHS:
            for k in range(self.ORIENTATIONS):
                angle = torch.tensor(k * torch.pi / self.ORIENTATIONS)
                phase = 2 * torch.pi * (x * torch.cos(angle) + y * torch.sin(angle)) / wavelength
                window = torch.exp(-(x**2 + y**2) / (0.5 * wavelength**2))
                for wave in (torch.cos(phase), torch.sin(phase)):
                    wave = wave * window
                    wave = wave - window * wave.sum() / window.sum()  # blind to brightness
                    filters.append(wave / wave.norm())
        self.register_buffer("filters", torch.stack(filters)[:, None])
        self.num_features = len(filters) // 2 * self.GRID**2

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 1, H, W) to float32 (N, 192): log energies."""
        padded = F.pad(images.float() / 127.5 - 1, (5, 5, 5, 5), mode="reflect")
        responses = F.conv2d(padded, self.filters)
        modulus = (responses[:, 0::2] ** 2 + responses[:, 1::2] ** 2 + 1e-8).sqrt()
        return torch.log(F.adaptive_avg_pool2d(modulus, self.GRID) + 1e-2).flatten(1)


def features(space: nn.Module, images: np.ndarray) -> np.ndarray:
    """Features float32 (N, D) of uint8 images (N, 1, H, W) in a feature space."""
    with torch.no_grad():
        return torch.cat([space(batch) for batch in torch.from_numpy(images).split(BATCH)]).numpy()


def frechet_distance(space: nn.Module, real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to the features (Heusel et al. 2017); 0 is best.

    Biased upwards by the number of images: 300 real images do not score 0.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds, because it looks for torchvision

    metric = FrechetInceptionDistance(feature=space, normalize=True)
    for images, are_real in ((real, True), (fake, False)):
        for batch in torch.from_numpy(images).split(BATCH):
            metric.update(batch, real=are_real)
    return float(metric.compute())


def times_floor(spaces: list[nn.Module], real: np.ndarray, fake: np.ndarray, floor: np.ndarray) -> float:
    """One figure to tune by: the Frechet distance of `fake`, divided by that of as many other real
    images (`floor`); the geometric mean over the feature spaces, so that halving the distance counts
    the same in each. 1 is as near as real images come."""
    ratios = [frechet_distance(s, real, fake) / frechet_distance(s, real, floor[: len(fake)]) for s in spaces]
    return float(np.exp(np.mean(np.log(ratios))))


def kernel_distance(space: nn.Module, real: np.ndarray, fake: np.ndarray, subsets: int = 50) -> float:
    """Squared maximum mean discrepancy, polynomial kernel (Binkowski et al. 2018), unbiased: real
    images score 0 on average whatever their number. Features are standardised first. Times 1000."""
    from torchmetrics.image.kid import KernelInceptionDistance

    known = features(space, real)
    centre, scale = (torch.from_numpy(x) for x in (known.mean(0), known.std(0).clip(1e-6)))

    class Scaled(nn.Module):
        num_features = space.num_features

        def forward(self, images: Tensor) -> Tensor:
            return (space(images) - centre) / scale

    size = min(len(real), len(fake))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the metric draws its subsets from the global random state
        metric = KernelInceptionDistance(feature=Scaled(), subsets=subsets, subset_size=size, normalize=True)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(fake), real=False)
        return 1000 * float(metric.compute()[0])


def precision_recall(
    space: nn.Module, real: np.ndarray, fake: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Share of fakes inside the reals' manifold, and of reals inside the fakes' (in [0, 1]).

    A manifold is the union of balls that reach to each image's k-th neighbour of its own kind
    (Kynkaanniemi et al. 2019). As many reals as fakes are used, so that both radii compare.
    """
    a, b = (torch.from_numpy(features(space, x)) for x in (real[: len(fake)], fake))
    radius_a = torch.cdist(a, a).kthvalue(neighbours + 1, dim=1).values
    radius_b = torch.cdist(b, b).kthvalue(neighbours + 1, dim=1).values
    between = torch.cdist(a, b)
    precision = (between <= radius_a[:, None]).any(0).float().mean()
    recall = (between <= radius_b[None, :]).any(1).float().mean()
    return float(precision), float(recall)


def two_sample_accuracy(
    spaces: list[nn.Module], real: np.ndarray, fake: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017): cross-validated accuracy of telling
    real from fake, mean and standard error over 10 folds; 0.5 is indistinguishable.

    A logistic regression on the standardised features of all spaces; as many reals as fakes.
    """
    size = min(len(real), len(fake))
    x = np.concatenate([np.concatenate([features(s, i[:size]) for s in spaces], 1) for i in (real, fake)])
    y = np.repeat([0, 1], size)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    scores = cross_val_score(model, x, y, cv=StratifiedKFold(10, shuffle=True, random_state=seed))
    return float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))


def nearest(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to, and index of, each image's nearest training image: two arrays (N,).

    The distance is the root mean square difference in grey levels, in [0, 255]; a copy has 0, and
    a copy saved as JPEG about 1.
    """
    a, b = (torch.from_numpy(x).flatten(1).float() for x in (images, training))
    best = [torch.cdist(chunk, b).min(1) for chunk in a.split(500)]
    distance = torch.cat([m.values for m in best]) / a.shape[1] ** 0.5
    return distance.numpy(), torch.cat([m.indices for m in best]).numpy()


def memorised(images: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Are samples nearer to the training images than unseen real images are?

    Returns:
        `nearest`: median distance to the nearest training image, in grey levels; `nearest_held_out`:
        the same for real images never trained on; `copies`: how many samples are nearer than
        `config.NEAR_COPY_RMS` grey levels.
    """
    own, _ = nearest(images, training)
    others, _ = nearest(held_out, training)
    return {
        "nearest": float(np.median(own)),
        "nearest_held_out": float(np.median(others)),
        "copies": int((own < config.NEAR_COPY_RMS).sum()),
    }


def report(spaces: dict[str, nn.Module], real: np.ndarray, fake: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """One row of a fidelity table: every measure of this module, by name.

    Args:
        spaces: feature spaces by name.
        real: uint8 (N, 1, H, W), held-out images, the reference.
        fake: uint8 (M, 1, H, W), the images to judge.
        training: uint8 (K, 1, H, W), what the model has seen.
    """
    row: dict[str, float] = {}
    for name, space in spaces.items():
        row[f"FD {name}"] = frechet_distance(space, real, fake)
        row[f"KD {name}"] = kernel_distance(space, real, fake)
        row[f"precision {name}"], row[f"recall {name}"] = precision_recall(space, real, fake)
    row["two-sample accuracy"], _ = two_sample_accuracy(list(spaces.values()), real, fake)
    memory = memorised(fake, training, real)
    return row | {"nearest (grey levels)": memory["nearest"], "copies": memory["copies"]}


def distance_on(
    space: nn.Module, reference: np.ndarray, count: int, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    """The same for a model without likelihood: the Frechet distance of `count` samples from images uint8
    (N, C, H, W), in a feature space."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        made = image_files.to_uint8(model.sample(count, seed))
        return {"Frechet distance (validation)": frechet_distance(space, reference, made)}

    return evaluate
