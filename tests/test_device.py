"""All models work on a second device. This runs tests/device_rehearsal.py in a separate process."""

import subprocess
import sys

import pytest
from torch.utils import backend_registration

from utils import config


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of PyTorch has no devices written in Python",
)
def test_every_model_works_on_a_second_device():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "tests/device_rehearsal.py"]
    done = subprocess.run(command, cwd=config.PROJECT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
