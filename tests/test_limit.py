"""The limit in `docs/speed.md`, tested with counts by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from benchmarks import models
from benchmarks.limit import Roofline, bandwidths, matmul_peak

SLOW_ARITHMETIC = {torch.float32: 1e-6}, {1: 1e6}  # GFLOP/s by number format, GB/s by bytes
SLOW_MEMORY = {torch.float32: 1e6}, {1: 1e-6}


def test_the_limit_of_a_product_is_its_arithmetic_or_its_bytes():
    a, b = torch.ones(64, 128), torch.ones(128, 32)
    with Roofline(*SLOW_ARITHMETIC) as limit:
        a @ b
    assert (limit.operators, limit.flops) == (1, 2 * 64 * 128 * 32)
    assert limit.seconds == pytest.approx(limit.flops / 1e-6 / 1e9)
    with Roofline(*SLOW_MEMORY) as limit:
        a @ b
    assert limit.seconds == pytest.approx(4 * (64 * 128 + 128 * 32 + 64 * 32) / 1e-6 / 1e9)


def test_each_number_format_has_its_own_peak():
    a = torch.ones(64, 64)
    with Roofline({torch.float32: 1e-6, torch.bfloat16: 4e-6}, {1: 1e6}) as limit:
        a @ a
        a.bfloat16() @ a.bfloat16()
    assert limit.arithmetic_seconds == pytest.approx(1.25 * 2 * 64**3 / 1e-6 / 1e9)


def test_views_are_free_and_an_expanded_tensor_is_read_once():
    x = torch.ones(100, 1)
    with Roofline(*SLOW_MEMORY) as limit:
        y = x.view(10, 10).transpose(0, 1)[2:]
    assert (limit.operators, limit.seconds, y.shape) == (0, 0.0, (8, 10))
    with Roofline(*SLOW_MEMORY) as limit:
        x.expand(100, 1000).sum()
    assert limit.seconds == pytest.approx(4 * (100 + 1) / 1e-6 / 1e9)


def test_bytes_that_an_operator_does_not_read_are_not_counted():
    x, chosen = torch.ones(1000), torch.arange(10)
    with Roofline(*SLOW_MEMORY) as limit:
        x.copy_(torch.zeros(1))  # reads one number, writes 1000
    assert limit.seconds == pytest.approx(4 * (1000 + 1) / 1e-6 / 1e9, rel=0.01)
    with Roofline(*SLOW_MEMORY) as limit:
        x[chosen]
    assert limit.seconds == pytest.approx(4 * 2 * 10 / 1e-6 / 1e9)


def test_the_backward_pass_is_counted():
    x, weight = torch.randn(4, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True)
    with Roofline(*SLOW_ARITHMETIC) as limit:
        F.conv2d(x, weight, padding=1).sum().backward()
    forward = 2 * 4 * 5 * 8 * 8 * 3 * 3 * 3
    assert limit.flops == 2 * forward  # the gradient of the weights costs the same; x needs no gradient


def test_the_rows_of_all_tables_for_one_model(monkeypatch):
    monkeypatch.setattr(models, "ROUNDS", 1)
    monkeypatch.setattr(models, "SECONDS", 0.1)
    case = models.cases()["classifier, hands"]
    roofline = partial(Roofline, {torch.float32: matmul_peak(torch.float32)}, bandwidths())
    trained = models.training_row(case)
    step = models.limits_row(models.our_step(case), case.batch_size, roofline)
    used = models.use_limits(case, roofline)
    assert trained["ours, images/s"] == pytest.approx(case.batch_size / trained["ms a step"] * 1000)
    forward = used["GFLOP an image"]
    assert 2 * forward < step["GFLOP an image"] < 3 * forward  # the images need no gradient
    table = models.markdown({"a model": {"of the limit": 0.256, "images/s": 1234.5, "ratio": 1.0321}})
    assert table.splitlines()[-1] == "| a model | 26% | 1,234 | 1.03 |"


def test_the_expected_row_of_several_processes_counts_bytes_and_messages():
    case, row = models.cases()["GAN, hands"], {"ms a step": 100.0, "MB of gradients": 12.5}
    found = models.expected_row(case, row, 1e-4)
    assert found["sending (ms)"] == pytest.approx(2 * 15 / 16 * 12.5e6 / 1.25e9 * 1000)
    assert found["latency, at least (ms)"] == pytest.approx(3 * 0.1)  # messages for two optimisers and for the losses
    assert found["share of the step that is left, at most"] == pytest.approx(100 / (100 + 18.75 + 0.3))


def test_the_time_of_a_whole_training_is_the_sum_of_its_parts():
    case = models.cases()["classifier, hands"]
    row = models.course_row(case, ms_a_step=1000.0)
    assert row["steps"] == case.course.images_seen // case.batch_size and row["training (s)"] == row["steps"]
    spent = row["evaluations (s)"] + row["checkpoints (s)"]
    assert row["evaluations (s)"] > 0 and row["checkpoints (s)"] > 0 and row["plots (s)"] == 0
    assert row["beside training"] == pytest.approx(spent / (spent + row["training (s)"]))
