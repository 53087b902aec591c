"""Searches: many processes with one study, trials of killed processes, torn journals, and seeds."""

import errno
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from tests.conftest import documented
from utils import config
from utils.training import search

WORKERS, TRIALS, SECONDS = 8, 64, 0.1
WORKER = f"""
import os, sys, time
from pathlib import Path
from utils.training import search

folder, seed, url = sys.argv[1:]
begun = 0

def objective(trial):
    global begun
    begun += 1
    trial.set_user_attr("process", os.getpid())
    x = trial.suggest_float("x", -1, 1)
    print("trial", trial.number, flush=True)
    if begun == 2:
        sys.stdin.readline()  # a process that will be killed waits here for ever
    time.sleep({SECONDS})
    return x * x

study = search.join_study(Path(folder), "many", int(seed), url or None)
print("ready", flush=True)
sys.stdin.readline()
search.finish(study, objective, {TRIALS})
"""


def go(workers: list[subprocess.Popen]) -> None:
    """Let these workers continue. They wait for a line of input."""
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()


def work(
    folder: Path, url: str = "", after_kill: Callable[[set[int]], None] = lambda _: None
) -> tuple[set[int], Counter]:
    """Start eight workers with one study. Two are killed in their second trial. The others run to the end.

    Args:
        folder: the folder of the journal.
        url: the address of the database, if there is one.
        after_kill: is called with the ids of the killed processes, while the others are in their second trial.

    Returns:
        The ids of the killed processes, and how often each trial was run.
    """
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(folder), str(seed), url],
            cwd=config.PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for seed in range(WORKERS)
    ]  # fmt: skip
    killed = random.Random(0).sample(workers, 2)
    others = [worker for worker in workers if worker not in killed]
    try:
        assert [worker.stdout.readline() for worker in workers] == WORKERS * ["ready\n"]
        go(workers)
        lines = [worker.stdout.readline() for worker in workers for _ in range(2)]
        for worker in killed:
            worker.kill()
            worker.wait()
        after_kill({worker.pid for worker in killed})
        go(others)
        assert [worker.wait(timeout=120) for worker in others] == (WORKERS - 2) * [0]
        lines += [line for worker in workers for line in worker.stdout]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return {worker.pid for worker in killed}, Counter(int(line.removeprefix("trial ")) for line in lines)


def complete(study: optuna.Study, ran: Counter) -> list[optuna.trial.FrozenTrial]:
    """Check the study, and return its finished trials. `ran` counts how often each trial was run."""
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert ran == Counter(trial.number for trial in trials)  # each trial was run once
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert TRIALS <= len(done) < TRIALS + WORKERS  # at the end, each worker may have been in a trial
    assert all(trial.value == trial.params["x"] * trial.params["x"] for trial in done)
    return done


@pytest.mark.slow
def test_a_journal_on_a_shared_folder(tmp_path):
    killed, ran = work(tmp_path)
    study = search.join_study(tmp_path, "many", seed=0)
    done = complete(study, ran)
    left = study.get_trials(states=[TrialState.RUNNING])
    assert {trial.user_attrs["process"] for trial in left} == killed and len(left) == 2
    study = search.open_study(tmp_path, "many", seed=0)  # queues the trials of the killed processes again
    search.finish(study, lambda trial: trial.suggest_float("x", -1, 1) ** 2, len(done) + 2)
    again = study.get_trials(states=[TrialState.COMPLETE])[-2:]
    assert {trial.params["x"] for trial in again} == {trial.params["x"] for trial in left}
    assert not study.get_trials(states=[TrialState.RUNNING])


def test_a_trial_keeps_its_settings_if_its_process_dies_before_it_asks_for_them(tmp_path):
    study = search.open_study(tmp_path, "queued", seed=0)
    study.enqueue_trial({"x": 0.5})
    study.ask()  # the process dies here
    assert search.open_study(tmp_path, "queued", seed=0).ask().suggest_float("x", -1, 1) == 0.5


def test_a_trial_that_always_kills_its_process_is_given_up(tmp_path, capsys):
    for _ in range(1 + search.RETRIES):
        search.open_study(tmp_path, "deadly", seed=0).ask().suggest_float("x", -1, 1)  # starts and never ends
    trials = search.open_study(tmp_path, "deadly", seed=0).get_trials()
    assert [trial.state for trial in trials] == (1 + search.RETRIES) * [TrialState.FAIL]
    assert len({trial.params["x"] for trial in trials}) == 1
    assert "is given up: its process has died 4 times" in capsys.readouterr().out


def begin_and_end_a_trial(folder: Path, seed: int = 0) -> float:
    """Start a search and stop it after one trial. Returns the setting of the trial."""
    study = search.open_study(folder, "stopped", seed)
    trial = study.ask()
    x = trial.suggest_float("x", -1, 1)
    study.tell(trial, x * x)
    return x


def test_a_search_that_is_started_again_repeats_no_trial(tmp_path):
    assert len({begin_and_end_a_trial(tmp_path) for _ in range(4)}) == 4


