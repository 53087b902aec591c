"""A short run of benchmarks/fuzz.py. The long run is `make fuzz`."""

import tempfile
from pathlib import Path

import pytest

from benchmarks import fuzz
from utils.data import head_images
from utils.training import checkpoints

with tempfile.TemporaryDirectory() as place:
    NAMES = list(fuzz.readers(Path(place)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_input_gives_a_result_or_a_documented_error(name):
    found = fuzz.fuzz(name, 500)
    assert found["refused"] > 60


def test_a_header_that_numpy_cannot_parse_is_refused(tmp_path):
    content = fuzz.npy()
    (tmp_path / "a.npy").write_bytes(content[:66] + content[74:])  # the first bad input that the fuzzer found
    with pytest.raises(ValueError, match="not a .npy file"):
        head_images.read(tmp_path / "a.npy")


def test_a_checkpoint_with_a_damaged_pickle_is_reported_as_damaged(tmp_path):
    content = bytearray(fuzz.checkpoint(tmp_path))
    content[139:143], content[178:182] = b"\0", bytes(7)  # before, torch raised an IndexError
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(checkpoints.CheckpointDamaged):
        fuzz.read_repaired(tmp_path / "a.ckpt")
