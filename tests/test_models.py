"""The networks and their losses: shapes, values computed by hand, and what must and must not change."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import draw_pictures
from utils.data import image_files
from utils.models.augmentation import as_jpeg, augment, augment_pairs, jpeg_table
from utils.models.blocks import Upsampler, num_downsamplings
from utils.models.classifier import Detector
from utils.models.dcgan import DCGAN, best_of_neighbours
from utils.models.latent_flow import LatentFlow
from utils.models.vae import VAE, cosine_matrix, gaussian_nll, kl_to_normal
from utils.training import checkpoints, devices, loop

SIZES = [(32, 32), (28, 28), (64, 64), (40, 32), (8, 12)]


def plain_update(model):
    """The function `update` of the training loop, without the loop."""
    optimizers = model.optimizers()

    def update(name, loss, clip=None):
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    return update


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_divisible_by_four_and_every_number_of_channels(size, channels):
    images = torch.rand(4, channels, *size) * 2 - 1
    for model in (
        VAE(size, channels, latent_dim=5, base=4),
        DCGAN(size, channels, latent_dim=5, base=4, discriminator_base=4),
    ):
        losses = model.step(images, plain_update(model))
        assert all(torch.isfinite(value) for value in losses.values())
        samples = model.sample(3, seed=1)
        assert samples.shape == (3, channels, *size) and samples.abs().max() <= 1


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        VAE((30, 32))
    assert [num_downsamplings(size) for size in SIZES] == [3, 2, 4, 3, 1]


def test_kl_by_hand():
    zero = torch.zeros(2, 3)
    assert torch.equal(kl_to_normal(zero, zero), torch.zeros(2))  # the posterior is the prior
    mean, log_var = torch.tensor([[2.0]]), torch.tensor([[math.log(9.0)]])
    assert kl_to_normal(mean, log_var).item() == pytest.approx(0.5 * (4 + 9 - 1 - math.log(9)))


def test_gaussian_nll_by_hand():
    x, mean, log_std = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[math.log(2.0), 0.0]])
    by_hand = (0.5 + math.log(2)) + 0 + math.log(2 * math.pi)
    assert gaussian_nll(x, mean, log_std).item() == pytest.approx(by_hand)


def test_cosine_transform_is_orthonormal_and_keeps_the_density():
    for size in (8, 28, 32):
        matrix = cosine_matrix(size)
        assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=1e-5)
    images = torch.rand(3, 1, 32, 32)
    model = VAE(latent_dim=4, base=4)
    assert torch.allclose(model.spectrum(images).norm(), images.norm(), rtol=1e-5)
    assert model.spectrum(torch.ones(1, 1, 32, 32))[0, 0, 0, 0].item() == pytest.approx(32, rel=1e-5)


def test_vae_loss_by_hand():
    """The networks of the VAE give zeros, so every term can be computed by hand."""
    model = VAE((8, 8), latent_dim=2, base=4)
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
            parameter.zero_()
        model.log_std.zero_()
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    losses = model.losses(images)
    by_hand = (0.5 * images**2).sum((1, 2, 3)).mean() + 32 * math.log(2 * math.pi)
    assert losses["kl"].item() == 0
    assert losses["reconstruction"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert losses["negative_elbo"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_gan_losses_of_a_discriminator_that_gives_zeros():
    model = DCGAN((8, 8), latent_dim=3, base=4, discriminator_base=4)
    with torch.no_grad():
        model.discriminator.layers[-1].weight.zero_()
    losses = model.step(torch.zeros(4, 1, 8, 8), lambda name, loss: None)
    assert losses["discriminator"].item() == pytest.approx(math.log(2))
    assert losses["generator"].item() == pytest.approx(math.log(2))
    assert losses["gradient"].item() == 0


def test_the_gradient_penalty_by_hand():
    """The score is twice the sum of the pixels, so its squared gradient is 4 for each pixel."""
    model = DCGAN((8, 8), latent_dim=3, base=4, discriminator_base=4, penalty=10.0, augmentation=0.0)

    class TwiceTheSum(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, images):
            return self.factor * images.sum((1, 2, 3))

    model.discriminator = TwiceTheSum()
    gradients = {}

    def update(name, loss):
        if name == "discriminator":
            gradients[name] = torch.autograd.grad(loss, model.discriminator.factor)[0].item()

    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.zero_()
    losses = model.step(torch.zeros(4, 1, 8, 8), update)  # both kinds of images are zero: only the penalty has a slope
    assert losses["gradient"].item() == pytest.approx(4 * 64)
    assert gradients["discriminator"] == pytest.approx(10 * 2 * 2 * 64)  # of 10 * factor ** 2 * 64


@pytest.mark.parametrize("mixed", [False, True])
def test_each_update_changes_only_its_own_network(mixed):
    model = DCGAN((8, 8), latent_dim=3, base=4, discriminator_base=4)
    moved = []
    optimizers = model.optimizers()

    def update(name, loss):
        before = {n: [p.clone() for p in getattr(model, n).parameters()] for n in optimizers}
        optimizers[name].zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in getattr(model, name).parameters())
        optimizers[name].step()
        for n in optimizers:
            if not all(torch.equal(a, b) for a, b in zip(before[n], getattr(model, n).parameters())):
                moved.append((name, n))

    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        model.step(torch.rand(4, 1, 8, 8), update)
    assert moved == [("discriminator", "discriminator"), ("generator", "generator")]
    assert all(p.requires_grad for p in model.parameters())


def test_jpeg_step_gives_the_same_images_as_pillow(pictures):
    rng = np.random.default_rng(0)
    noisy = (pictures // 2 + rng.integers(0, 100, pictures.shape)).astype(np.uint8)
    with torch.autocast("cpu", torch.bfloat16):  # as in training; the step itself must not use bfloat16
        mine = image_files.to_uint8(as_jpeg(image_files.to_float(noisy), jpeg_table(75), cosine_matrix(8)))
    theirs = image_files.as_saved(image_files.to_float(noisy))
    difference = np.abs(mine.astype(int) - theirs)
    assert difference.mean() < 0.5  # both round, and a tie may be rounded differently
    assert np.abs(noisy.astype(int) - theirs).mean() > 3  # the step is not the identity


def test_jpeg_step_passes_the_gradient_and_any_size():
    images = torch.rand(2, 1, 28, 20, requires_grad=True)
    weights = torch.rand(2, 1, 28, 20)
    out = as_jpeg(images, jpeg_table(75), cosine_matrix(8))
    (out * weights).sum().backward()
    assert out.shape == images.shape and torch.equal(images.grad, weights)
    with pytest.raises(ValueError, match="grey"):
        DCGAN(channels=3, jpeg_quality=75)


def test_jpeg_table_is_the_table_of_the_standard():
    assert jpeg_table(75)[0, 0] == 8 and jpeg_table(75)[7, 7] == 50  # half of 16 and 99 in the standard


def test_augmentation_changes_some_images_and_never_mirrors():
    torch.manual_seed(0)
    image = -torch.ones(400, 1, 32, 32)
    image[:, :, 12:20, 8:16] = 0.5
    image[:, :, 12:20, 16:24] = 0.0  # always right of the brighter half
    assert torch.equal(augment(image, 0.0), image)
    out = augment(image, 0.5)
    unchanged = (out == image).flatten(1).all(1).float().mean()
    assert 0.15 < unchanged < 0.35  # a quarter has neither another geometry nor another brightness
    columns = torch.arange(32.0)
    darker = out - out.amin((2, 3), keepdim=True)
    bright = darker > 0.75 * darker.amax((2, 3), keepdim=True)
    inner = (darker > 0.2 * darker.amax((2, 3), keepdim=True)) & ~bright
    centre = [(x.float() * columns).sum((1, 2, 3)) / x.float().sum((1, 2, 3)) for x in (bright, inner)]
    assert (centre[0] < centre[1]).all()
    assert centre[0].std() > 0.5  # they have moved


def test_a_gan_that_starts_from_a_vae_gives_the_images_of_its_decoder():
    torch.manual_seed(0)
    vae, gan = VAE((8, 8), latent_dim=3, base=4), DCGAN((8, 8), latent_dim=3, base=4)
    gan.start_from(vae, 50)
    latents = torch.randn(5, 3)
    assert torch.equal(gan.decode(latents), vae.decode(latents))
    assert gan.latent_bank.shape == (50, 3)
    with pytest.raises(ValueError, match="the VAE has latent_dim 3, but this GAN has 4"):
        DCGAN((8, 8), latent_dim=4, base=4).start_from(vae, 50)


def test_both_images_of_a_pair_get_the_same_augmentation():
    torch.manual_seed(0)
    images = torch.rand(40, 1, 8, 8) * 2 - 1
    real, fake = augment_pairs(images, images.clone(), 0.5)
    changed = (real != images).flatten(1).any(1)
    assert torch.equal(real, fake) and 10 < changed.sum() < 40


def test_half_of_the_pairs_show_the_same_image(tmp_path):
    torch.manual_seed(0)
    images = torch.rand(16, 1, 8, 8) * 2 - 1
    vae = VAE((8, 8), latent_dim=32, base=8, lr=5e-3)
    loop.fit(vae, images, 200, 16, tmp_path / "vae", vae.config, plot=False)
    gan, posteriors = DCGAN((8, 8), latent_dim=32, base=8, discriminator_base=4), vae.posteriors(images)
    gan.start_from(vae, 20)
    latents, target = gan.draw_pairs(images, posteriors)
    assert torch.equal(target[:8], torch.nn.functional.avg_pool2d(images[:8], 4))
    assert all((gan.latent_bank == z).all(1).any() for z in latents[8:]) and target.shape == (16, 1, 2, 2)
    own, other = gan.decode(latents[:8]), gan.decode(latents[:8].roll(1, 0))
    assert (own - images[:8]).square().mean() < 0.5 * (other - images[:8]).square().mean()
    before = gan.decode(latents)
    history = loop.fit(gan, (images, posteriors), 4, 8, tmp_path / "gan", gan.config, plot=False, evaluations=1)
    assert history[-1]["drift"] > 0 and not torch.equal(gan.decode(latents), before)


def test_the_best_image_of_each_group_is_chosen():
    centres = torch.tensor([-0.9, 0.0, 0.9])
    images = torch.cat([centres, centres + 0.1, centres - 0.05]).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    scores = torch.tensor([0.0, 5, 1, 3, 4, 1, 2, 9, 0])
    assert best_of_neighbours(images, scores, 3).tolist() == [3, 7, 5]  # of two equal scores, the later one
    assert best_of_neighbours(images, scores, 2, 1).tolist() == [3, 7], "the worst group is dropped"
    assert best_of_neighbours(images, scores, 9).tolist() == list(range(9)), "each image is its own group"


def test_a_gan_with_a_selector_gives_the_best_of_its_candidates(monkeypatch, tmp_path):
    torch.manual_seed(0)
    monkeypatch.setattr(DCGAN, "ROUND", 4)
    monkeypatch.setattr(DCGAN, "SPARE", 0)
    gan = DCGAN((8, 8), latent_dim=3, base=4).eval()
    candidates = gan.sample(4 * gan.CANDIDATES, 1)
    gan.selector = Detector().eval()
    found = gan.sample(3, 1)
    index = [int((candidates == image).flatten(1).all(1).nonzero()[0]) for image in found]
    assert (gan.scores(found) >= gan.scores(candidates[:3])).all() and index != [0, 1, 2]
    again = DCGAN.from_weights(gan.export(tmp_path / "gan.safetensors"))
    assert torch.allclose(again.scores(candidates), gan.scores(candidates), atol=0.02)


def test_samples_depend_only_on_the_seed():
    for model in (VAE((8, 8), latent_dim=3, base=4), DCGAN((8, 8), latent_dim=3, base=4)):
        first = model.sample(4, seed=5)
        torch.rand(10)
        state = torch.get_rng_state()
        assert torch.equal(model.sample(4, seed=5), first)
        assert torch.equal(torch.get_rng_state(), state), "sampling must not disturb a training run"
        assert not torch.equal(model.sample(4, seed=6), first)


def test_an_exported_gan_gives_the_same_samples(tmp_path):
    torch.manual_seed(0)
    vae, gan = VAE((8, 8), latent_dim=3, base=4), DCGAN((8, 8), latent_dim=3, base=4)
    gan.start_from(vae, 10)
    again = DCGAN.from_weights(gan.export(tmp_path / "gan.safetensors"))
    assert torch.allclose(again.sample(5, 1), gan.sample(5, 1), atol=0.02)  # float16
    other = checkpoints.export_weights(tmp_path / "other.safetensors", nn.Linear(2, 2), {"model": {}})
    with pytest.raises(checkpoints.CheckpointDamaged, match="no DCGAN"):
        DCGAN.from_weights(other)


def test_flow_learns_two_clusters():
    torch.manual_seed(0)
    means = torch.tensor([[3.0, 3.0], [-3.0, 1.0]]).repeat(200, 1)
    posteriors = torch.cat([means, torch.full_like(means, math.log(0.01))], dim=1)
    flow = LatentFlow(latent_dim=2, width=48, depth=2, dropout=0.0)
    flow.standardise(posteriors)
    update = plain_update(flow)
    for _ in range(400):
        flow.step(posteriors[torch.randint(400, (128,))], update)
    drawn = flow.sample(500, seed=1)
    distance = torch.cdist(drawn, means[:2])
    assert (distance.min(1).values < 1).float().mean() > 0.9
    assert 0.35 < (distance.argmin(1) == 0).float().mean() < 0.65


def test_transport_follows_the_velocity_field():
    """If the velocity field is constant, transport moves every point by this velocity."""
    flow = LatentFlow(latent_dim=2, width=8, depth=1)
    flow.field.forward = lambda points, time: torch.ones_like(points) * torch.tensor([1.0, -2.0])
    noise = torch.zeros(3, 2)
    assert torch.allclose(flow.transport(noise, 7), torch.tensor([1.0, -2.0]).expand(3, 2))


def test_gans_of_one_vae_share_a_bank_of_latents_until_its_weights_change():
    flow = LatentFlow(latent_dim=2, width=8, depth=1)
    bank = flow.latent_bank(5)
    assert torch.equal(bank, flow.sample(5, seed=1)) and flow.latent_bank(5) is bank
    assert flow.latent_bank(4).shape == (4, 2)
    with torch.no_grad():
        flow.field.inputs.weight += 0.1
    assert torch.equal(flow.latent_bank(5), flow.sample(5, seed=1)) and not torch.equal(flow.latent_bank(5), bank)


def test_changing_drawn_latents_does_not_change_the_next_draw():
    flow = LatentFlow(latent_dim=2, width=8, depth=1)
    drawn = flow.sample(5, seed=1)
    wanted = drawn.clone()
    drawn += 1
    assert torch.equal(flow.sample(5, seed=1), wanted) and not torch.equal(flow.sample(5, seed=2), wanted)


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_overfits_a_tiny_batch(name, tmp_path):
    """A VAE must memorise 8 images, and the samples of a GAN must become similar to them."""
    images = image_files.to_float(draw_pictures(8, 16))
    devices.seed_everything(0)
    if name == "vae":
        model = VAE((16, 16), latent_dim=8, base=8, lr=3e-3)
        loop.fit(model, images, 250, 8, tmp_path, model.config, plot=False)
        rebuilt = model.decode(model.posteriors(images).chunk(2, 1)[0])
        assert (rebuilt - images).abs().mean() < 0.08
    else:
        model = DCGAN(
            (16, 16),
            latent_dim=8,
            base=8,
            discriminator_base=8,
            lr_generator=1e-3,
            lr_discriminator=2e-3,
            augmentation=0.0,
        )
        before = torch.cdist(model.sample(16).flatten(1), images.flatten(1)).min(1).values.mean()
        loop.fit(model, images, 300, 8, tmp_path, model.config, plot=False)
        after = torch.cdist(model.sample(16).flatten(1), images.flatten(1)).min(1).values.mean()
        assert after < 0.5 * before


def test_noise_layers_have_strength_0_at_first():
    quiet, noisy = Upsampler((8, 8), 1, 3, 4), Upsampler((8, 8), 1, 3, 4, noise=True)
    extra = sum(p.numel() for p in noisy.parameters()) - sum(p.numel() for p in quiet.parameters())
    assert extra == 4  # one strength for each channel of the only hidden map
    noisy.eval()
    assert torch.equal(noisy(torch.ones(1, 3)), noisy(torch.ones(1, 3)))
