"""Head images: arrays in other forms, splits and augmentation."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_pictures
from utils.data import head_images
from utils.models.heads import augmentation


@pytest.fixture
def heads():
    """Correct head images: float32 (6, 1, 64, 64) in [0, 1], with the values 0 and 1."""
    images = np.random.default_rng(0).uniform(0, 1, (6, 1, 64, 64)).astype(np.float32)
    images[0, 0, 0, :2] = 0, 1
    return images


def read(path, images):
    """The images that are read from a file of `images`, and the messages about them."""
    np.save(path, images)
    lines = []
    return head_images.read(path, lines.append), [line.split("': ", 1)[1] for line in lines]


FORMS = {
    "as it should be": (lambda x: x, []),
    "big-endian": (lambda x: x.astype(">f4"), ["big-endian float32 numbers were read as float32"]),
    "double": (lambda x: x.astype(np.float64), ["float64 numbers were read as float32"]),
    "big-endian double": (
        lambda x: x.astype(">f8"),
        ["big-endian float64 numbers were read as float32"],
    ),
    "long double": (
        lambda x: x.astype(np.longdouble),
        [f"{np.dtype(np.longdouble).name} numbers were read as float32"],
    ),
    "Fortran order": (np.asfortranarray, ["float32 numbers, not in C order, were read as float32"]),
    "no channel": (lambda x: x[:, 0], ["shape (6, 64, 64) was read as (6, 1, 64, 64)"]),
    "channel last": (lambda x: x.transpose(0, 2, 3, 1).copy(), ["shape (6, 64, 64, 1) was read as (6, 1, 64, 64)"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_images_are_accepted_with_a_message(heads, tmp_path, form):
    change, lines = FORMS[form]
    found, said = read(tmp_path / "a.npy", change(heads))
    assert np.array_equal(found, heads) and said[: len(lines)] == lines
    assert found.dtype == np.float32 and found.dtype.isnative and found.flags.c_contiguous


def test_half_precision_and_a_single_image_are_accepted_with_a_message(heads, tmp_path):
    found, said = read(tmp_path / "a.npy", heads.astype(np.float16))
    assert np.array_equal(found, heads.astype(np.float16).astype(np.float32))
    assert said == ["float16 numbers were read as float32"]
    found, said = read(tmp_path / "a.npy", heads[2, 0])
    assert np.array_equal(found, heads[2:3]) and said == ["shape (64, 64) was read as (1, 1, 64, 64)"]


def test_rounding_errors_are_clipped_with_a_message(heads, tmp_path):
    wide = heads.astype(np.float64)
    wide[1, 0, 3, :3], wide[2, 0, 0, 0] = 1.0000001, -1e-9
    found, said = read(tmp_path / "a.npy", wide)
    assert found.min() == 0 and found.max() == 1 and found[1, 0, 3, 2] == 1 and found[2, 0, 0, 0] == 0
    assert said[:2] == ["3 value(s) up to 1.0000001 were set to 1", "1 value(s) down to -1e-09 were set to 0"]
    wide[1, 0, 3, :3], wide[2, 0, 0, 0] = 1, 0
    assert np.array_equal(found, wide.astype(np.float32))  # nothing else was changed


def spoilt(images, value):
    images = images.copy()
    images[2, 0, 5, 7] = value
    return images


REFUSED = {
    "grey levels": (
        lambda x: (x * 255).round(),
        "positions start at 0). Divide grey levels by 255",
    ),
    "one value": (lambda x: spoilt(x, 1.01), "1.01 in image 2, row 5, column 7 is outside [0, 1] (1 value(s) in total"),
    "negative": (lambda x: spoilt(x, -0.5), "-0.5 in image 2, row 5, column 7 is outside [0, 1]"),
    "NaN": (lambda x: spoilt(x, np.nan), "nan in image 2, row 5, column 7 is not a finite number"),
    "infinite": (lambda x: spoilt(x, np.inf), "inf in image 2, row 5, column 7 is not a finite number"),
    "too large for float32": (lambda x: spoilt(x.astype(np.float64), 1e300), "1e+300 in image 2, row 5, column 7"),
    "bytes": (lambda x: (x * 255).astype(np.uint8), "type uint8, but floats in [0, 1] are needed; divide grey levels"),
    "zeros and ones": (lambda x: (x > 0.5).astype(int), "but floats in [0, 1] are needed"),
    "truth values": (lambda x: x > 0.5, "type bool, but floats"),
    "complex": (lambda x: x.astype(complex), "type complex128, but floats"),
    "other size": (lambda x: x[..., :32], "shape (6, 1, 64, 32), but (N, 1, 64, 64) is needed"),
    "three channels": (lambda x: x.repeat(3, 1), "shape (6, 3, 64, 64), but (N, 1, 64, 64) is needed"),
    "flat": (lambda x: x.reshape(6, -1), "shape (6, 4096)"),
    "one number": (lambda x: x[0, 0, 0, 0], "shape ()"),
    "no image": (lambda x: x[:0], "shape (0, 1, 64, 64), but (N, 1, 64, 64) is needed, with N at least 1"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_unclear_arrays_are_refused_with_the_value_and_its_place(heads, tmp_path, form):
    change, message = REFUSED[form]
    with pytest.raises(ValueError) as error:
        read(tmp_path / "a.npy", change(heads))
    assert message in str(error.value) and "a.npy" in str(error.value)


def test_a_truncated_archive_with_a_wrong_name_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((50, 50)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match="an archive of several arrays"):
        head_images.read(tmp_path / "a.npy")


def test_pickles_are_not_loaded(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="p.npy' holds Python objects, not numbers$"):
        head_images.read(tmp_path / "p.npy")


def test_a_file_of_another_kind_gets_advice(tmp_path):
    (tmp_path / "in.txt").write_text("0.5 0.5", encoding="utf-8")
    with pytest.raises(ValueError, match="in.txt' is not a .npy file; write one with numpy.save$"):
        head_images.read(tmp_path / "in.txt")


@pytest.mark.parametrize(
    "stored, message",
    [
        (None, "not an archive with head slices"),
        (np.zeros((3, 64, 64)), "float64, but uint8 images"),
        (np.zeros((3, 32, 64), np.uint8), "shape .3, 32, 64."),
    ],
)
def test_wrong_files_named_heads_are_refused(tmp_path, monkeypatch, stored, message):
    monkeypatch.setattr(head_images, "find", lambda name: tmp_path / name)
    if stored is None:
        np.save(tmp_path / "x.npy", np.zeros((3, 64, 64), np.uint8))
        (tmp_path / "x.npy").rename(tmp_path / "heads.npz")
    else:
        np.savez(tmp_path / "heads.npz", images=stored)
    with pytest.raises(ValueError, match=message):
        head_images.load()


def test_without_the_courses_heads_stand_ins_are_used(monkeypatch):
    def nowhere(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(head_images, "find", nowhere)
    images, origin = head_images.load(lambda: torch.rand(4, 1, 64, 64))
    assert images.shape == (4, 1, 64, 64) and origin.startswith("STAND-IN")
    test_images, origin = head_images.load_test()
    assert test_images.shape == (100, 1, 64, 64) and "test_set_nogaps" in origin
    monkeypatch.setenv("PROFILE", "full")
    with pytest.raises(FileNotFoundError):
        head_images.load()


def noise(count):
    return torch.rand(count, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_similar_slices_stay_in_the_same_part():
    pictures = noise(40)
    images = torch.cat([pictures, pictures * 0.9])  # every slice twice, once darker
    parts = head_images.split(images)
    assert sum(len(part) for part in parts) == 80 and all(len(part) for part in parts)
    group = head_images.groups(torch.cat(parts))
    edges = np.cumsum([0, *map(len, parts)])
    sides = [set(group[a:b]) for a, b in zip(edges, edges[1:])]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_too_few_slices_for_a_split_are_refused_with_the_number_needed():
    parts = head_images.split(noise(head_images.LEAST_SLICES))
    assert all(len(np.unique(head_images.groups(part))) > 2 for part in parts)
    with pytest.raises(ValueError, match="26 slices are too few.* If all slices differ, at least 27 are needed"):
        head_images.split(noise(26))
    with pytest.raises(ValueError, match="60 slices are too few, or too similar"):
        head_images.split(noise(1).repeat(60, 1, 1, 1))


def test_augmented_images_are_the_images_and_shifted_copies():
    images = torch.from_numpy(draw_pictures(12, 64)).float() / 255
    more = augmentation.augment(images, 2)
    assert more.shape == (36, 1, 64, 64) and torch.equal(more[:12], images)
    assert 0 < (more[12:24] - images).abs().mean() < 0.2 and more.min() >= 0 and more.max() <= 1
    assert torch.equal(more, augmentation.augment(images, 2)) and torch.equal(augmentation.augment(images, 0), images)


def test_bent_images_are_similar_and_differ_from_each_other():
    image = torch.from_numpy(draw_pictures(1, 64)).float() / 255
    torch.manual_seed(0)
    warped = augmentation.warp(image.repeat(20, 1, 1, 1))
    assert warped.shape == (20, 1, 64, 64) and warped.min() >= 0 and warped.max() <= 1
    assert (
        0.005 < (warped - image).abs().mean() < 0.2 and (warped[1:] - warped[0]).flatten(1).abs().mean(1).min() > 0.001
    )


def test_bent_images_are_as_exact_in_mixed_precision():
    images, found = torch.from_numpy(draw_pictures(4, 64)).float() / 255, []
    for mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found.append(augmentation.warp(images))
    assert torch.equal(*found)


def test_images_and_masks_are_moved_together_and_what_comes_in_is_unknown():
    images, known = torch.rand(40, 1, 64, 64) + 0.01, torch.ones(40, 1, 64, 64, dtype=torch.bool)
    known[..., 30:40] = False
    torch.manual_seed(0)
    moved, still_known = augmentation.shift(images, known, 5)
    assert (moved[:, :, 5:-5, 5:-5] > 0).all() and torch.equal(moved > 0, moved != 0)
    found = set()
    for image, after, mask in zip(images[:, 0], moved[:, 0], still_known[:, 0]):
        row, column = ((image - after[20, 20]).abs() == 0).nonzero()[0].tolist()
        down, right = 20 - row, 20 - column
        assert torch.equal(after[10:50, 10:50], image[10 - down : 50 - down, 10 - right : 50 - right])
        assert not mask[20, 30 + right] and not mask[20, 39 + right] and mask[20, 29 + right] and mask[20, 40 + right]
        assert mask[after == 0].sum() == 0
        found.add((down, right))
    assert len(found) > 20 and max(map(max, found)) == 5 and min(map(min, found)) == -5
    same, _ = augmentation.shift(images, known, 0)
    assert torch.equal(same, images)


def test_grey_levels_are_the_quantiles_of_known_pixels():
    images, known = torch.rand(3, 1, 64, 64), torch.zeros(64, 64, dtype=torch.bool)
    known[:, ::2] = True
    levels = augmentation.grey_levels(images * known, known)
    assert levels.shape == (3, 256) and (levels.diff(dim=1) >= 0).all()
    assert levels[:, 128].numpy() == pytest.approx(0.5, abs=0.05)  # the zeros elsewhere do not count


def test_similar_images_are_in_the_same_fold():
    pictures = noise(20)
    images = torch.cat([pictures, (pictures + 0.05 * torch.rand(20, 1, 64, 64)) / 1.05])
    fold = head_images.folds(head_images.likeness_groups(images), 4)
    assert (fold[:20] == fold[20:]).all()
    assert np.bincount(fold).tolist() == [10, 10, 10, 10]


def test_a_folder_of_heads_is_written_and_read(tmp_path):
    heads = torch.rand(12, 1, 64, 64)
    back = head_images.read_folder(head_images.write_folder(heads, tmp_path / "heads"))
    assert back.shape == heads.shape and (back - heads).abs().max() < 0.5 / 255 + 1e-6
    with pytest.raises(FileNotFoundError, match="no generated heads"):
        head_images.read_folder(tmp_path)
