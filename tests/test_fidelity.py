"""The measures of generated images, tested with values computed by hand and with images of known order."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import draw_pictures
from utils import config
from utils.evaluation import detector, feature_spaces, fidelity

pytestmark = pytest.mark.xdist_group("fidelity")  # one process, because they share an expensive fixture

REAL, MORE = draw_pictures(400, seed=1), draw_pictures(200, seed=2)


class Corner(nn.Module):
    """A feature space of two pixels, so that distances can be computed by hand."""

    num_features = 2

    def forward(self, images):
        return images[:, 0, 0, :2].float()


def two_pixels(values):
    images = np.zeros((len(values), 1, 4, 4), np.uint8)
    images[:, 0, 0, :2] = values
    return images


@pytest.fixture(scope="module")
def spaces():
    return {"pixels": feature_spaces.PixelComponents(REAL, 16), "texture": feature_spaces.Texture()}


def blur(images):
    return nn.functional.avg_pool2d(torch.from_numpy(images).float(), 3, 1, 1).byte().numpy()


def test_frechet_distance_by_hand():
    rng = np.random.default_rng(0)
    a = rng.integers(50, 60, (500, 2))
    shifted = two_pixels(a + [3, 4])
    assert fidelity.frechet_distance(Corner(), two_pixels(a), shifted) == pytest.approx(25, abs=0.01)
    stretched = two_pixels(100 + 2 * (a - 55))
    centred = two_pixels(100 + (a - 55))
    by_hand = a.var(0, ddof=1).sum() + (np.mean(a - 55, 0) ** 2).sum()  # (2s - s)^2 on each axis
    assert fidelity.frechet_distance(Corner(), centred, stretched) == pytest.approx(by_hand, rel=0.05)


def test_kernel_distance_is_unbiased_and_does_not_change_the_random_state(spaces):
    state = torch.get_rng_state()
    same = [fidelity.kernel_distance(spaces["pixels"], REAL[:200], REAL[200:]) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state) and same[0] == same[1]
    far = fidelity.kernel_distance(spaces["pixels"], REAL, MORE[:, :, ::-1].copy())
    assert abs(same[0]) < far / 5


@pytest.mark.parametrize("name", ["pixels", "texture"])
def test_worse_images_have_larger_distances(spaces, name):
    space = spaces[name]
    as_they_are, blurred, noise = (
        fidelity.frechet_distance(space, REAL, x)
        for x in (MORE, blur(MORE), np.random.default_rng(0).integers(0, 256, MORE.shape).astype(np.uint8))
    )
    assert as_they_are < blurred < noise


def test_texture_sees_a_checkerboard_that_pixels_hardly_see(spaces):
    checker = (MORE + 6 * (np.indices((32, 32)).sum(0) % 2)).clip(0, 255).astype(np.uint8)
    ratios = {
        name: fidelity.frechet_distance(s, REAL, checker) / fidelity.frechet_distance(s, REAL, MORE)
        for name, s in spaces.items()
    }
    assert ratios["texture"] > 2 * ratios["pixels"]


def test_precision_and_recall_by_hand():
    real = two_pixels([[x, 0] for x in (0, 10, 20, 30, 100, 110, 120, 130)])
    fake = two_pixels([[x, 0] for x in (1, 11, 21, 31, 2, 12, 22, 200)])
    precision, recall = fidelity.precision_recall(Corner(), real, fake, neighbours=1)
    assert precision == 7 / 8  # all except the fake at 200
    assert recall == 1  # the ball of the fake at 200 reaches from 31 to 369
    _, recall = fidelity.precision_recall(Corner(), real, fake[:7], neighbours=1)
    assert recall == pytest.approx(4 / 7)  # without this fake, only the first cluster is covered


def test_the_surest_images_of_each_class_are_chosen():
    sure = torch.tensor([0.6, 0.9, 0.7, 0.8, 0.95, 0.5])
    kind = torch.tensor([0, 1, 0, 0, 1, 0])
    probabilities = torch.where(kind[:, None] == torch.arange(2), sure[:, None], 1 - sure[:, None])
    assert feature_spaces.surest_of_each_class(probabilities, 4).tolist() == [3, 2, 4, 1]
    assert feature_spaces.surest_of_each_class(probabilities, 3).tolist() == [3, 2, 4]
    assert feature_spaces.surest_of_each_class(probabilities, 8).tolist() == [3, 2, 0, 5, 4, 1]  # class 1 has only 2


def test_mode_collapse_lowers_recall_and_not_precision(spaces):
    collapsed = np.repeat(REAL[200:210], 20, axis=0)
    precision, recall = fidelity.precision_recall(spaces["pixels"], REAL[:200], collapsed)
    assert precision > 0.8 and recall < 0.3


def test_two_sample_accuracy_of_real_images_is_one_half(spaces):
    accuracy, error = fidelity.two_sample_accuracy(list(spaces.values()), REAL[:200], MORE)
    assert abs(accuracy - 0.5) < 0.12 and 0 < error < 0.1
    accuracy, _ = fidelity.two_sample_accuracy(list(spaces.values()), REAL[:200], blur(MORE))
    assert accuracy > 0.95


def test_copies_are_found():
    samples = np.concatenate([MORE[:5], (REAL[:2].astype(int) + 1).clip(0, 255).astype(np.uint8)])
    distance, index = fidelity.nearest(samples, REAL)
    assert index[5:].tolist() == [0, 1] and (distance[5:] <= 1).all()
    by_hand = np.sqrt(((MORE[0].astype(float) - REAL) ** 2).mean((1, 2, 3))).min()
    assert distance[0] == pytest.approx(by_hand, rel=1e-4)


def test_detector_learns_and_is_reproducible():
    real, others, fakes, unseen = (x[..., 6:22, 6:22] for x in (REAL[200:], MORE, blur(REAL[:200]), blur(MORE)))
    trained = detector.train_detector(real, fakes, steps=40)
    assert detector.pass_rate(trained, others) > 0.8 and detector.pass_rate(trained, unseen) < 0.2
    again, once_more = (detector.train_detector(real, fakes, steps=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), once_more.parameters()))


def test_report_has_every_measure(spaces):
    noise = np.random.default_rng(0).integers(0, 256, MORE[:198].shape).astype(np.uint8)
    fake = np.concatenate([noise, REAL[200:202]])  # two copies of training images
    row = fidelity.report(spaces, REAL[:200], fake, REAL[200:])
    assert {"FD pixels", "KD texture", "precision pixels", "recall texture", "two-sample accuracy"} <= set(row)
    assert all(np.isfinite(list(row.values())))
    assert row["copies"] == 2 and row["nearest (grey levels)"] > config.NEAR_COPY_RMS


def test_kernel_distance_of_few_reference_images_is_not_huge():
    """12 reference images have 11 axes. Before, a twelfth axis of rounding errors gave a distance of millions."""
    few = feature_spaces.PixelComponents(REAL[:12], 16)
    assert few.num_features == 11
    assert abs(fidelity.kernel_distance(few, REAL[:12], MORE[:12])) < 1e4


FEW = {
    "Frechet distance": (lambda s: fidelity.frechet_distance(s, REAL, MORE[:1]), "1 generated images .* at least 2"),
    "kernel distance": (lambda s: fidelity.kernel_distance(s, REAL[:1], MORE), "1 real images .* at least 2"),
    "precision": (lambda s: fidelity.precision_recall(s, REAL, MORE[:5]), "5 generated images .* at least 6"),
    "two samples": (lambda s: fidelity.two_sample_accuracy([s], REAL[:9], MORE), "9 real images .* at least 10"),
    "nearest": (lambda s: fidelity.nearest(MORE, REAL[:0]), "0 training images .* at least 1"),
    "nearest of none": (lambda s: fidelity.nearest(MORE[:0], REAL), "0 images .* at least 1"),
    "report": (lambda s: fidelity.report({"pixels": s}, REAL[:9], MORE, REAL), "9 real images .* at least 10"),
    "hook": (lambda s: fidelity.frechet_distance_hook(s, REAL, 1, 0), "1 samples .* at least 2"),
    "features": (lambda s: feature_spaces.features(s, REAL[:0]), "0 images .* at least 1"),
    "components": (lambda s: feature_spaces.PixelComponents(REAL[:1]), "1 reference images .* at least 2"),
    "detector": (lambda s: detector.train_detector(REAL, MORE[:0], 1), "0 generated images .* at least 1"),
    "no step": (lambda s: detector.train_detector(REAL, MORE, 0), "0 training steps .* at least 1"),
    "learned": (
        lambda s: detector.learned_two_sample_accuracy((REAL, MORE), (REAL[:0], MORE), 1),
        "0 real test images .* at least 1",
    ),
    "pass rate": (lambda s: detector.pass_rate(detector.Detector(), MORE[:0]), "0 images .* at least 1"),
}


@pytest.mark.parametrize("measure", FEW)
def test_too_few_images_are_refused_with_their_number_and_the_smallest_allowed(spaces, measure):
    compute, message = FEW[measure]
    with pytest.raises(ValueError, match=message):
        compute(spaces["pixels"])


@pytest.mark.parametrize("count", [10, 20, 38])
def test_every_number_in_the_report_of_few_images_is_finite(spaces, count):
    row = fidelity.report(spaces, REAL[:count], MORE[:count], REAL[200:])
    assert all(np.isfinite(list(row.values()))), row


def test_frequency_energy_finds_the_frequency_of_a_wave_and_sees_blur():
    n = np.arange(32)
    wave = 128 + 100 * np.cos(np.pi * (2 * n + 1) * 13 / 64)  # 13 half-waves across
    image = np.tile(wave, (32, 1)).round().astype(np.uint8)[None, None]
    energy = fidelity.frequency_energy(image)
    assert (
        len(energy) == 8 and energy[1:].argmax() == 2
    )  # after the mean: the fourth band holds the frequencies 12 to 15
    blurred = (REAL.astype(float) + np.roll(REAL, 1, 3) + np.roll(REAL, 1, 2) + np.roll(REAL, (1, 1), (2, 3))) / 4
    ratio = fidelity.frequency_energy(blurred.astype(np.uint8)) / fidelity.frequency_energy(REAL)
    assert ratio[-1] < 0.5 * ratio[0]
    with pytest.raises(ValueError, match="0 images"):
        fidelity.frequency_energy(REAL[:0])
