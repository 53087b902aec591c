"""Likelihoods: probabilities add up to 1, exact values are exact, and no model is better than a known entropy."""

import math

import pytest
import torch

from tests.conftest import draw_pictures
from utils.data.image_files import to_float
from utils.evaluation import likelihood
from utils.models import pixelcnn
from utils.models.diffusion import Diffusion
from utils.models.flow import Flow, spline
from utils.models.pixelcnn import MIN_LOG_SCALE, PixelCNN, mixture_nats
from utils.models.spatial_vae import SpatialVAE
from utils.training import checkpoints, loop

LEVELS = torch.arange(256.0)


def toy(count: int, seed: int = 0) -> tuple[torch.Tensor, float]:
    """Images (count, 1, 4, 4) of grey levels in [-1, 1], and the entropy of such an image in nats.

    A fair coin decides whether all pixels of an image are dark or bright. Then each pixel is drawn from a discretised
    logistic distribution over 256 levels. A single pixel is enough to see the side of the coin.
    """
    means, log_scale = torch.tensor([-0.4, 0.4]), torch.tensor(-3.0)
    parameters = torch.stack([torch.zeros(2), means, log_scale.expand(2)], 1)[:, None, :, None]  # (2, 1, 3, 1)
    nats = mixture_nats(parameters.expand(2, 1, 3, 256)[..., None], LEVELS.view(1, 1, 256, 1).expand(2, -1, -1, -1))
    probabilities = (-nats).exp().view(2, 256)
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(2, (count,), generator=generator)
    levels = torch.multinomial(probabilities[sides], 16, replacement=True, generator=generator)
    entropy = -(probabilities * probabilities.clamp(min=1e-30).log()).sum(1).mean()
    return levels.view(count, 1, 4, 4) / 127.5 - 1, math.log(2) + 16 * float(entropy)


def randomised(model, scale: float):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


# PixelCNN


def test_the_probabilities_of_a_pixels_levels_add_up_to_one():
    parameters = torch.randn(1, 1, 15, 1, 1).repeat(256, 1, 1, 1, 1)
    parameters[:, :, 10:] -= 4  # narrow components
    nats = mixture_nats(parameters, LEVELS[:, None, None, None])
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_pixel_depends_only_on_earlier_pixels():
    model = randomised(PixelCNN((8, 8), channels=2, width=8, layers=2, hidden=4, components=2), 0.3)
    blocks = (torch.rand(1, 8, 4, 4) * 2 - 1).requires_grad_()
    predicted = model.network["within"](model.context(blocks), blocks)
    (gradient,) = torch.autograd.grad(predicted[0, 7, :, 3, 3].sum(), blocks, retain_graph=True)
    assert (gradient != 0).flatten().sum() == 8 * 16 - 1, "the last pixel depends on all others"
    reach = 0
    for place in range(16):
        for k in range(8):
            (gradient,) = torch.autograd.grad(
                predicted[0, k, :, place // 4, place % 4].sum(), blocks, retain_graph=True
            )
            seen = (gradient[0].flatten(1).T.flatten() != 0).nonzero()[:, 0]  # in the order of sampling
            assert not len(seen) or seen.max() < 8 * place + k
            reach += len(seen)
    assert reach > 16 * 8 * 10  # it depends on many of them


def test_pixelcnn_reaches_a_known_entropy(tmp_path):
    images, entropy = toy(2000)
    model = PixelCNN((4, 4), width=24, layers=2, hidden=16, components=4, lr=1e-2)
    loop.fit(model, images, 300, 64, tmp_path, model.config, plot=False)
    nats = model.nats(toy(1000, seed=1)[0]).detach()
    assert entropy * 0.98 < nats.mean() < entropy * 1.02
    samples = model.sample(200).flatten(1)
    one_sided = (samples > 0).all(1) | (samples <= 0).all(1)  # true for all images, but not for independent pixels
    assert one_sided.float().mean() > 0.85  # 0.95 to 1, because each machine rounds differently
    assert torch.equal(model.sample(3, seed=5), model.sample(3, seed=5))


def test_sampling_gives_the_same_predictions_as_training(monkeypatch):
    """If sampling takes a fixed value instead of a random one, each pixel of a sample is equal to its prediction."""
    model = randomised(PixelCNN((8, 12), width=8, layers=3, hidden=8, components=2), 0.3)
    monkeypatch.setattr(pixelcnn, "sample_mixture", lambda parameters, uniform: parameters[:, :, 2].tanh())
    images = model.sample(5, batch_size=3)
    blocks = torch.nn.functional.pixel_unshuffle(images, 2)
    predicted = model.network["within"](model.context(blocks), blocks)[:, :, 2].tanh()
    assert torch.allclose(predicted, blocks, atol=1e-5) and blocks.std() > 0.1


# Flow


def test_splines_are_invertible_and_their_slope_is_right():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, generator=generator, dtype=torch.float64).requires_grad_()
    parameters = torch.randn(500, 3 * 8 + 1, generator=generator, dtype=torch.float64)
    y, log_slope = spline(x, parameters)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope.log(), log_slope, atol=1e-6) and y.min() >= 0 and y.max() <= 1
    back, back_slope = spline(y.detach(), parameters, inverse=True)
    assert torch.allclose(back, x, atol=1e-9) and torch.allclose(back_slope, -log_slope, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (10, 6)])
