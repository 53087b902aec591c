"""The VAE and the GAN of garments: probabilities of grey levels, samples, and what the networks see."""

import torch

from utils.models.gan import GAN, as_grey_levels
from utils.models.latent_transformer import LatentTransformer
from utils.models.spatial_vae import SpatialVAE, level_nats

LEVELS = torch.arange(256) / 127.5 - 1


def distributions() -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log scales (40, 1, 1, 1) of pixels, also beyond black and white."""
    torch.manual_seed(0)
    return torch.rand(40, 1, 1, 1) * 2.6 - 1.3, torch.rand(40, 1, 1, 1) * 4 - 6


def all_nats() -> torch.Tensor:
    """Negative log probabilities (40, 256) of all grey levels under `distributions`."""
    mean, log_scale = distributions()
    return level_nats(LEVELS.view(1, 1, 1, -1).expand(40, 1, 1, -1), mean, log_scale)[:, 0, 0]


def test_the_probabilities_of_all_grey_levels_sum_to_one():
    assert torch.allclose((-all_nats()).exp().sum(1), torch.ones(40), atol=1e-3)


def test_samples_of_the_vae_are_means_and_black_where_the_mean_is_below_black():
    vae = SpatialVAE((8, 8), latent_channels=2, base=8, prior={"width": 16, "depth": 1}).eval()
    with torch.no_grad():
        vae.decoder.head.bias.fill_(-3.0)
    assert (vae.sample(3) == -1).all()


def test_the_standardised_latents_of_the_prior_have_the_moments_of_the_posteriors():
    prior = LatentTransformer((2, 3, 3), width=16, depth=1)
    mean = 5 + 2 * torch.randn(500, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    prior.standardise(torch.cat([mean, torch.zeros_like(mean)], 1))
    assert (prior.mean - 5).abs().max() < 0.5 and (prior.std - 5**0.5).abs().max() < 0.3


def test_images_are_rounded_to_grey_levels_and_the_gradient_passes():
    images = torch.tensor([-1.7, -0.9999, 0.001, 0.5, 3.0], requires_grad=True)
    saved = as_grey_levels(images)
    levels = (saved + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4) and saved.min() >= -1 - 1e-6 and saved.max() <= 1
    saved.sum().backward()
    assert torch.equal(images.grad, torch.ones(5))


def test_the_score_of_an_image_does_not_depend_on_the_other_images_of_the_batch():
    model = GAN((8, 8), base=8, discriminator_base=8, classes=3)
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    assert torch.allclose(model.scores(images, labels)[:2], model.scores(images[:2], labels[:2]), atol=1e-5)
