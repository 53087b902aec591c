"""Hyper-parameter studies with Optuna that survive a kill, and their tables and plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState


def open_study(folder: Path, name: str, seed: int) -> optuna.Study:
    """A study kept in `folder/name.journal`, to be minimised, pruned by the median of earlier trials.

    Trials that a kill left unfinished are marked failed and queued again.
    """
    path = str(folder / f"{name}.journal")
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))),
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def watch(trial: optuna.Trial, measure: Callable) -> Callable:
    """An evaluation hook for `training.fit` that returns what `measure(model)` does, a dict, tells Optuna its first
    value, and ends the trial where Optuna prunes it."""

    def hook(model):
        row = measure(model)
        trial.report(next(iter(row.values())), step=len(trial.study.trials[trial.number].intermediate_values))
        if trial.should_prune():
            raise optuna.TrialPruned
        return row

    return hook


def finish(study: optuna.Study, objective: Callable, trials: int, score: str = "score") -> pd.DataFrame:
    """Run what is missing to so many trials, pruned ones counted; returns the table of all, best first."""
    done = len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED]))
    study.optimize(objective, n_trials=max(0, trials - done))
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
