"""Generating heads with the shipped weights, or with the course's generator if it works."""

import sys
import types

import torch

from utils.models import shipped


def test_generate_makes_heads_from_the_shipped_weights():
    batches = shipped.generate_heads(3, 4, 2)
    assert [tuple(b.shape) for b in batches] == [(2, 1, 64, 64), (1, 1, 64, 64)]
    images = torch.cat(batches)
    assert images.min() >= 0 and images.max() <= 1
    assert images[:, :, 20:44, 20:44].mean() > 3 * images[:, :, :3, :3].mean()  # a head with a dark background


def test_generate_uses_the_courses_generator_if_it_is_installed(monkeypatch):
    asked = {}

    def generate(*arguments, **options):
        asked.update(options, arguments=arguments)
        return [torch.full((2, 1, 64, 64), 0.5)]

    monkeypatch.setitem(sys.modules, "ese_invldm", types.SimpleNamespace(generate=generate))
    assert shipped.generate_heads(2, 5, 2, scheduler="ddpm", temperature=0.5, seed=7)[0].mean() == 0.5
    assert asked == {"arguments": (2, 5, 2), "scheduler": "ddpm", "temperature": 0.5, "seed": 7}


def test_generate_uses_our_weights_if_the_courses_generator_fails(monkeypatch, capsys):
    def generate(*_, **__):
        raise RuntimeError("weights not found")

    monkeypatch.setitem(sys.modules, "ese_invldm", types.SimpleNamespace(generate=generate))
    assert shipped.generate_heads(1, 2, 1)[0].shape == (1, 1, 64, 64)
    assert "weights not found" in (said := capsys.readouterr().out) and "our own" in said


def test_generate_uses_our_weights_if_the_courses_generator_cannot_be_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / "ese_invldm.py").write_text("raise OSError('no CUDA')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert shipped.generate_heads(1, 2, 1)[0].shape == (1, 1, 64, 64)
    assert "no CUDA" in capsys.readouterr().out
