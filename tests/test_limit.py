"""The limit that `docs/speed.md` compares with, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.limit import Roofline, bandwidths, matmul_peak

SLOW_ARITHMETIC, SLOW_MEMORY = (1e-6, {1: 1e6}), (1e6, {1: 1e-6})  # GFLOP/s, GB/s by bytes


def test_a_product_costs_its_multiplications_or_its_bytes():
    a, b = torch.ones(64, 128), torch.ones(128, 32)
    with Roofline(*SLOW_ARITHMETIC) as limit:
        a @ b
    assert (limit.operators, limit.flops) == (1, 2 * 64 * 128 * 32)
    assert limit.seconds == pytest.approx(limit.flops / 1e-6 / 1e9)
    with Roofline(*SLOW_MEMORY) as limit:
        a @ b
    assert limit.seconds == pytest.approx(4 * (64 * 128 + 128 * 32 + 64 * 32) / 1e-6 / 1e9)


def test_views_are_free_and_an_expanded_tensor_is_read_once():
    x = torch.ones(100, 1)
    with Roofline(*SLOW_MEMORY) as limit:
        y = x.view(10, 10).transpose(0, 1)[2:]
    assert (limit.operators, limit.seconds, y.shape) == (0, 0.0, (8, 10))
    with Roofline(*SLOW_MEMORY) as limit:
        x.expand(100, 1000).sum()
    assert limit.seconds == pytest.approx(4 * (100 + 1) / 1e-6 / 1e9)


def test_the_backward_pass_is_counted():
    x, weight = torch.randn(4, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True)
    with Roofline(*SLOW_ARITHMETIC) as limit:
        F.conv2d(x, weight, padding=1).sum().backward()
    forward = 2 * 4 * 5 * 8 * 8 * 3 * 3 * 3
    assert limit.flops == 2 * forward  # the gradient of the weights is as much again; x needs none


def test_measured_limits_are_of_this_world():
    assert 1 < matmul_peak(torch.float32) < 1e6
    assert all(0.01 < rate < 1e5 for rate in bandwidths().values())
