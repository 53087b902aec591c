"""The diffusion model: sizes, sampling, training and weights."""

import pytest
import torch

from tests.conftest import draw_pictures
from utils.models.diffusion import LOWEST, Diffusion, draw_levels, noise_schedule
from utils.models.flow import Flow
from utils.models.unet import HEAD, Attention
from utils.training import checkpoints, devices, loop


def plain_update(model):
    """The function `update` of the training loop, without the loop."""
    optimizers = model.optimizers()

    def update(name, loss, clip=None):
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    return update


def tiny_diffusion(**settings):
    devices.seed_everything(0)
    return Diffusion(**{"size": (16, 16), "widths": (24, 24), "layers": 1} | settings)


@pytest.mark.parametrize("size, channels", [((16, 16), 1), ((28, 28), 1), ((40, 32), 3)])
def test_diffusion_accepts_other_sizes_and_colours(size, channels):
    model = tiny_diffusion(size=size, channels=channels)
    loss = model.step(torch.rand(2, channels, *size) * 2 - 1, plain_update(model))["velocity"]
    images = model.sample(3, steps=2, batch_size=2)
    assert torch.isfinite(loss) and images.shape == (3, channels, *size) and images.abs().max() <= 1


def test_attention_is_computed_in_float32_and_is_correct():
    attention = Attention(48)
    x = torch.randn(2, 48, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x)
    places = attention.group_norm(x).flatten(2).transpose(1, 2)
    queries, keys, values = (part(places) for part in (attention.to_q, attention.to_k, attention.to_v))
    heads = []
    for part in (slice(0, HEAD), slice(HEAD, 2 * HEAD)):
        weights = (queries[..., part] @ keys[..., part].transpose(1, 2) / HEAD**0.5).softmax(2)
        heads.append(weights @ values[..., part])
    wanted = x + attention.to_out[0](torch.cat(heads, 2)).transpose(1, 2).view_as(x)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_schedule_falls_to_pure_noise_and_the_levels_cover_it():
    signal = noise_schedule()
    assert (signal.diff() < 0).all() and signal[0] > 0.9999 and signal[-1] == 0
    assert (1 - signal[LOWEST]).sqrt().item() == pytest.approx(0.042, abs=0.001)
    levels = draw_levels(10_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert levels.min() == LOWEST and levels.max() == 999
    low = (levels < 137).float().mean().item()  # halfway from 19 to 1000 on a logarithmic scale
    assert low == pytest.approx(0.5 * 0.5 + 0.5 * (137 - 19) / 981, abs=0.01)


def test_grey_levels_are_predicted_where_they_are_drawn():
    """Images of half black, half random grey: the share of exactly black pixels in the samples is right."""
    model = tiny_diffusion(size=(4, 4), components=2, dropout=0.0, lr=3e-3, fold=1)
    images = torch.randint(60, 256, (400, 1, 4, 4)) / 127.5 - 1
    images[:, :, :2] = -1
    update = plain_update(model)
    for _ in range(150):
        losses = model.step(images[torch.randint(400, (64,))], update)
    assert losses["grey_nats"] < 3.5
    made = model.sample(50, steps=20)
    assert (made[:, :, :2] == -1).float().mean() > 0.9 and (made[:, :, 2:] == -1).float().mean() < 0.1


def test_diffusion_refuses_a_size_that_cannot_be_halved():
    with pytest.raises(ValueError, match="divisible by 4, not 30x32"):
        tiny_diffusion(size=(30, 32))


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_samples_depend_on_the_seed_and_not_on_the_batch_size(scheduler):
    model = tiny_diffusion()
    options = {"steps": 4, "scheduler": scheduler}
    one, other = model.sample(5, batch_size=2, **options), model.sample(5, batch_size=5, **options)
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, model.sample(5, batch_size=5, seed=1, **options), atol=1e-2)


def test_temperature_scales_the_variety_and_ddpm_adds_noise():
    model = tiny_diffusion()
    cold = model.sample(3, steps=4, temperature=0.0)
    assert torch.allclose(cold[0], cold[2], atol=1e-4)  # without noise, they differ only by rounding
    ddim, ddpm = (model.sample(3, steps=4, scheduler=name) for name in ("ddim", "ddpm"))
    assert not torch.allclose(ddim, ddpm, atol=1e-2)


@pytest.mark.parametrize(
    "wrong", [{"scheduler": "euler"}, {"steps": 1}, {"steps": 982}, {"temperature": 1.5}, {"batch_size": 0}]
)
def test_wrong_sampling_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        tiny_diffusion().sample(1, **wrong)


def test_diffusion_learns_one_image(tmp_path):
    model = tiny_diffusion(dropout=0.0, lr=3e-3)
    image = torch.from_numpy(draw_pictures(1, 16)).float() / 127.5 - 1
    loop.fit(model, image, 150, 8, tmp_path, model.config, plot=False)
    made = model.sample(4, steps=10)
    assert (made - image).abs().mean() < 0.5 * (image - image.mean()).abs().mean()


def test_diffusion_weights_can_be_loaded_and_other_weights_are_refused(tmp_path):
    model = tiny_diffusion().eval()
    path = model.export(tmp_path / "w.safetensors")
    back = Diffusion.from_weights(path)
    options = {"count": 2, "steps": 2}
    assert torch.allclose(model.sample(**options), back.sample(**options), atol=0.05)
    Flow((8, 8), width=8, depth=1).export(tmp_path / "other.safetensors")
    with pytest.raises(checkpoints.CheckpointDamaged, match="weights of Diffusion"):
        Diffusion.from_weights(tmp_path / "other.safetensors")
