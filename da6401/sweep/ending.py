"""How trials and sweeps end: whether a failure is the machine's, and an error where too many trials failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from optuna.trial import FrozenTrial, TrialState

from da6401.errors import AllFailedError, NoDeviceError, UnreachableError, UserError
from da6401.sweep.leases import FINISHED, REASON, SKIPPED
from da6401.sweep.retrying import retried
from da6401.training.machine_failures import machine_problem, memory_of_machine

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def failure(trials: Sequence[FrozenTrial], *, most: float) -> UserError | None:
    """What is wrong with a sweep of these trials; None where enough of them came to an end.

    Args:
        most: how many may fail (hydra.sweeper.max_failure_rate).
    """
    aside = retried(trials)
    finished = [
        each
        for each in trials
        if each.state in FINISHED and each.number not in aside and SKIPPED not in each.user_attrs
    ]
    failed = [trial for trial in finished if trial.state is TrialState.FAIL]
    if len(failed) > most:
        return UserError(
            f"{len(failed)} trials failed, more than hydra.sweeper.max_failure_rate allows: {commonest_reason(failed)}"
        )
    if failed and len(failed) == len(finished):
        return AllFailedError(f"no trial was completed: {commonest_reason(failed)}")
    return None


def machine_failure(ended: JobReturn, params: Mapping[str, Any]) -> str | None:
    """Why a job failed on this machine and need not fail on another; None where it ran, or has failed for good.

    Args:
        params: what the trial itself has chosen, which is no machine's fault.
    """
    error = ended._return_value
    if ended.status is JobStatus.COMPLETED or not isinstance(error, Exception):
        return None
    key = "device" if isinstance(error, NoDeviceError) else error.key if isinstance(error, UnreachableError) else None
    if key is not None and not {key, key.partition(".")[0]}.isdisjoint(params):
        return None
    return machine_problem(error, memory_bytes=memory_of_machine())


def commonest_reason(failed: Sequence[FrozenTrial]) -> str:
    """Why most of these trials failed, in the words of the first; reasons that differ in numbers alone are one."""
    reasons = [str(trial.user_attrs.get(REASON, "for no reason that is known")) for trial in failed]
    kinds = [NUMBER.sub("0", reason) for reason in reasons]
    kind, count = Counter(kinds).most_common(1)[0]
    share = "" if count == len(failed) else f" ({count} of {len(failed)}; the other reasons stand in the table)"
    return reasons[kinds.index(kind)] + share
