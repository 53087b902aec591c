"""A short run of the fuzzer; the long one is `make fuzz`."""

import tempfile
from pathlib import Path

import pytest

from benchmarks import fuzz
from utils import heads

with tempfile.TemporaryDirectory() as place:
    NAMES = list(fuzz.readers(Path(place)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_input_gives_a_result_or_a_documented_error(name):
    found = fuzz.fuzz(name, 120)
    assert found["refused"] > 60 and found["tried"] == found["read"] + found["refused"]


def test_a_header_that_numpy_cannot_tokenise_is_refused(tmp_path):
    content = fuzz.npy()
    (tmp_path / "a.npy").write_bytes(content[:66] + content[74:])  # what the fuzzer found first
    with pytest.raises(ValueError, match="no .npy file"):
        heads.read(tmp_path / "a.npy")
