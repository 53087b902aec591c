"""`make gpu`: packed trainings are loaded elsewhere as what they are, and the whole command runs without a GPU."""

import argparse
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import gpu, gpu_speed, models, packing, soak
from utils import config
from utils.training import checkpoints, devices, loop

PRETEND = """
import atexit
from tests import pretend
here = pretend.device()
here.__enter__()
atexit.register(here.__exit__, None, None, None)
"""
WITH_A_KERNEL = """
import subprocess, sys, time
from pathlib import Path
kernel = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Path(sys.argv[1]).write_text(str(kernel.pid), encoding="utf-8")
time.sleep(600)
"""


@pytest.fixture
def lent(tmp_path, monkeypatch):
    """A folder for runs. The checkpoints say that they were written on a GPU."""
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path / "lent"))
    monkeypatch.setattr(devices, "device_name", lambda: "Some GPU")
    return config.run_folder()


def train(kind: str, folder: Path, steps: int = 4, **options):
    """A small model after its training, and its history."""
    devices.seed_everything(0)
    model = soak.MODELS[kind]()
    return model, loop.fit(model, soak.data(kind), steps, 4, folder, {}, evaluations=2, plot=False, **options)


def unpack(out: Path, runs: Path) -> None:
    for path in sorted(out.glob("runs_*.tar")):
        with tarfile.open(path) as archive:
            archive.extractall(runs, filter="data")


@pytest.mark.parametrize("kind", ["GAN", "flow", "imputer"])
def test_a_finished_training_is_smaller_when_packed_and_is_loaded_elsewhere_as_finished(kind, lent, tmp_path, capsys):
    trained, history = train(kind, lent / "course" / kind)
    (known,), left_out = packing.pack(tmp_path / "out")
    assert (known.step, known.steps, known.device, known.archive) == (4, 4, "Some GPU", "runs_1.tar")
    assert known.name == f"smoke/course/{kind}" and known.minutes > 0 and left_out == []
    unpack(tmp_path / "out", tmp_path / "home")
    (there,), (here,) = checkpoints.find(lent / "course" / kind)[-1:], checkpoints.find(tmp_path / "home" / known.name)
    weights = sum(x.nbytes for x in trained.state_dict().values())
    assert here.stat().st_size < min(weights + 100_000, there.stat().st_size)  # no moments, and no weights twice
    assert (tmp_path / "home" / known.name / "history.json").is_file()
    capsys.readouterr()
    loaded, same = train(kind, tmp_path / "home" / known.name)
    said = capsys.readouterr().out
    assert f"was finished on {checkpoints.read(there).date} (Some GPU): loaded" in said
    assert same == history
    assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in trained.state_dict().items())


def test_an_unfinished_training_is_packed_complete_and_goes_on(lent, tmp_path, capsys):
    def stop(model):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train("VAE", lent / "vae", evaluate=stop, checkpoint_seconds=0)
    (known,), _ = packing.pack(tmp_path / "out")
    assert known.step < known.steps == 4
    unpack(tmp_path / "out", tmp_path / "home")
    model, _ = train("VAE", tmp_path / "home" / "smoke" / "vae")
    assert f"goes on from step {known.step} of 4" in capsys.readouterr().out
    whole, _ = train("VAE", tmp_path / "at once")
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in whole.state_dict().items())


def test_what_a_cpu_trained_and_what_was_set_aside_is_not_packed(lent, tmp_path, monkeypatch):
    train("VAE", lent / "vae.old_1")
    monkeypatch.setattr(devices, "device_name", lambda: "cpu")
    train("VAE", lent / "vae")
    assert packing.pack(tmp_path / "out")[0] == []
    with tarfile.open(tmp_path / "out" / "runs_1.tar") as archive:
        assert archive.getnames() == ["smoke/vae/history.json"]


# The ResNet-18 is only an opponent. docs/gpu.md names the others.
TOO_LARGE = ["VAE, hands", "ResNet-18, hands", "VAE, garments"]


def test_the_committed_models_that_do_not_fit_into_an_archive_are_known():
    sizes = {name: sum(x.nbytes for x in case.build().state_dict().values()) for name, case in models.cases().items()}
    assert [name for name, size in sizes.items() if size > packing.LARGEST - 100_000] == TOO_LARGE


def item(name: str, size: int, folder: Path) -> packing.Item:
    """An item with a file that says it has so many bytes."""
    with (folder / name).open("wb") as file:
        file.truncate(size)
    return packing.Item(name, [(folder / name, name)])


