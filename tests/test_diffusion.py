"""The diffusion model: sizes, sampling, training and weights."""

import pytest
import torch

from tests.conftest import draw_pictures
from tests.test_models import plain_update
from utils.models.diffusion import Diffusion
from utils.models.imputer import Imputer
from utils.training import checkpoints, devices, loop


def tiny_diffusion(**settings):
    devices.seed_everything(0)
    return Diffusion(**{"size": (16, 16), "widths": (12, 24), "layers": 1} | settings)


@pytest.mark.parametrize("size, channels", [((16, 16), 1), ((28, 28), 1), ((40, 32), 3)])
def test_diffusion_accepts_other_sizes_and_colours(size, channels):
    model = tiny_diffusion(size=size, channels=channels)
    loss = model.step(torch.rand(2, channels, *size) * 2 - 1, plain_update(model))["velocity"]
    images = model.sample(3, steps=2, batch_size=2)
    assert torch.isfinite(loss) and images.shape == (3, channels, *size) and images.abs().max() <= 1


def test_attention_stays_in_float32_on_a_cpu_and_is_correct():
    model, seen = tiny_diffusion().eval(), []
    noisy, levels = torch.rand(2, 1, 16, 16), torch.tensor([10, 900])
    attentions = [x for x in model.network.modules() if hasattr(x, "to_q")]
    for attention in attentions:
        attention.to_q.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            model.velocity(noisy, levels)
        assert attentions and seen == [torch.float32] * len(attentions)
        found = model.velocity(noisy, levels)
        for attention in attentions:
            attention.set_processor(attention.processor.processor)
        assert torch.equal(found, model.velocity(noisy, levels))


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
    "wrong", [{"scheduler": "euler"}, {"steps": 0}, {"steps": 30}, {"temperature": 1.5}, {"batch_size": 0}]
)
def test_wrong_sampling_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be|must divide"):
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
    Imputer(base=8, depth=1).export(tmp_path / "other.safetensors")
    with pytest.raises(checkpoints.CheckpointDamaged, match="weights of Diffusion"):
        Diffusion.from_weights(tmp_path / "other.safetensors")
