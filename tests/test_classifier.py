"""The classifier of coursework 2, its splits and probabilities, and the CSV."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_pictures
from PIL import Image

from utils import checkpoints, classifier, folders, hand_classes, labels, networks
from utils.classifier import Classifier


def three_kinds(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that differ by class as real and generated ones do, in their fine texture."""
    rng = np.random.default_rng(seed)
    images = draw_pictures(3 * count, seed=seed).astype(float)
    truth = np.repeat([0, 1, 2], count)
    images[truth == 1] += rng.normal(0, 25, images[truth == 1].shape)
    images[truth == 2, :, ::2] += 40
    return images.clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (32, 32), (64, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_recogniser_takes_any_size_and_number_of_channels(size, channels):
    network = networks.Recogniser(channels, outputs=3, base=4)
    assert network(torch.randn(2, channels, *size)).shape == (2, 3)


def test_high_pass_is_blind_to_flat_and_sloping_images():
    slope = torch.arange(12.0).expand(1, 2, 12, 12)
    assert networks.HighPass(2)(slope)[:, :, 3:-3, 3:-3].abs().max() < 1e-5


def test_high_pass_of_a_single_bright_pixel():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    small, large = networks.HighPass(1)(image)[0]
    assert small[4, 4] == -1 and small[4, 3] == 0.5 and small[3, 3] == -0.25
    assert large[4, 4] == -1 and large[4, 2] == pytest.approx(-2 / 12)


def test_augment_moves_and_mirrors_but_never_resamples():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 8).expand(50, 1, 8, 8)
    changed = classifier.augment(image, shift=2, mirror=True)
    assert changed.shape == image.shape and len(changed.unique(dim=0)) > 10
    assert torch.isin(changed, image).all()
    mirrored = {bool(torch.equal(x, image[0].flip(2))) for x in classifier.augment(image, shift=0, mirror=True)}
    assert mirrored == {True, False}
    assert torch.equal(classifier.augment(image, shift=0, mirror=False), image)


def test_loss_of_a_network_that_knows_nothing_is_the_log_of_three():
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


def test_folds_keep_copies_on_one_side_and_use_every_image_once():
    truth = np.tile([0, 1, 2], 20)
    groups = np.arange(60)
    groups[[0, 3, 6, 9]] = 0  # four copies of one image
    judged = []
    for inside, outside in classifier.folds(truth, groups, 5, seed=0):
        assert not set(groups[inside]) & set(groups[outside])
        judged += outside.tolist()
    assert sorted(judged) == list(range(60))


def test_learns_three_kinds_and_a_finished_training_is_not_done_again(tmp_path):
    images, truth = three_kinds(60)
    unseen, unseen_truth = three_kinds(30, seed=1)
    settings = {"base": 8, "lr": 3e-3}
    model, history = classifier.train(images, truth, 6000, tmp_path, settings, plot=False, evaluations=2)
    assert (model.logits(unseen).argmax(1).numpy() == unseen_truth).mean() > 0.9
    assert history[-1]["images"] == 6000 // 64 * 64
    again, _ = classifier.train(images, truth, 6000, tmp_path, settings, plot=False, evaluations=2)
    assert torch.equal(again.logits(unseen), model.logits(unseen))


def test_changed_labels_are_not_taken_for_the_same_run(tmp_path):
    images, truth = three_kinds(8)
    classifier.train(images, truth, 64, tmp_path, {"base": 4}, plot=False)
    with pytest.raises(ValueError, match="data"):
        classifier.train(images, truth[::-1].copy(), 64, tmp_path, {"base": 4}, plot=False)


def test_cross_validation_judges_every_image_with_a_network_that_has_not_seen_it(tmp_path):
    images, truth = three_kinds(10)
    groups = hand_classes.groups(images)
    seen = []
    found = classifier.cross_validate(
        images, truth, groups, 128, tmp_path, {"base": 4}, 2, 0, report=lambda logits, index: seen.append(index)
    )
    assert found.logits.shape == (30, 3) and len(found.models) == len(found.histories) == 2
    assert len(seen[0]) < 30 and sorted(seen[1]) == list(range(30))
    for (_, outside), model in zip(classifier.folds(truth, groups, 2, 0), found.models):
        assert torch.equal(found.logits[outside], model.logits(images[outside]))


