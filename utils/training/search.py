"""Hyper-parameter studies with Optuna that survive a kill, and their tables and plots."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT, GRACE = 60, 300  # seconds between signs of life of a trial in a database, and of silence that ends it
RETRIES = 3  # of a trial whose process has died, which may be the trial's fault
TRIES, PAUSE = 5, 0.5  # to make the tables of a database, and seconds between


def open_database(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage in the database at `url`; its tables are made if it has none, whoever else is making them.

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
        except (IntegrityError, ProgrammingError):  # "already exists": another process was quicker
            if not left:
                raise
            time.sleep(PAUSE)


def join_study(folder: Path, name: str, seed: int, url: str | None = None) -> optuna.Study:
    """A study to be minimised, pruned by the median of earlier trials, for one process of many.

    Args:
        folder: where `name.journal` is kept: a local folder, or one that all machines share.
        seed: of the sampler, another one for each process, or they all begin with the same settings.
        url: a database to keep the study in instead, as "postgresql+psycopg://user@host/name". There, a trial whose
            process has been silent for GRACE seconds is marked failed and queued again, RETRIES times at most, by the
            next process that begins a trial. A journal cannot tell; for one, `open_study` does it, once all processes
            have ended.
    """
    if url:
        storage = open_database(url)
    else:
        path = str(folder / f"{name}.journal")
        storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    return optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        load_if_exists=True,
    )


def open_study(folder: Path, name: str, seed: int) -> optuna.Study:
    """A study for this process alone, kept in `folder/name.journal`; see `join_study`.

    Trials that a kill left unfinished are marked failed and queued again, RETRIES times at most; one that is given up
    is reported.
    """
    study = join_study(folder, name, seed)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        retries = trial.user_attrs.get("retries", 0)
        params = trial.system_attrs.get("fixed_params", {}) | trial.params  # it may not have asked for all of them yet
        if retries < RETRIES:
            study.enqueue_trial(params, user_attrs={"retries": retries + 1})
        else:
            print(f"Trial {trial.number} of '{name}' is given up, its process has died {retries + 1} times: {params}")
    return study


def watch(trial: optuna.Trial, measure: Callable) -> Callable:
    """An evaluation hook for `loop.fit` that returns what `measure(model)` does, a dict, tells Optuna its first
    value, and ends the trial where Optuna prunes it."""

    def hook(model):
        row = measure(model)
        trial.report(next(iter(row.values())), step=len(trial.study.trials[trial.number].intermediate_values))
        if trial.should_prune():
            raise optuna.TrialPruned
        return row

    return hook


def finish(study: optuna.Study, objective: Callable, trials: int, score: str = "score") -> pd.DataFrame:
    """Run what is missing to so many trials, pruned ones and those of other processes counted; returns the table of
    all, best first. Trials that others have begun are not waited for."""
    if len(study.get_trials(states=ENDED)) < trials:
        study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=ENDED)])
    table = study.trials_dataframe(attrs=("number", "value", "params", "state", "duration"))
    ended = table.state.isin(["COMPLETE", "PRUNED"])
    table = table[ended].sort_values(["state", "value"]).rename(columns={"value": score})
    table["duration"] = table.duration.dt.total_seconds().round().astype(int).astype(str) + " s"
    return table.rename(columns=lambda c: c.removeprefix("params_")).set_index("number")


def plot_study(study: optuna.Study, score: str = "score") -> None:
    """Parallel coordinates of the trials and, from three finished ones on, the importance of each setting."""
    with plt.rc_context(), warnings.catch_warnings():  # Optuna changes the style of all figures that follow
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name=score)
        plt.gcf().set_size_inches(9, 4)
        plt.show()
        if len(study.get_trials(states=[TrialState.COMPLETE])) > 2:
            optuna.visualization.matplotlib.plot_param_importances(study, target_name=score)
            plt.gcf().set_size_inches(7, 2.5)
            plt.show()