def test_no_archive_is_larger_than_allowed_and_what_does_not_fit_is_named(tmp_path):
    sizes = [9_000_000] * 9 + [5_000_000, 16_000_000, 1_000]
    items = [item(f"{number}", size, tmp_path) for number, size in enumerate(sizes)]
    archives, left_out = packing.distribute(items)
    assert [[one.name for one in part] for part in archives] == [["0", "9", "11"], ["1"], ["2"], ["3"], ["4"], ["5"]]
    assert [one.name for one in left_out] == ["6", "7", "8", "10"]
    for part in archives:
        with tarfile.open(tmp_path / "one.tar", "w") as archive:
            for file, name in (pair for one in part for pair in one.files):
                archive.add(file, name)
        assert (tmp_path / "one.tar").stat().st_size <= packing.LARGEST


def test_a_part_that_takes_too_long_is_stopped_and_a_failure_is_told(monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 1)
    assert gpu.call([sys.executable, "-c", ""], 60) == "done"
    assert gpu.call([sys.executable, "-c", "1 / 0"], 60) == "FAILED"
    assert gpu.call([sys.executable, "-c", "import time; time.sleep(600)"], 1.5) == "stopped"
    assert gpu.call([sys.executable, "-c", ""], 0.5).startswith("not started")


def test_a_stopped_part_leaves_no_process_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "GRACE", 1)
    assert gpu.call([sys.executable, "-c", WITH_A_KERNEL, str(tmp_path / "pid")], 4) == "stopped"
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_wrong_name_in_train_is_refused_with_the_right_ones():
    assert gpu.chosen("heads, hands,") == ["heads", "hands"]
    with pytest.raises(argparse.ArgumentTypeError, match="TRAIN has hand, but can only have hands, classifier"):
        gpu.chosen("hand")


def test_nothing_is_missing_in_this_environment_and_a_missing_package_is_named(monkeypatch, tmp_path):
    assert gpu.missing_packages() == []
    (tmp_path / "requirements.txt").write_text(
        "torch>=2.5  # models\n# a comment\nno-such[extra]>=1\n", encoding="utf-8"
    )
    monkeypatch.setattr(gpu, "REQUIREMENTS", tmp_path / "requirements.txt")
    assert gpu.missing_packages() == ["no-such"]
    monkeypatch.setattr(gpu, "FOR_ALL", ("no-such",))
    with pytest.raises(SystemExit, match="without these packages: no-such"):
        gpu.work(1, ["hands"], tmp_path)


def test_the_table_of_the_speed_has_a_dash_where_nothing_could_be_measured(monkeypatch, tmp_path, capsys):
    course = models.Course(600, 1, False, lambda model: None)
    case = models.Case(soak.MODELS["classifier"], soak.data("classifier"), 4, course=course)
    monkeypatch.setattr(models, "cases", lambda: {"small": case, "broken": case._replace(batch_size=0)})
    monkeypatch.setattr(sys, "argv", ["gpu_speed", str(tmp_path / "speed.md")])
    for name in ("ROUNDS", "SECONDS"):
        monkeypatch.setattr(models, name, getattr(models, name))  # `main` changes them
    gpu_speed.main()
    rows = (tmp_path / "speed.md").read_text(encoding="utf-8").splitlines()
    small = [cell.strip() for cell in rows[-2].split("|")[1:-1]]
    rate, minutes = float(small[2].replace(",", "")), float(small[6])
    assert small[0] == "small" and small[4:6] == ["-", "-"]
    assert minutes == pytest.approx(600 / rate / 60, rel=0.02)
    assert rows[-1].startswith("| broken | - | - | - |") and "broken: " in capsys.readouterr().out


def test_a_compiled_step_that_computes_the_same_has_the_same_losses(monkeypatch):
    monkeypatch.setattr(models, "ROUNDS", 1)
    monkeypatch.setattr(models, "SECONDS", 0.01)
    compiled = []
    monkeypatch.setattr(models, "compile_parts", compiled.append)
    case = models.Case(soak.MODELS["GAN"], (soak.data("GAN"),), 4)
    row = gpu_speed.compiled_row(case)
    assert row["compiled: losses differ by"] == 0 and row["compiled"] > 0 and compiled


@pytest.mark.slow
def test_everything_runs_on_the_pretended_device(tmp_path):
    """Every Python that is started there begins with the pretended device, also the kernels of the notebooks."""
    (tmp_path / "sitecustomize.py").write_text(PRETEND, encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{config.PROJECT}", "PROFILE": "smoke", "OMP_NUM_THREADS": "1",
        "RUNS_FOLDER": str(tmp_path / "runs"), "ACCELERATE_MIXED_PRECISION": "no",
    }  # fmt: skip
    out = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.gpu", "--minutes", "9", "--train", "hands", "--out", str(out)]
    done = subprocess.run(command, cwd=config.PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "- tests of CUDA: done" in report and "- hands: done" in report
    assert "| smoke/cw1_clean" in report and "| pretended |" in report and "VAE, hands" in report
    unpack(out, tmp_path / "home")
    assert len(list((tmp_path / "home" / "smoke" / "GAN_hands").glob("*.jpeg"))) == 300
    assert len(list(out.iterdir())) <= 8