def test_temperature_is_found_again():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3) * 2
    truth = torch.distributions.Categorical(logits=logits).sample()
    assert classifier.temperature(3 * logits, truth) == pytest.approx(3, rel=0.08)
    sharp = classifier.calibrated(3 * logits, truth.numpy())
    assert np.abs(sharp - logits.softmax(1).numpy()).max() < 0.06


def test_class_shares_of_unlabelled_images_are_found():
    torch.manual_seed(0)
    shares = np.array([0.2, 0.5, 0.3])
    truth = np.random.default_rng(0).choice(3, 6000, p=shares)
    centre = 2.0 * np.eye(3)[truth]
    x = torch.tensor(centre + np.random.default_rng(1).normal(size=centre.shape))
    logits = 2.0 * x  # the log likelihood ratios of three unit Gaussians at 2 e_k
    probabilities, found = classifier.predict(logits, 1.0)
    assert found == pytest.approx(shares, abs=0.02)
    assert (probabilities.argmax(1) == truth).mean() > (logits.argmax(1).numpy() == truth).mean()


def test_pseudo_labels_are_those_the_classifier_is_sure_of():
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 9.0], [8.0, 2.0, 0.0]])
    given, sure = classifier.pseudo_labels(logits, 1.0, 0.9)
    assert given.dtype == np.int64 and given[sure].tolist() == [0, 2, 0] and not sure[1]


def test_reals_are_found_in_a_mixture_without_any_labelled_fake(tmp_path):
    images, truth = three_kinds(150, seed=1)
    mixture = np.concatenate([images[truth == 0][100:], images[truth != 0][::2]])  # a quarter is real
    reals = three_kinds(200, seed=2)[0][:200]
    found = classifier.tell_apart(reals, mixture, 6000, tmp_path, {"base": 8}, 2, seed=0)
    assert len(found.first) == len(found.second) == len(found.folds) == 200 and len(found.models) == 2
    # an image was judged by a network that has not seen it
    again = torch.cat([m.logits(mixture[found.folds == i], ((0, 0),)) for i, m in enumerate(found.models)])
    again = classifier.log_ratio(again)[np.argsort(np.argsort(found.folds, kind="stable"))]
    assert torch.allclose(again, found.second, atol=1e-4)
    real, share = classifier.real_probability(found.first, found.second)
    assert share == pytest.approx(0.25, abs=0.15)
    assert ((real > 0.5) == (np.arange(200) < 50)).mean() > 0.9


def test_real_probability_by_hand():
    # half of the mixture is real: typical real images have a ratio of 1/2, fakes one far above it
    reals = torch.tensor([0.5, 0.5, 0.5, 2.0]).log()
    real, share = classifier.real_probability(reals, torch.tensor([0.5, 1.0, 50.0, 0.1]).log())
    assert share == pytest.approx(0.5) and real == pytest.approx([1, 0.5, 0.01, 1])


def test_logits_by_asks_the_network_that_it_is_told_to():
    images, _ = three_kinds(10)
    judge = np.arange(30) % 2  # the third network has nothing to do
    torch.manual_seed(0)
    models = [Classifier(base=4) for _ in range(3)]
    joint = classifier.logits_by(models, images, judge)
    for number in (0, 1):
        assert torch.allclose(joint[judge == number], models[number].logits(images[judge == number]))


def test_training_can_begin_with_another_classifiers_body(tmp_path):
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