def test_flow_is_invertible_and_its_determinant_is_right(size):
    model = randomised(Flow(size, channels=2, width=8, depth=1, bins=6), 0.08)
    x = torch.rand(4, 2, *size)
    parts, log_det = model(x)
    assert sum(part[0].numel() for part in parts) == x[0].numel()
    assert (model.inverse(parts) - x).abs().max() < 1e-4

    def flat(pixels):
        return torch.cat([part.flatten() for part in model(pixels.view(1, 2, *size))[0]])

    jacobian = torch.autograd.functional.jacobian(flat, x[0].flatten())
    assert torch.linalg.slogdet(jacobian.double())[1].item() == pytest.approx(log_det[0].item(), abs=1e-2)


def test_flow_reaches_a_known_entropy(tmp_path):
    images, entropy = toy(2000)
    model = Flow((4, 4), width=24, depth=1, bins=16, lr=5e-3)
    first = model.nats(images[:8])
    assert torch.allclose(first, torch.full((8,), 16 * math.log(256)), atol=0.1)  # all levels are equally likely
    loop.fit(model, images, 300, 64, tmp_path, model.config, plot=False)
    nats = model.nats(toy(1000, seed=1)[0]).detach()
    assert entropy * 0.98 < nats.mean() < entropy * 1.05
    sample = model.sample(4, seed=2)
    assert torch.equal(sample, model.sample(4, seed=2, batch_size=3))
    assert torch.equal(sample, ((sample + 1) * 127.5).round() / 127.5 - 1)


# Bounds


def test_vae_bound_is_exact_without_information_in_latents_and_tighter_with_more_samples():
    torch.manual_seed(0)
    images = to_float(draw_pictures(16, 8))
    vae = SpatialVAE((8, 8), latent_channels=2, base=8)
    for layer in (vae.decoder.head, vae.encoder.layers[-1]):  # it always gives 0, and its posterior is the prior
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    found = likelihood.vae_nats(vae, images, 2, torch.Generator().manual_seed(1))
    parameters = torch.tensor([0.0, 0.0, float(vae.log_scale.detach())]).view(1, 1, 3, 1, 1)
    known = mixture_nats(parameters.expand(16, 1, 3, 8, 8), ((images + 1) * 127.5).round())
    assert torch.allclose(found, known.flatten(1).sum(1), rtol=1e-4)

    vae = randomised(SpatialVAE((8, 8), latent_channels=2, base=8), 0.1)
    few, many = (likelihood.vae_nats(vae, images, k, torch.Generator().manual_seed(1)).mean() for k in (1, 64))
    assert many < few


class Knowing(Diffusion):
    """A diffusion model for images whose pixels are all `a` or all `-a`. Its network is the best prediction of x0."""

    def outputs(self, noisy, levels):
        signal = self.signal[levels].view(-1, 1, 1, 1)
        evidence = (signal.sqrt() / (1 - signal) * noisy).flatten(1).sum(1).view(-1, 1, 1, 1)
        x0 = self.a * torch.tanh(self.a * evidence).expand(noisy.shape)
        certain = torch.tensor([0.0, 0.0, -9.0]).view(1, 3, 1, 1).expand(len(x0), 3, *x0.shape[2:])
        return torch.cat([(signal.sqrt() * noisy - x0) / (1 - signal).sqrt(), certain], 1)


