"""The files and commands on the pages exist, no course image is in git, and settings and profiles work."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from utils import budgets, config
from utils.training import devices

PROJECT = config.PROJECT


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in sorted((PROJECT / "docs").glob("*.md")))]
)
def test_files_modules_and_make_targets_on_the_pages_exist(page):
    text = (PROJECT / page).read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((PROJECT / page).parent / path).exists(), path
    for module in re.findall(r"python -m (utils[.\w]*|benchmarks[.\w]*)", text):
        done = subprocess.run(
            [sys.executable, "-c", f"import importlib.util as u; assert u.find_spec('{module}')"], cwd=PROJECT
        )
        assert done.returncode == 0, module
    for target in re.findall(r"^make ([\w-]+)|`make ([\w-]+)", text, re.M):
        assert re.search(rf"^{''.join(target)}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M), target


def test_no_course_image_is_in_git():
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy of the project is not a git repository")
    files = listed.stdout.splitlines()
    for name in ("real_hands", "test_hands"):
        assert [f for f in files if f.startswith(name)] == [f"{name}/.gitkeep"]
    for name in ("GAN_hands", "VAE_hands"):
        ours = [f for f in files if f.startswith(name) and not f.endswith(".gitkeep")]
        assert len(ours) == 300 and all(re.fullmatch(rf"{name}/username_\d{{3}}\.jpeg", f) for f in ours)


@pytest.mark.parametrize("value", ["fast", ""])
def test_an_unknown_profile_is_refused(value):
    command = [sys.executable, "-c", "from utils import config; config.profile()"]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | {"PROFILE": value}, capture_output=True, text=True)
    assert done.returncode and "must be one of smoke, quick, full" in done.stderr


def test_hyperparameters_come_from_the_run_or_from_the_committed_file(monkeypatch, tmp_path):
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    committed = config.hyperparameters("vae")
    config.write_hyperparameters("vae", {"lr": 0.5})
    assert config.hyperparameters("vae") == {"lr": 0.5}
    assert config.hyperparameters("dcgan")  # the committed ones of other models are still found
    monkeypatch.setenv("PROFILE", "full")  # with RUNS_FOLDER (as in Colab), no committed file is replaced
    config.write_hyperparameters("vae", {"lr": 0.25})
    assert config.hyperparameters("vae") == {"lr": 0.25} and config.results_folder() == tmp_path / "full"
    monkeypatch.delenv("RUNS_FOLDER")
    assert config.hyperparameters("vae") == committed and config.results_folder() == PROJECT
    with pytest.raises(ValueError, match="no hyper-parameters for 'x'"):
        config.hyperparameters("x")


def test_writing_hyperparameters_stores_only_the_given_model(monkeypatch, tmp_path):
    """Copies of the committed values of other models would hide values that are committed later."""
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    path = config.write_hyperparameters("vae", {"lr": 0.5})
    assert json.loads(path.read_text(encoding="utf-8")) == {"vae": {"lr": 0.5}}
    config.write_hyperparameters("dcgan", {"anchor": 1.0})
    assert json.loads(path.read_text(encoding="utf-8")) == {"vae": {"lr": 0.5}, "dcgan": {"anchor": 1.0}}


def test_hyperparameters_are_written_whole_or_not_at_all(monkeypatch, tmp_path):
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    path = config.write_hyperparameters("vae", {"lr": 0.5})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        config.write_hyperparameters("vae", {"lr": 0.25})
    assert config.hyperparameters("vae") == {"lr": 0.5} and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b'{"vae": {"lr": 0.', b"[1, 2]", b'{"vae": 3}', b"\xff\xfe"])
def test_a_damaged_file_of_hyperparameters_is_named_and_kept(content, monkeypatch, tmp_path):
    monkeypatch.setenv("PROFILE", "quick")
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path))
    path = config.tuned_hyperparameters()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for use in (lambda: config.hyperparameters("vae"), lambda: config.write_hyperparameters("vae", {"lr": 0.5})):
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*Delete it"):
            use()
    assert path.read_bytes() == content
    assert config.hyperparameters("vae", committed=True)


def test_a_home_folder_in_runs_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    monkeypatch.setenv("RUNS_FOLDER", "~/my runs")
    assert config.run_folder("x") == tmp_path / "my runs" / config.profile() / "x"


@pytest.mark.parametrize("profile", config.PROFILES)
def test_every_task_has_a_budget_in_every_profile(profile, monkeypatch):
    monkeypatch.setenv("PROFILE", profile)
    tasks = (
        budgets.reading, budgets.hands, budgets.hands_tuning, budgets.classifier, budgets.classifier_tuning,
        budgets.heads, budgets.garments,
    )  # fmt: skip
    for task in tasks:
        for name, value in dataclasses.asdict(task()).items():
            numbers = value.values() if isinstance(value, dict) else [value]
            assert all(number is None or number > 0 for number in numbers), name
    assert tuple(budgets.garments().images_seen) == tuple(budgets.garments().trial_images) == config.FAMILIES
    assert budgets.classifier().folds == budgets.classifier_tuning().folds  # they share the pre-training


def test_help_and_errors_of_the_commands():
    for command in (["utils", "--help"], ["utils", "data", "--help"], ["utils", "notebooks", "--help"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 0 and "usage" in done.stdout
    command = [sys.executable, "-m", "utils", "data", "--from", "nowhere"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and "There is no 'nowhere'" in done.stderr and "Traceback" not in done.stderr


def test_importing_the_package_imports_no_slow_packages():
    names = (path.relative_to(PROJECT).with_suffix("") for path in sorted((PROJECT / "utils").glob("*/[a-z]*.py")))
    program = f"import sys, {', '.join('.'.join(name.parts) for name in names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert {"torch", "utils.models.diffusion"} <= set(done.stdout.split())
    assert not {"diffusers", "torchmetrics", "torchvision"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("flags", "format_"),
    [
        ({}, "no"),
        ({"avx512_bf16": True, "avx512_fp16": False}, "bf16"),
        ({"avx512_bf16": True, "avx512_fp16": True}, "no"),  # without matrix units, bfloat16 is slower
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, "bf16"),
    ],
)
def test_bfloat16_is_used_on_processors_that_are_fast_with_it(monkeypatch, flags, format_):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert devices.mixed_precision() == format_


def test_the_number_format_can_be_set_for_accelerate(monkeypatch):
    for told in ("no", "fp16", "bf16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
        assert devices.mixed_precision() == told
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ValueError, match="is 'fp8', but must be one of: no, fp16, bf16"):
        devices.mixed_precision()


@pytest.mark.parametrize(
    ("has_bfloat16", "capability", "format_"),
    [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "no")],  # an H100, Colab's T4, a GTX 1080
)
def test_the_number_format_of_a_gpu(monkeypatch, has_bfloat16, capability, format_):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert devices.mixed_precision() == format_


def test_values_that_were_tuned_on_stand_ins_are_not_used_for_real_images(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RUNS_FOLDER", str(tmp_path / "runs"))
    committed = config.hyperparameters("vae")
    (tmp_path / "utils").mkdir()
    shutil.copyfile(PROJECT / "utils" / "hyperparameters.json", tmp_path / "utils" / "hyperparameters.json")
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    note = tmp_path / "real_hands" / config.STAND_IN_NOTE
    note.parent.mkdir()
    note.touch()
    config.write_hyperparameters("vae", {"lr": 0.5})
    assert config.hyperparameters("vae") == {"lr": 0.5} and "tuned in this profile" in capsys.readouterr().out
    note.unlink()  # real images have come
    assert config.hyperparameters("vae") == committed and capsys.readouterr().out == ""