def test_stacking_weighs_the_evidence_and_knows_the_offset():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    logits = torch.tensor(np.eye(3)[truth] + rng.normal(0, 1.0, (900, 3)) + [2.0, 0, 0])  # partial to reals
    ratio = torch.tensor(np.where(truth == 0, -2.0, 2.0) + rng.normal(0, 1.0, 900))
    evidence = classifier.evidence(logits, ratio)
    assert evidence.shape == (900, 4)
    joint = classifier.stacked(evidence, truth, np.arange(900), 3, seed=0)
    assert joint.sum(1) == pytest.approx(np.ones(900))
    accuracy = (joint.argmax(1) == truth).mean()
    assert accuracy > (logits.argmax(1).numpy() == truth).mean() + 0.2
    moved, shares = classifier.with_own_shares(joint[truth != 0], truth)
    assert shares[0] < 0.1 and moved.shape == (int((truth != 0).sum()), 3)


def test_views_are_shifted_and_mirrored():
    model = Classifier(base=4).eval()
    images, _ = three_kinds(2)
    middle = images[:, :, 1:-1, 1:-1]
    one = model.logits(images, views=((0, 0),))
    both = torch.stack([one, model.logits(images[..., ::-1].copy(), views=((0, 0),))]).mean(0)
    assert torch.allclose(one, both, atol=1e-5)  # mirrored or not, the mean over both is the same
    assert not torch.allclose(one, model.logits(images), atol=1e-5)
    assert model.logits(middle).shape == (6, 3)


def test_scores_by_hand():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    found = classifier.scores(probabilities, np.array([0, 1, 1, 2]))
    assert found["accuracy"] == 0.75 and found["fakes passed"] == pytest.approx(1 / 3)
    assert found["F1 real"] == pytest.approx(2 / 3)
    assert found["cross-entropy"] == pytest.approx(-np.log([0.8, 0.3, 0.8, 0.5]).mean())


# --- the images ---------------------------------------------------------------------------------


def course_like(root: Path, test: bool = True) -> None:
    """A small copy of the course's layout, with a broken file in each folder of fakes."""
    folders.write_jpegs(draw_pictures(24), root / "real_hands", "x", 24)
    for i, path in enumerate(sorted((root / "real_hands").glob("x_*"))):
        path.rename(root / "real_hands" / f"{i:06d}.jpeg")
    for seed, kind in enumerate(("VAE", "GAN"), start=1):
        (root / f"{kind}_hands").mkdir()
        for i, picture in enumerate(draw_pictures(9, seed=seed)[:, 0]):
            Image.fromarray(picture).save(root / f"{kind}_hands" / f"{kind}_hand_{i:03d}.jpeg")
        (root / f"{kind}_hands" / f"{kind}_hand_100.jpeg").write_text("no image")
    (root / "test_hands").mkdir()
    if test:
        for i, picture in enumerate(draw_pictures(5, seed=9)[:, 0]):
            Image.fromarray(picture).save(root / "test_hands" / f"test_hand_{i:04d}.jpeg")


def test_labelled_images_and_what_was_set_aside(tmp_path):
    course_like(tmp_path)
    shutil.copy(tmp_path / "VAE_hands/VAE_hand_000.jpeg", tmp_path / "GAN_hands/GAN_hand_200.jpeg")  # in two classes
    found = hand_classes.load_labelled(tmp_path)
    assert np.bincount(found.labels).tolist() == [12, 9, 9] and len(found.further_reals) == 12
    assert found.images.dtype == np.uint8 and found.origin == hand_classes.COURSE
    reasons = {name: reason for name, reason in found.skipped}
    assert "not an image" in reasons["VAE_hands/VAE_hand_100.jpeg"]
    assert "VAE_hand_000" in reasons["GAN_hands/GAN_hand_200.jpeg"]
    x, y = hand_classes.further_reals(found)
    assert len(x) == len(y) == 12 and not y.any()