def coins(count: int) -> torch.Tensor:
    """Images (count, 1, 8, 8): all pixels 101/127.5 - 1 or all pixels minus that, by a fair coin."""
    signs = torch.randint(2, (count, 1, 1, 1)) * 2 - 1
    return ((((101 / 127.5 - 1) * signs + 1) * 127.5).round() / 127.5 - 1).expand(-1, 1, 8, 8).contiguous()


def knowing() -> Knowing:
    model = Knowing((8, 8), widths=(24, 24), components=1)
    model.a = 1 - 101 / 127.5
    return model


def test_diffusion_bound_with_the_best_prediction_is_the_entropy():
    torch.manual_seed(0)
    nats = likelihood.diffusion_nats(knowing(), coins(2000), 100, torch.Generator().manual_seed(0))
    narrowest = -64 * math.log(math.tanh(math.exp(-MIN_LOG_SCALE) / 510))  # a logistic is never narrower
    assert math.log(2) * 0.9 < nats.mean() - narrowest < math.log(2) * 1.6  # one coin, not 355 nats of 64 pixels


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [10, 50, 200])
def test_sampling_with_the_best_prediction_gives_the_images(scheduler, steps):
    made = knowing().sample(200, steps=steps, scheduler=scheduler)
    side = made.mean((1, 2, 3), keepdim=True).sign()
    assert (made - side * (1 - 101 / 127.5)).abs().max() < 3 / 127.5  # the narrowest logistic is that wide
    assert 0.35 < (made[:, 0, 0, 0] > 0).float().mean() < 0.65


def test_diffusion_bound_is_unbiased():
    torch.manual_seed(0)
    model = randomised(Diffusion((8, 8), widths=(24, 24), components=2), 0.05)
    images = to_float(draw_pictures(8, 8))
    generator = torch.Generator().manual_seed(0)
    few, many = (
        torch.stack([likelihood.diffusion_nats(model, images, draws, generator) for _ in range(repeats)]).double()
        for draws, repeats in ((1, 100), (100, 1))
    )
    error = few.mean(1).std() / len(few) ** 0.5
    assert abs(few.mean() - many.mean()) < 4 * error and error < 0.02 * many.mean()


def test_bits_per_dimension_by_hand():
    mean, error = likelihood.bits_per_dimension(torch.full((10,), 50 * math.log(256)), 50)
    assert mean == pytest.approx(8) and error == 0
    mean, error = likelihood.bits_per_dimension(torch.tensor([math.log(2), 3 * math.log(2)]), 1)
    assert mean == pytest.approx(2) and error == pytest.approx(1)


def test_too_few_images_or_samples_are_refused_with_their_number():
    vae, model = SpatialVAE((4, 4), latent_channels=2, base=8), Diffusion((8, 8), widths=(24, 24), components=1)
    images = torch.zeros(3, 1, 8, 8)
    for compute, message in (
        (lambda: likelihood.bits_per_dimension(torch.ones(1), 4), "1 images .* standard error needs at least 2"),
        (lambda: likelihood.bits_hook(images[:1], 2), "1 validation images .* at least 2"),
        (lambda: likelihood.nats(vae, images[:0], 2), "0 images .* at least 1"),
        (lambda: likelihood.vae_nats(vae, toy(2)[0], 0), "0 latents for each image .* at least 1"),
        (lambda: likelihood.diffusion_nats(model, images, 0), "0 noise levels for each image .* at least 1"),
        (lambda: likelihood.nats(Diffusion((8, 8), widths=(24, 24)), images, 2), "components=0 .* has no bound"),
    ):
        with pytest.raises(ValueError, match=message):
            compute()


def test_an_infinite_likelihood_is_an_error():
    with pytest.raises(FloatingPointError, match="image 1 is not finite"):
        likelihood.bits_per_dimension(torch.tensor([1.0, float("inf"), 2.0]), 4)


@pytest.mark.parametrize("make", [PixelCNN, Flow])
def test_odd_sizes_are_refused_and_weights_can_be_loaded(make, tmp_path):
    with pytest.raises(ValueError, match="divisible by 2, not 7x8"):
        make((7, 8))
    model = randomised(make((4, 4), width=8), 0.1)
    again = checkpoints.load_weights(model.export(tmp_path / "w.safetensors"), make)
    images = toy(4)[0]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)] if make is Flow else [None, None]
    one, other = (m.nats(images, *([g] if g else [])) for m, g in zip((model, again), generators))
    assert torch.allclose(one, other, rtol=0.01)
