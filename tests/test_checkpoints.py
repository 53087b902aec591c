"""Checkpoints are written whole or not at all, refused if they belong to another run, and never executed."""

import errno
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.training import checkpoints

CONFIG = {"model": "test", "lr": 0.1, "size": (32, 32)}


def test_round_trip_keeps_the_newest_two(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, {"x": torch.full((3,), float(step))}, CONFIG)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000002.ckpt", "step_00000003.ckpt"]
    found = checkpoints.latest(tmp_path, CONFIG)
    assert found.step == 3 and torch.equal(found.state["x"], torch.full((3,), 3.0))


def test_no_checkpoint_yet(tmp_path):
    assert checkpoints.latest(tmp_path / "run2", CONFIG) is None


def test_another_configuration_is_refused_with_the_name_of_the_setting(tmp_path):
    checkpoints.save(tmp_path, 1, {}, CONFIG)
    with pytest.raises(
        checkpoints.CheckpointMismatch, match=r"lr: 0.1 in the file, 0.2 wanted(.|\n)*utils run --fresh"
    ):
        checkpoints.latest(tmp_path, CONFIG | {"lr": 0.2})


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty", "settings", "renamed"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, damage):
    checkpoints.save(tmp_path, 1, {"x": torch.ones(100)}, CONFIG)
    newest = checkpoints.save(tmp_path, 2, {"x": torch.zeros(100)}, CONFIG)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {
        "truncated": newest.read_bytes()[:-50],
        "flipped": bytes(content),
        "foreign": pickle.dumps({"x": 1}),
        "empty": b"",
        "settings": newest.read_bytes().replace(b'"lr": 0.1', b'"lr": 0.2', 1),
        "renamed": newest.read_bytes(),
    }
    if damage == "renamed":
        newest = newest.rename(tmp_path / "step_00000003.ckpt")
    newest.write_bytes(changed[damage])
    messages = []
    found = checkpoints.latest(tmp_path, CONFIG, messages.append)
    assert found.step == 1 and found.state["x"].sum() == 100
    assert ("holds step 2" if damage == "renamed" else "not a complete checkpoint") in messages[0]
    assert newest.with_suffix(".damaged").exists() and "goes on from the checkpoint before it" in messages[0]


def test_without_another_checkpoint_a_damaged_one_means_a_start_from_the_beginning(tmp_path):
    checkpoints.save(tmp_path, 1, {}, CONFIG).write_bytes(b"damaged")
    messages = []
    assert checkpoints.latest(tmp_path, CONFIG, messages.append) is None
    assert messages[0].endswith("The training starts from the beginning.")


def test_only_exact_names_are_checkpoints_and_no_other_file_is_deleted(tmp_path):
    """A sync client's copy is not read, not called damaged, not deleted, and not counted as one of the two."""
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {}, CONFIG)
    others = ["step_00000002 (1).ckpt", "step_2.ckpt", "step_00000009.ckpt.tmp", ".step_notes.part", "step_x.ckpt"]
    for name in others:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    messages = []
    assert checkpoints.latest(tmp_path, CONFIG, messages.append).step == 2 and not messages
    checkpoints.save(tmp_path, 3, {}, CONFIG)
    kept = ["step_00000002.ckpt", "step_00000003.ckpt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept + others)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (99_999_999, 100_000_000):
        checkpoints.save(tmp_path, step, {}, CONFIG)
    assert checkpoints.latest(tmp_path, CONFIG).step == 100_000_000


def test_a_checkpoint_says_when_and_where_it_was_written(tmp_path):
    found = checkpoints.read(checkpoints.save(tmp_path, 1, {}, CONFIG, "NVIDIA H100"))
    assert found.device == "NVIDIA H100" and abs(datetime.now() - datetime.fromisoformat(found.date)) < timedelta(1)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_loading_never_executes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"x": Bomb()}, buffer)
    head = {"config": CONFIG, "step": 1, "date": "2025-11-26 20:31", "device": "cpu"}
    content = json.dumps(head).encode() + b"\n" + buffer.getvalue()
    check_sum = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "step_00000001.ckpt").write_bytes(check_sum + b"\n" + content)
    assert checkpoints.latest(tmp_path, CONFIG, lambda message: None) is None
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(checkpoints.CheckpointDamaged):
        checkpoints.read_weights(tmp_path / "w.safetensors")
    assert not (tmp_path / "exploded").exists()


