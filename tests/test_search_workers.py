"""Eight processes on one study, two of them killed half-way: no trial is lost, and what the two left is tried again."""

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

from utils import runs, search

WORKERS, TRIALS, SECONDS = 8, 64, 0.8
WORKER = f"""
import os, sys, time
from pathlib import Path
from utils import search

search.HEARTBEAT = 1
folder, seed, url, victim = sys.argv[1:]
begun = 0

def objective(trial):
    global begun
    begun += 1
    trial.set_user_attr("process", os.getpid())
    x = trial.suggest_float("x", -1, 1)
    print("trial", flush=True)
    time.sleep(600 if victim and begun == 2 else {SECONDS})
    return x * x

study = search.join_study(Path(folder), "many", int(seed), url or None)
print("ready", flush=True)
sys.stdin.readline()
search.finish(study, objective, {TRIALS})
"""


def work(folder: Path, url: str = "", after_kill: Callable[[set[int]], None] = lambda _: None) -> set[int]:
    """Run the eight to the end, but for two that are killed in their second trial; returns these two's process ids."""
    victims = random.Random(0).sample(range(WORKERS), 2)
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(folder), str(seed), url,
             "victim" if seed in victims else ""],
            cwd=runs.PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for seed in range(WORKERS)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    killed = [workers[number] for number in victims]
    for worker in killed:
        assert [worker.stdout.readline() for _ in range(2)] == 2 * ["trial\n"]  # in the midst of its second
        worker.kill()
    after_kill({worker.pid for worker in killed})
    codes = [worker.wait(timeout=120) for worker in workers]
    assert Counter(codes) == {0: WORKERS - 2, -9: 2}
    return {worker.pid for worker in killed}


def complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to their end, after checks that hold for every study."""
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert TRIALS <= len(done) < TRIALS + WORKERS  # each may have been in a trial when the last one was complete
    assert all(trial.value == trial.params["x"] * trial.params["x"] for trial in done)
    return done


def test_a_journal_on_a_shared_folder(tmp_path):
    killed = work(tmp_path)
    study = search.join_study(tmp_path, "many", seed=0)
    done = complete(study)
    left = study.get_trials(states=[TrialState.RUNNING])
    assert {trial.user_attrs["process"] for trial in left} == killed and len(left) == 2
    study = search.open_study(tmp_path, "many", seed=0)  # all have ended: the next start takes up what is left
    search.finish(study, lambda trial: trial.suggest_float("x", -1, 1) ** 2, len(done) + 2)
    again = study.get_trials(states=[TrialState.COMPLETE])[-2:]
    assert {trial.params["x"] for trial in again} == {trial.params["x"] for trial in left}
    assert not study.get_trials(states=[TrialState.RUNNING])


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a fresh PostgreSQL server, which is stopped and removed afterwards."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs and "CI" in os.environ and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql"], check=False, stdout=subprocess.DEVNULL)
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not here: apt install postgresql")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
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


def test_a_database(tmp_path, database):
    optuna.create_study(study_name="many", storage=database)  # tables are made once, before the eight come

    def age(processes: set[int]) -> None:
        """An hour passes for the trials that these processes have left."""
        with psycopg.connect(database.replace("+psycopg", "")) as connection:
            connection.execute(
                "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour' "
                "FROM trials, trial_user_attributes a "
                "WHERE trials.trial_id = trial_heartbeats.trial_id AND a.trial_id = trials.trial_id "
                "AND trials.state = 'RUNNING' AND a.key = 'process' AND a.value_json = ANY(%s)",
                [[str(process) for process in processes]],
            )

    killed = work(tmp_path, database, age)
    study = optuna.load_study(study_name="many", storage=database)
    complete(study)
    failed = study.get_trials(states=[TrialState.FAIL])
    assert {trial.user_attrs["process"] for trial in failed} == killed and len(failed) == 2
    retried = [optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(t) for t in study.get_trials()]
    assert {trial.number for trial in failed} == set(retried) - {None}
    assert not study.get_trials(states=[TrialState.RUNNING])
