"""sweep.retry_failed: failed trials once more, when their cause is mended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.runs.trial_folders import folder_name
from da6401.sweep.leases import ATTEMPTS, SKIPPED

log = logging.getLogger(__name__)

RETRY_OF = "retry_of"  # user attribute of a trial: the number of the failed one whose parameters it has


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of the failed trials that another one stands for by now."""
    return {int(trial.user_attrs[RETRY_OF]) for trial in trials if RETRY_OF in trial.user_attrs}


def retry_failed(study: optuna.Study) -> None:
    """Put a new trial in the queue for each that failed, with its parameters: a finished trial cannot be changed.

    They come on top of the study's total. A trial that was not trained, since it would have repeated another, is none
    of them.
    """
    trials = study.get_trials(deepcopy=False)
    known = retried(trials)
    again = [
        trial
        for trial in trials
        if trial.state is TrialState.FAIL and trial.number not in known and SKIPPED not in trial.user_attrs
    ]
    for trial in again:
        copy = create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
            user_attrs={ATTEMPTS: 1, RETRY_OF: trial.number},
        )  # fmt: skip
        study._storage.create_new_trial(study._study_id, copy)
    numbers = ", ".join(str(trial.number) for trial in again)
    told = f"trials that run again under new numbers: {numbers}" if again else "no trial failed"
    log.info("sweep.retry_failed: %s", told)


def retry_folder(name: str, claimed: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
    """A folder's name that a retry shares with the failed trial, made its own; any other name as it is.

    Args:
        name: what hydra.sweep.subdir comes to, which is the same for both where it says the parameters alone.
    """
    if RETRY_OF in claimed.user_attrs and name in {
        folder_name(each) for each in trials if each.number < claimed.number
    }:
        return f"{name}-retry-{claimed.number}"
    return name
