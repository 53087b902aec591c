"""The CSV file of the classification: it is written whole, read from any system, and compared with true labels."""

import errno
import os

import pytest

from utils.data import label_csv


def test_csv_is_in_name_order_without_a_header(tmp_path):
    path = label_csv.write(tmp_path / "out.csv", ["test_hand_0002.jpeg", "test_hand_0001.jpeg"], [2, 0])
    assert path.read_text(encoding="utf-8") == "test_hand_0001.jpeg, 0\ntest_hand_0002.jpeg, 2\n"
    assert label_csv.read(path) == {"test_hand_0001.jpeg": 0, "test_hand_0002.jpeg": 2}


def test_a_full_disk_does_not_damage_the_older_csv(tmp_path, monkeypatch):
    path = label_csv.write(tmp_path / "out.csv", ["a"], [1])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        label_csv.write(path, ["a", "b"], [2, 2])
    assert label_csv.read(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["a"], [0, 1], "1 names but 2"),
        (["a", "a"], [0, 1], "twice"),
        (["a"], [3], "must be 0"),
        (["a\nb"], [0], "line break"),
        ([" a"], [0], "spaces"),
        ([""], [0], "is empty"),
    ],
)
def test_wrong_labels_are_not_written(tmp_path, names, given, message):
    with pytest.raises(ValueError, match=message):
        label_csv.write(tmp_path / "out.csv", names, given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a, 0\nb, 3\n", "a, 0\nb\n", "a, 0\nb, real\n", "a, 0\n, 1\n", "a, 0\na, 1\n"])
def test_a_wrong_csv_is_refused_with_the_line_number(tmp_path, text):
    path = tmp_path / "in.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        label_csv.read(path)


def test_comparison_with_true_labels(tmp_path):
    path = label_csv.write(tmp_path / "out.csv", ["a", "b", "c"], [0, 0, 2])
    assert label_csv.compare(path, {"a": 0, "b": 1, "c": 2}).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="1 missing, first d"):
        label_csv.compare(path, {"a": 0, "b": 1, "c": 2, "d": 1})


@pytest.mark.parametrize("text", ["\ufeffa, 0\nb, 2\n", "a, 0\r\nb, 2\r\n", "\ufeffa,0\r\nb,2", "a, 0\nb, 2"])
def test_a_csv_from_windows_is_read(tmp_path, text):
    (tmp_path / "in.csv").write_bytes(text.encode("utf-8"))
    assert label_csv.read(tmp_path / "in.csv") == {"a": 0, "b": 2}


def test_names_with_commas_and_unicode_can_be_read_again(tmp_path):
    names = ["a, b", "手.jpeg"]
    path = label_csv.write(tmp_path / "out.csv", names, [1, 2])
    assert label_csv.read(path) == {"a, b": 1, "手.jpeg": 2}
    assert path.read_bytes() == "a, b, 1\n手.jpeg, 2\n".encode()


def test_a_file_with_another_encoding_is_named(tmp_path):
    (tmp_path / "in.csv").write_bytes("Händé.jpeg, 0\n".encode("latin-1"))
    with pytest.raises(ValueError, match="in.csv' is not UTF-8 text"):
        label_csv.read(tmp_path / "in.csv")