def test_full_disk_while_saving(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, {"x": torch.ones(3)}, CONFIG)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="could not write"):
        checkpoints.save(tmp_path, 2, {"x": torch.zeros(3)}, CONFIG)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000001.ckpt"]
    assert checkpoints.latest(tmp_path, CONFIG).step == 1


WRITER = """
import sys, torch
from utils.training import checkpoints
for step in range(1, 10**6):
    checkpoints.save(sys.argv[1], step, {"x": torch.full((200_000,), float(step))}, {})
    print(step, flush=True)
"""


def test_temporary_files_of_killed_processes_are_deleted_and_ctrl_c_leaves_none(tmp_path, monkeypatch):
    (tmp_path / ".step_00000001.ckpt.4711.part").touch()
    checkpoints.save(tmp_path, 1, {}, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.ckpt"]

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 2, {}, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.ckpt"]


def test_another_process_may_set_a_damaged_file_aside_first(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, {"x": torch.ones(3)}, CONFIG)
    newest = checkpoints.save(tmp_path, 2, {}, CONFIG)
    newest.write_bytes(b"")
    read = checkpoints.read

    def read_and_lose(path):
        try:
            return read(path)
        finally:
            newest.unlink(missing_ok=True)  # between reading and setting aside

    monkeypatch.setattr(checkpoints, "read", read_and_lose)
    assert checkpoints.latest(tmp_path, CONFIG, lambda _: None).step == 1


def test_kill_in_the_middle_of_writing(tmp_path):
    """A loop that only writes checkpoints is killed at several moments."""
    root = Path(__file__).parent.parent
    for delay in (0.01, 0.07, 0.13):
        process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=root, stdout=subprocess.PIPE)
        process.stdout.readline()  # the process has started
        time.sleep(delay)
        process.kill()
        process.wait()
        complained = []
        found = checkpoints.latest(tmp_path, {}, complained.append)
        assert torch.equal(found.state["x"], torch.full((200_000,), float(found.step)))
        assert not complained


def test_weights_round_trip_with_their_arguments(tmp_path):
    layer = torch.nn.BatchNorm1d(4)
    path = checkpoints.export_weights(tmp_path / "w.safetensors", layer, {"num_features": 4})
    config, tensors = checkpoints.read_weights(path)
    again = torch.nn.BatchNorm1d(**config)
    again.load_state_dict(tensors)
    assert torch.equal(again.weight, layer.weight)
    with pytest.raises(FileNotFoundError, match="no weights"):
        checkpoints.read_weights(tmp_path / "absent")


def test_a_state_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(TypeError, match="plain numbers"):
        checkpoints.save(tmp_path, 1, {"lr": np.float64(0.1)}, {})
    assert checkpoints.latest(tmp_path, {}) is None


def test_large_weights_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PART_BYTES", 100)
    layer = torch.nn.Linear(8, 12)
    path = checkpoints.export_weights(tmp_path / "w.safetensors", layer, {"in_features": 8, "out_features": 12})
    other = path.with_stem("w_part_2")
    assert sorted(tmp_path.iterdir()) == [path, other]
    again = checkpoints.load_weights(path, torch.nn.Linear)
    assert torch.equal(again.weight, layer.weight.half().float()) and torch.equal(again.bias, layer.bias.half().float())
    with pytest.raises(checkpoints.CheckpointDamaged, match="does not hold weights of Bilinear"):
        checkpoints.load_weights(path, torch.nn.Bilinear)
    kept = other.read_bytes()
    checkpoints.export_weights(path, torch.nn.Linear(8, 12), {"in_features": 8, "out_features": 12})
    other.write_bytes(kept)  # as if the process was killed between the two files
    with pytest.raises(checkpoints.CheckpointDamaged, match="not written together"):
        checkpoints.read_weights(path)
    other.unlink()
    with pytest.raises(FileNotFoundError, match="no weights at .*w_part_2"):
        checkpoints.read_weights(path)


def test_full_disk_while_exporting_weights(tmp_path, monkeypatch):
    layer = torch.nn.Linear(2, 2)
    path = checkpoints.export_weights(tmp_path / "w.safetensors", layer, {})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="could not write"):
        checkpoints.export_weights(path, torch.nn.Linear(2, 2), {})
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