def test_test_folder_with_odd_files(tmp_path):
    course_like(tmp_path)
    (tmp_path / "test_hands/test_hand_0007.jpeg").write_bytes(b"PK\x03\x04 a zip")
    (tmp_path / "test_hands/notes.txt").write_text("not a test file")
    Image.new("RGB", (400, 300), "red").save(tmp_path / "test_hands/test_hand_0008.jpeg")
    found = hand_classes.load_test(tmp_path)
    assert [s.name for s in found.skipped] == ["test_hand_0007.jpeg"] and found.foreign == ["notes.txt"]
    assert found.names[-1] == "test_hand_0008.jpeg" and found.images.shape == (6, 1, 32, 32)
    assert found.truth is None


def test_an_empty_test_folder_is_an_error_where_the_courses_fakes_are(tmp_path):
    course_like(tmp_path, test=False)
    with pytest.raises(ValueError, match="nothing to label"):
        hand_classes.load_test(tmp_path)


def test_a_class_without_a_readable_file_is_named(tmp_path):
    course_like(tmp_path)
    for path in (tmp_path / "GAN_hands").iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match="GAN_hands"):
        hand_classes.load_labelled(tmp_path)


def test_without_the_courses_fakes_our_own_are_used_and_the_truth_is_known(tmp_path):
    course_like(tmp_path, test=False)
    reals = draw_pictures(300, seed=4)
    folders.write_jpegs(reals, tmp_path / "real_hands", "stand_in", 300)
    for seed, kind in enumerate(("VAE", "GAN"), start=1):
        for path in (tmp_path / f"{kind}_hands").iterdir():
            path.unlink()
        folders.write_jpegs(draw_pictures(30, seed=10 + seed), tmp_path / f"{kind}_hands", "username", 30)
    known, test = hand_classes.load_labelled(tmp_path), hand_classes.load_test(tmp_path)
    assert "OUR OWN" in known.origin and "truth is known" in test.origin
    assert np.bincount(test.truth).tolist() == [100, 10, 10]
    trained = {x.tobytes() for x in np.concatenate([known.images, known.further_reals])}
    assert not trained & {x.tobytes() for x in test.images}


def test_groups_join_near_copies_and_copies_of_copies():
    images = draw_pictures(4).astype(int)
    near = (images[:1] + 2).clip(0, 255)
    far = (images[:1] + 4).clip(0, 255)
    found = hand_classes.groups(np.concatenate([images, near, far]).astype(np.uint8))
    assert found[0] == found[4] == found[5] and len(set(found)) == 4


# --- the CSV ------------------------------------------------------------------------------------


def test_csv_is_in_name_order_without_a_header(tmp_path):
    path = labels.write(tmp_path / "out.csv", ["test_hand_0002.jpeg", "test_hand_0001.jpeg"], [2, 0])
    assert path.read_text() == "test_hand_0001.jpeg, 0\ntest_hand_0002.jpeg, 2\n"
    assert labels.read(path) == {"test_hand_0001.jpeg": 0, "test_hand_0002.jpeg": 2}


def test_an_older_csv_survives_a_full_disk(tmp_path, monkeypatch):
    path = labels.write(tmp_path / "out.csv", ["a"], [1])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(labels.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        labels.write(path, ["a", "b"], [2, 2])
    assert labels.read(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [(["a"], [0, 1], "1 names but 2"), (["a", "a"], [0, 1], "twice"), (["a"], [3], "must be 0")],
)
def test_nonsense_is_not_written(tmp_path, names, given, message):
    with pytest.raises(ValueError, match=message):
        labels.write(tmp_path / "out.csv", names, given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a, 0\nb, 3\n", "a, 0\nb\n", "a, 0\nb, real\n", "a, 0\n, 1\n", "a, 0\na, 1\n"])
def test_a_wrong_csv_is_refused_with_the_line(tmp_path, text):
    path = tmp_path / "in.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="line 2"):
        labels.read(path)


def test_comparison_with_the_truth(tmp_path):
    path = labels.write(tmp_path / "out.csv", ["a", "b", "c"], [0, 0, 2])
    assert labels.compare(path, {"a": 0, "b": 1, "c": 2}).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="1 missing, first d"):
        labels.compare(path, {"a": 0, "b": 1, "c": 2, "d": 1})
