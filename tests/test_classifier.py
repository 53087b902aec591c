"""The classifier of coursework 2: augmentation, training, cross-validation and scores."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from tests.conftest import three_kinds
from utils.data import labelled_hands
from utils.evaluation import cross_validation
from utils.evaluation.cross_validation import CrossValidation, Folds
from utils.models import blocks, classifier
from utils.models.classifier import Classifier
from utils.training import checkpoints


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (32, 32), (64, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_texture_classifier_takes_any_size_and_number_of_channels(size, channels):
    network = blocks.TextureClassifier(channels, outputs=3, base=4)
    assert network(torch.randn(2, channels, *size)).shape == (2, 3)


def test_high_pass_of_flat_and_sloping_images_is_zero():
    slope = torch.arange(12.0).expand(1, 2, 12, 12)
    assert blocks.HighPass(2)(slope)[:, :, 3:-3, 3:-3].abs().max() < 1e-5


def test_high_pass_of_a_single_bright_pixel():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    small, large = blocks.HighPass(1)(image)[0]
    assert small[4, 4] == -1 and small[4, 3] == 0.5 and small[3, 3] == -0.25
    assert large[4, 4] == -1 and large[4, 2] == pytest.approx(-2 / 12)


def test_augment_shifts_and_mirrors_but_creates_no_new_values():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 8).expand(50, 1, 8, 8)
    changed = classifier.augment(image, shift=2, mirror=True)
    assert changed.shape == image.shape and len(changed.unique(dim=0)) > 10
    assert torch.isin(changed, image).all()
    mirrored = {bool(torch.equal(x, image[0].flip(2))) for x in classifier.augment(image, shift=0, mirror=True)}
    assert mirrored == {True, False}
    assert torch.equal(classifier.augment(image, shift=0, mirror=False), image)


def test_loss_of_an_untrained_head_is_the_log_of_three():
    model = Classifier(base=4, dropout=0.0)
    with torch.no_grad():
        model.network.head[-1].weight.zero_()
        model.network.head[-1].bias.zero_()
    losses = model.step((torch.zeros(6, 1, 16, 16), torch.arange(6) % 3), lambda name, loss: None)
    assert losses["cross_entropy"].item() == pytest.approx(np.log(3), rel=1e-5)


def test_balanced_repeats_the_rare_classes():
    truth = np.array([0] * 7 + [1] * 2 + [2] * 3)
    chosen = classifier.balanced(truth)
    assert np.bincount(truth[chosen]).tolist() == [7, 7, 7]
    assert set(chosen) == set(range(12))


def test_folds_keep_copies_together_and_validate_every_image_once():
    truth = np.tile([0, 1, 2], 20)
    groups = np.arange(60)
    groups[[0, 3, 6, 9]] = 0  # four copies of one image
    validated = []
    for training, validation in Folds(truth, groups, 5, seed=0).indices:
        assert not set(groups[training]) & set(groups[validation])
        validated += validation.tolist()
    assert sorted(validated) == list(range(60))


def test_impossible_folds_are_refused_with_the_number_of_images_needed():
    truth = np.array([0] * 10 + [1] * 10 + [2] * 4)
    with pytest.raises(ValueError, match="class 2 has 4 images in 4 groups of near-copies: 5 folds need at least 5"):
        Folds(truth, np.arange(24), 5, seed=0)
    groups = np.arange(24)
    groups[10:20] = 10  # ten copies of one image
    with pytest.raises(ValueError, match="class 1 has 10 images in 1 groups of near-copies: 2 folds need at least 2"):
        Folds(truth, groups, 2, seed=0)
    with pytest.raises(ValueError, match="1 folds: cross-validation needs at least 2"):
        Folds(truth, np.arange(24), 1, seed=0)


def test_learns_three_classes_and_does_not_repeat_a_finished_training(tmp_path):
    images, truth = three_kinds(60)
    unseen, unseen_truth = three_kinds(30, seed=1)
    settings = {"base": 8, "lr": 3e-3}
    options = {"batch_size": 64, "plot": False, "evaluations": 2}
    model, history = classifier.train(images, truth, 6000, tmp_path, settings, **options)
    assert (model.logits(unseen).argmax(1).numpy() == unseen_truth).mean() > 0.9
    assert history[-1]["images"] == 6000 // 64 * 64
    again, _ = classifier.train(images, truth, 6000, tmp_path, settings, **options)
    assert torch.equal(again.logits(unseen), model.logits(unseen))


def test_changed_labels_are_another_run(tmp_path):
    images, truth = three_kinds(8)
    options = {"batch_size": 64, "plot": False}
    classifier.train(images, truth, 64, tmp_path, {"base": 4}, **options)
    with pytest.raises(ValueError, match="data"):
        classifier.train(images, truth[::-1].copy(), 64, tmp_path, {"base": 4}, **options)


def test_cross_validation_uses_a_network_that_has_not_seen_the_image(tmp_path):
    images, truth = three_kinds(10)
    folds = Folds(truth, labelled_hands.groups(images), 2, seed=0)
    found = CrossValidation(images, folds, 256, tmp_path, {"base": 4}, extra=three_kinds(2, seed=5))
    logits = found.logits()
    assert logits.shape == (2, 30, 3) and len(found.models) == 2
    for number, (_, validation) in enumerate(folds.indices):
        assert (folds.fold_of[validation] == number).all()
        for mirrored in (False, True):
            expected = found.models[number].logits(images[validation], mirrored)
            assert torch.equal(logits[int(mirrored), validation], expected)
    flat = found.changed_logits(lambda held_out: held_out * 0)
    assert torch.equal(flat[0], flat[1]) and len(flat[0].unique(dim=0)) == 2
    with pytest.raises(ValueError, match="29 images, but folds of 30"):
        CrossValidation(images[1:], folds, 256, tmp_path, {"base": 4})


def test_kept_logits_need_no_training_until_something_changes(tmp_path):
    images, truth = three_kinds(10)
    folds = Folds(truth, np.arange(30), 2, seed=0)
    start = CrossValidation(
        images, Folds(truth % 2, np.arange(30), 2, 0), 256, tmp_path / "a", {"base": 4, "classes": 2}
    )
    first = CrossValidation(images, folds, 256, tmp_path / "b", {"base": 4}, start=start).logits()
    for folder in [*(tmp_path / "a").glob("seed_*_fold_*"), *(tmp_path / "b").glob("seed_*_fold_*")]:
        shutil.rmtree(folder)
    again = CrossValidation(images, folds, 256, tmp_path / "b", {"base": 4}, start=start)
    assert torch.equal(again.logits(), first) and not list(tmp_path.glob("*/seed_0_fold_*"))
    for change in ({"images_seen": 512}, {"settings": {"base": 4, "lr": 0.01}}, {"start": None}):
        assert not torch.equal(dataclasses.replace(again, **change, folder=tmp_path / "b").logits(), first)
        for folder in (tmp_path / "b").glob("seed_*_fold_*"):
            shutil.rmtree(folder)


def test_training_can_start_from_another_classifier(tmp_path):
    images, truth = three_kinds(8)
    first = Classifier(base=4, classes=2)
    torch.manual_seed(1)
    for parameter in first.network.parameters():
        torch.nn.init.normal_(parameter)
    same = {"base": 4, "lr": 1e-12, "weight_decay": 0.0}
    model, _ = classifier.train(images, truth, 16, tmp_path / "a", same, batch_size=8, start=first, plot=False)
    assert torch.allclose(model.network.stem[0].weight, first.network.stem[0].weight)
    assert model.network.head[-1].out_features == 3
    with pytest.raises(checkpoints.CheckpointMismatch, match="start"):
        classifier.train(images, truth, 16, tmp_path / "a", same, batch_size=8, start=Classifier(base=4), plot=False)


def test_logits_of_mirrored_images():
    images, _ = three_kinds(2)
    for model in (Classifier(base=4), Classifier(resnet=True)):
        mirrored = model.logits(images, mirrored=True, batch_size=4)
        assert torch.allclose(mirrored, model.logits(images[..., ::-1].copy()), atol=1e-5)
        assert not torch.allclose(mirrored, model.logits(images), atol=1e-5)


def test_scores_by_hand():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    found = cross_validation.scores(probabilities, np.array([0, 1, 1, 2]))
    assert found["accuracy"] == 0.75 and found["fakes called real"] == pytest.approx(1 / 3)
    assert found["F1 real"] == pytest.approx(2 / 3) and found["recall real"] == 1
    assert found["macro F1"] == pytest.approx(np.mean([2 / 3, 2 / 3, 1]))
    assert found["cross-entropy"] == pytest.approx(-np.log([0.8, 0.3, 0.8, 0.5]).mean())


def test_scores_need_both_real_images_and_fakes():
    with pytest.raises(ValueError, match="0 fakes are too few: a table of scores needs at least 1"):
        cross_validation.scores(np.full((3, 3), 1 / 3), np.zeros(3, int))  # this gave NaN before


def test_bootstrap_draws_whole_groups_of_near_copies():
    labels = np.array([0, 1, 2] * 20)
    right = np.eye(3)[labels]
    assert (cross_validation.bootstrap(right, labels, np.arange(60), 20)[:, 0] == 1).all()
    some = np.eye(3)[np.where(np.arange(60) < 15, (labels + 1) % 3, labels)]
    alone = cross_validation.bootstrap(some, labels, np.arange(60), 300)[:, 0]
    assert alone.mean() == pytest.approx(0.75, abs=0.02)
    assert alone.std() == pytest.approx((0.75 * 0.25 / 60) ** 0.5, rel=0.2)
    grouped = cross_validation.bootstrap(some, labels, np.arange(60) // 15, 300)[:, 0]
    assert grouped.std() > 2 * alone.std()