def test_the_same_seed_gives_the_same_search_and_another_seed_a_different_one(tmp_path):
    tables = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        study = search.open_study(tmp_path / str(number), "calm", seed)
        tables.append(search.finish(study, lambda trial: trial.suggest_float("x", -1, 1) ** 2, 8).x.tolist())
    assert tables[0] == tables[1] != tables[2]


TORN = {
    "cut in a line": lambda lines: b"".join(lines) + lines[-1][:30],
    "cut in a line, and another line follows": lambda lines: b"".join(lines) + lines[-1][:30] + lines[-1],
    "only the end of the line is missing": lambda lines: b"".join(lines)[:-1],
    "zeros, as after a power cut": lambda lines: b"".join(lines) + bytes(100),
    "no line of a journal": lambda lines: b"".join(lines) + b"7\n",
}


@pytest.mark.parametrize("damage", TORN)
def test_finished_trials_of_a_torn_journal_are_kept_and_the_rest_is_set_aside(damage, tmp_path, capsys):
    xs = [begin_and_end_a_trial(tmp_path) for _ in range(3)]
    journal = tmp_path / "stopped.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = TORN[damage](lines)
    journal.write_bytes(torn)
    xs.append(begin_and_end_a_trial(tmp_path))
    trials = search.open_study(tmp_path, "stopped", 0).get_trials(states=[TrialState.COMPLETE])
    kept = 2 if damage.startswith("only") else 3  # the torn line is the end of the third trial
    assert [trial.params["x"] for trial in trials][:kept] == xs[:kept] and trials[-1].params["x"] == xs[-1]
    aside = (tmp_path / "stopped.journal.torn_1").read_bytes()
    assert torn.endswith(aside) and torn[: -len(aside)] == b"".join(lines[: len(lines) - (kept == 2)])
    assert "stopped.journal.torn_1" in capsys.readouterr().out
    assert not (tmp_path / "stopped.journal.torn_2").exists()


def test_a_full_disk_during_the_repair_of_a_journal_loses_nothing(tmp_path, monkeypatch):
    begin_and_end_a_trial(tmp_path)
    journal = tmp_path / "stopped.journal"
    torn = journal.read_bytes() + b"{"
    journal.write_bytes(torn)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context, pytest.raises(OSError, match="No space left"):
        context.setattr(os, "fsync", full)
        search.open_study(tmp_path, "stopped", 0)
    assert journal.read_bytes() == torn
    assert len(search.open_study(tmp_path, "stopped", 0).get_trials()) == 1  # the lock was released


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a new PostgreSQL server. It is stopped and deleted after the test."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (on Debian and Ubuntu: apt install postgresql)")
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp())
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        command = [str(programs[-1] / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        call("initdb", "-U", "student", "--auth=trust", "-E", "UTF8")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "start", "-w", "-o", options, "-l", str(folder / "log"))
        yield f"postgresql+psycopg://student@127.0.0.1:{port}/postgres"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            call("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_database(tmp_path, database):
    def age(processes: set[int]) -> None:
        """Make the heartbeats of these processes' trials one hour old."""
        with psycopg.connect(database.replace("+psycopg", "")) as connection:
            connection.execute(
                "INSERT INTO trial_heartbeats (trial_id, heartbeat) "  # a trial may have no heartbeat yet
                "SELECT trial_id, LOCALTIMESTAMP - interval '1 hour' FROM trials JOIN trial_user_attributes a "
                "USING (trial_id) WHERE state = 'RUNNING' AND a.key = 'process' AND a.value_json = ANY(%s) "
                "ON CONFLICT (trial_id) DO UPDATE SET heartbeat = excluded.heartbeat",
                [[str(process) for process in processes]],
            )

    killed, ran = work(tmp_path, database, age)
    study = optuna.load_study(study_name="many", storage=database)
    complete(study, ran)
    failed = study.get_trials(states=[TrialState.FAIL])
    assert {trial.user_attrs["process"] for trial in failed} == killed and len(failed) == 2
    number = optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number
    retried = [trial for trial in study.get_trials() if number(trial) is not None]
    assert sorted(number(trial) for trial in retried) == [trial.number for trial in failed]
    assert [trial.state for trial in retried] == 2 * [TrialState.COMPLETE]
    assert {trial.params["x"] for trial in retried} == {trial.params["x"] for trial in failed}
    assert not study.get_trials(states=[TrialState.RUNNING])


@pytest.mark.slow
def test_the_documented_script(tmp_path):
    (tmp_path / "search_many.py").write_text(documented("join_study"), encoding="utf-8")
    (tmp_path / "runs").mkdir()
    commands = [[sys.executable, "-W", "ignore", "search_many.py", str(seed)] for seed in range(2)]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(config.PROJECT)}, "stdout": subprocess.PIPE}
    started = [subprocess.Popen(command, **options, text=True) for command in commands]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0] and "learning_rate" in printed[0]
    ended = search.join_study(tmp_path / "runs", "many", seed=0).get_trials(states=search.ENDED)
    assert 40 <= len(ended) <= 41
