"""The benchmark of coursework 2: its table by hand, and its rates with small networks."""

import numpy as np
import torch

from benchmarks import hand_labels
from benchmarks.models import Case
from tests.conftest import three_kinds
from utils.data import image_files
from utils.models.classifier import Classifier


def test_the_table_by_hand():
    rates = {"ours, training": 1000.0, "ours, labelling": 4000.0, "ResNet-18, training": 100.0}
    rounds = [rates | {"ResNet-18, labelling": rate} for rate in (400.0, 500.0, 800.0)]
    ours, opponent, ratio = hand_labels.table(rounds, networks=10, seen=6000).values()
    assert list(ours.values()) == [1000, 1, 4000, 10 * hand_labels.FILES / 4000]
    assert list(opponent.values()) == [100, 10, 500, 10 * hand_labels.FILES / 500]
    assert list(ratio.values()) == [10, 1 / 10, 8, 1 / 8]


def test_rates_are_measured(monkeypatch):
    monkeypatch.setattr(hand_labels, "SECONDS", 0.01)
    images, labels = three_kinds(4)
    case = Case(lambda: Classifier(base=4), (image_files.to_float(images), torch.from_numpy(labels)), 4)
    assert hand_labels.training_rate(case) > 0
    assert hand_labels.labelling_rate([Classifier(base=4)] * 2, np.resize(images, (70, 1, 32, 32))) > 0
