"""Hyper-parameter searches with Optuna that survive a killed process, and their tables and plots."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from utils.files import printable, write_atomically

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT = 60  # seconds between two heartbeats of a trial in a database
GRACE = 300  # seconds without a heartbeat after which a trial counts as dead
RETRIES = 3  # how often a trial is repeated after its process has died; there is a limit, as the trial may be the cause
TRIES, PAUSE = 5, 0.5  # attempts to create the tables of a database, and seconds between two attempts


def open_database(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage in the database at `url`. It creates missing tables. Other processes may do so at the same time.

    Raises:
        sqlalchemy.exc.DatabaseError: the database cannot be reached, or refuses the tables for another reason.
    """
    from sqlalchemy.exc import IntegrityError, ProgrammingError  # here, because notebooks need no database

    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    for left in reversed(range(TRIES)):
        try:
            return optuna.storages.RDBStorage(
                url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=retry
            )
        except (IntegrityError, ProgrammingError):  # "already exists": another process was faster
            if not left:
                raise
            time.sleep(PAUSE)


def open_journal(path: Path) -> JournalStorage:
    """Optuna's storage in the file `path`, one line of JSON for each change. `mend_journal` repairs the file first."""
    lock = JournalFileOpenLock(str(path))
    if path.is_file():
        lock.acquire()
        try:
            mend_journal(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def mend_journal(path: Path) -> None:
    """Repair a journal: move the first damaged line and all lines after it to `<path>.torn_1` (or `_2`, ...).

    A full disk or a power cut can cut off the last line of a journal. If another line is added, Optuna cannot read the
    journal any more. The lines after a damaged line cannot be used, because trials are numbered by their order in the
    file.
    """
    content = path.read_bytes()
    whole = 0
    for line in content.splitlines(keepends=True):
        try:
            if not (line.endswith(b"\n") and isinstance(json.loads(line), dict)):
                break
        except ValueError:
            break
        whole += len(line)
    if whole == len(content):
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.torn_{number}")).exists():
        number += 1
    write_atomically(aside, content[whole:])
    write_atomically(path, content[:whole])
    print(
        f"'{printable(path)}' was damaged, perhaps by a full disk. The trials before the damage are kept; the last "
        f"{len(content) - whole} bytes are now in '{aside.name}'."
    )


def join_study(folder: Path, name: str, seed: int, url: str | None = None) -> optuna.Study:
    """A study that several processes share. The score is minimised. A trial that is worse than the median is pruned.

    Args:
        folder: folder of `name.journal`. It must be local, or shared by all machines.
        seed: seed of the sampler. Each process needs a different seed. Otherwise, all processes begin with the same
            settings. The seed is combined with the number of trials so far. So a study that goes on does not repeat its
            first trials.
        url: keep the study in this database instead, for example "postgresql+psycopg://user@host/name". If a trial in
            it had no heartbeat for GRACE seconds, the next process that begins a trial marks it as failed and queues it
            again, at most RETRIES times. A journal has no heartbeats. For a journal, call `open_study` after all
            processes have ended.
    """
    study = optuna.create_study(
        study_name=name,
        storage=open_database(url) if url else open_journal(folder / f"{name}.journal"),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        load_if_exists=True,
    )
    mixed = np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False))]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(mixed[0]), n_startup_trials=4)
    return study


def open_study(folder: Path, name: str, seed: int) -> optuna.Study:
    """A study for this process alone, kept in `folder/name.journal`; see `join_study`.

    A trial that a killed process has left unfinished is marked as failed and queued again, at most RETRIES times.
    After that, the trial is given up, and a line is printed.
    """
    study = join_study(folder, name, seed)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        retries = trial.user_attrs.get("retries", 0)
        params = trial.system_attrs.get("fixed_params", {}) | trial.params  # it may not have drawn all of them yet
        if retries < RETRIES:
            study.enqueue_trial(params, user_attrs={"retries": retries + 1})
        else:
            print(f"Trial {trial.number} of '{name}' is given up: its process has died {retries + 1} times. {params}")
    return study


def watch(trial: optuna.Trial, measure: Callable) -> Callable:
    """An evaluation hook for `loop.fit` that returns the dict of `measure(model)`.

    The hook reports the first value of the dict to Optuna, and ends the trial if Optuna prunes it.
    """

    def hook(model):
        row = measure(model)
        trial.report(next(iter(row.values())), step=len(trial.study.trials[trial.number].intermediate_values))
        if trial.should_prune():
            raise optuna.TrialPruned
        return row

    return hook


def finish(study: optuna.Study, objective: Callable, trials: int) -> pd.DataFrame:
    """Run trials until the study has `trials` of them. Returns a table of all trials, the best first.

    Pruned trials and trials of other processes count. The function does not wait for unfinished trials of other
    processes.
    """
    if len(study.get_trials(states=ENDED)) < trials:
        study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=ENDED)])
    table = study.trials_dataframe(attrs=("number", "value", "params", "state", "duration"))
    ended = table.state.isin(["COMPLETE", "PRUNED"])
    table = table[ended].sort_values(["state", "value"]).rename(columns={"value": "score"})
    table["duration"] = table.duration.dt.total_seconds().round().astype(int).astype(str) + " s"
    return table.rename(columns=lambda c: c.removeprefix("params_")).set_index("number")


def plot_study(study: optuna.Study) -> None:
    """Parallel coordinates of the trials and, if three or more are finished, the importance of each setting."""
    with plt.rc_context(), warnings.catch_warnings():  # Optuna changes the style of all later figures
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name="score")
        plt.gcf().set_size_inches(9, 4)
        plt.show()
        if len(study.get_trials(states=[TrialState.COMPLETE])) > 2:
            optuna.visualization.matplotlib.plot_param_importances(study, target_name="score")
            plt.gcf().set_size_inches(7, 2.5)
            plt.show()
