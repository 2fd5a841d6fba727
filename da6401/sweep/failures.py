"""Failed trials: is the machine at fault, have too many failed, and how they run again (sweep.retry_failed)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.errors import AllFailedError, NoDeviceError, UnreachableError, UserError
from da6401.runs.trial_folders import FOLDER, folder_name
from da6401.study.roles import OF_THE_RACE
from da6401.study.trial_store import TrialStore
from da6401.sweep.leases import ATTEMPTS, REASON, RESUMABLE, SKIPPED
from da6401.training.machine_failures import machine_problem

log = logging.getLogger(__name__)

RETRY_OF = "retry_of"  # user attribute of a trial: the number of the failed trial that it repeats
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of the failed trials that a later trial repeats."""
    return {int(trial.user_attrs[RETRY_OF]) for trial in trials if RETRY_OF in trial.user_attrs}


def sweep_failure(trials: Sequence[FrozenTrial], *, most: float) -> UserError | None:
    """The error of a sweep with too many failed trials; None where enough of them ended well.

    Args:
        most: how many may fail (hydra.sweeper.max_failure_rate).
    """
    failed = _failed(trials)
    if len(failed) > most:
        return UserError(
            f"{len(failed)} trials failed, more than hydra.sweeper.max_failure_rate allows: {commonest_reason(failed)}"
        )
    if failed and not any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials):
        return AllFailedError(f"no trial was completed: {commonest_reason(failed)}")
    return None


def machine_failure(error: BaseException | None, params: Mapping[str, Any]) -> str | None:
    """Why a job failed on this machine and may succeed on another; None where it would fail anywhere.

    Args:
        params: the trial's searched values; what they cause is not the machine's fault.
    """
    if not isinstance(error, Exception):
        return None
    key = "device" if isinstance(error, NoDeviceError) else error.key if isinstance(error, UnreachableError) else None
    if key is not None and not {key, key.partition(".")[0]}.isdisjoint(params):
        return None
    return machine_problem(error)


def commonest_reason(failed: Sequence[FrozenTrial]) -> str:
    """The most frequent reason of these trials, as its first trial states it; numbers in it are not compared."""
    reasons = [str(trial.user_attrs.get(REASON, "for no reason that is known")) for trial in failed]
    kinds = [NUMBER.sub("0", reason) for reason in reasons]
    kind, count = Counter(kinds).most_common(1)[0]
    share = "" if count == len(failed) else f" ({count} of {len(failed)}; the table gives the other reasons)"
    return reasons[kinds.index(kind)] + share


def retry_failed(study: optuna.Study) -> None:
    """Enqueue a copy of each failed trial: a finished trial cannot be changed. Copies add to the study's total.

    The copy of a race's training is one, too; that of a trial whose images had changed resumes in its folder.
    """
    failed, store = _failed(study.get_trials(deepcopy=False)), TrialStore(study)
    for trial in failed:
        kept = {name: value for name, value in trial.user_attrs.items() if name in OF_THE_RACE}
        if RESUMABLE in trial.user_attrs:
            kept[FOLDER] = folder_name(trial)
        copy = create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
            user_attrs={**kept, ATTEMPTS: 1, RETRY_OF: trial.number},
        )  # fmt: skip
        store.create(copy)
    numbers = ", ".join(str(trial.number) for trial in failed)
    log.info("sweep.retry_failed: %s", f"trials that run again under new numbers: {numbers}" if numbers else
             "no trial failed")  # fmt: skip


def _failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The failed trials that were trained and that no later trial repeats."""
    repeated = retried(trials)
    return [
        trial
        for trial in trials
        if trial.state is TrialState.FAIL and trial.number not in repeated and SKIPPED not in trial.user_attrs
    ]
