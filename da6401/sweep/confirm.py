"""Confirms the winner: the best of many noisy trials is lucky, so the best few are trained again with fresh seeds."""

from __future__ import annotations

import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from da6401.config.schema import SweepConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import BusyError, MachineError, OutOfTimeError, RunError
from da6401.runs.run_folder import read_result
from da6401.runs.trial_folders import confirmation
from da6401.study.objective import Objective
from da6401.sweep.failures import machine_failure
from da6401.sweep.jobs import Job, RunJobs
from da6401.sweep.leases import WORKERS
from da6401.sweep.trial import latency_ms

log = logging.getLogger(__name__)

FRESH_SEED = 1_000_003  # the first of the fresh seeds, which users are unlikely to choose
POLL_SECONDS = 1.0  # between two attempts at a run that another process runs


@dataclass(frozen=True)
class Confirmed:
    """A trial of the sweep, retrained."""

    trial: int
    value: float  # in the sweep; the mean where the sweep searched the seed
    values: tuple[float, ...]  # with fresh seeds
    run: Path  # the retrained run with the median value

    @property
    def mean(self) -> float:
        """Of the fresh seeds' values."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation of the fresh seeds' values; 0 of one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def as_json(self) -> dict[str, Any]:
        """For sweep.json."""
        return {**dataclasses.asdict(self), "run": str(self.run), "mean": self.mean, "deviation": self.deviation}


def confirm(
    study: optuna.Study,
    space: SearchSpace,
    folder: Path,
    settings: SweepConfig,
    run_jobs: RunJobs,
    *,
    seconds: float = math.inf,
) -> list[Confirmed]:
    """Retrain the best ``sweep.confirm_top`` trials within the hard limits with ``sweep.confirm_seeds`` seeds each.

    They are ranked by the mean of the objective. A retraining that exists is not repeated, so a confirmation that was
    stopped continues, and of two commands that confirm the same study one trains and the other reads.

    Args:
        seconds: how long another process that trains them is waited for.

    Raises:
        MachineError: this machine cannot run them.
    """
    objective = Objective.of(settings)
    if not settings.confirm_top or objective.alone is None:
        return []
    within = [each for each in objective.candidates(study.get_trials(deepcopy=False)) if each.is_within]
    seeds = range(FRESH_SEED, FRESH_SEED + settings.confirm_seeds)
    chosen = [(each, [_job(space, each.trial, seed) for seed in seeds]) for each in within[: settings.confirm_top]]
    params = {each.trial.number: each.trial.params for each, _ in chosen}
    try:
        _retrain_missing([job for _, jobs in chosen for job in jobs], params, folder, objective, run_jobs, seconds)
    except OutOfTimeError as error:
        log.warning("%s: not all retrainings were run", error)
    except Timeout:
        log.warning("another process still confirms the winner: its retrainings so far are counted")
    confirmed = []
    for candidate, jobs in chosen:
        runs = [folder / job.folder for job in jobs]
        # A seed that failed is left out; the number of seeds in the table shows it.
        values = {run: value for run in runs if (value := _value(run, objective)) is not None}
        if values:
            median = objective.median(list(values.items()), lambda item: item[1:])[0]
            confirmed.append(Confirmed(candidate.trial.number, candidate.values[0], tuple(values.values()), median))
    return objective.order(confirmed, lambda item: [item.mean])


def seconds_to_confirm(study: optuna.Study, settings: SweepConfig) -> float:
    """What the confirmation will take in one process, from the longest trials so far; 0 without one."""
    if not settings.confirm_top:
        return 0.0
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seconds = sorted((trial.duration.total_seconds() for trial in trials if trial.duration), reverse=True)
    return settings.confirm_seeds * sum(seconds[: settings.confirm_top])


def _retrain_missing(
    jobs: Sequence[Job], params: Mapping[int, Mapping[str, Any]], folder: Path, objective: Objective,
    run_jobs: RunJobs, seconds: float,
) -> None:  # fmt: skip
    """Run those of the jobs that have no result, one process of this machine at a time.

    Raises:
        MachineError: this machine could not run some of them. OutOfTimeError: sweep.minutes are over. Timeout: another
            process was still training some of them after so many seconds.
    """
    end = time.monotonic() + seconds

    def missing() -> list[Job]:
        return [job for job in jobs if _value(folder / job.folder, objective) is None]

    if not missing():
        return
    lock = folder / WORKERS / "confirm.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=-1 if seconds == math.inf else max(0.0, seconds)):  # -1 waits for ever
        wanted = missing()
        while wanted:  # together: a launcher runs them in parallel
            busy = _retrain(wanted, params, folder, run_jobs)
            wanted = [job for job in missing() if job in busy]  # of a machine that does not see this one's locks
            if wanted and time.monotonic() > end:
                raise Timeout(str(lock))
            if wanted:
                time.sleep(POLL_SECONDS)


def _retrain(
    jobs: Sequence[Job], params: Mapping[int, Mapping[str, Any]], folder: Path, run_jobs: RunJobs
) -> list[Job]:
    """Run these jobs; one that fails for a reason of its own is logged. Returns those that another process runs.

    Args:
        params: the searched values of each trial.

    Raises:
        MachineError: this machine could not run some of them.
    """
    problems, busy = [], []
    for job, ended in zip(jobs, run_jobs(jobs), strict=True):
        problem = machine_failure(ended.error, params[job.number])
        if problem is not None:
            problems.append(f"{folder / job.folder} is not confirmed: {problem}")
        elif isinstance(ended.error, BusyError):
            busy.append(job)
        elif ended.error is not None:
            log.warning("%s: not confirmed: %s", folder / job.folder, ended.reason)
    if problems:  # an error, not a seed less: another machine can still run them
        raise MachineError("\n".join(problems))
    return busy


def _job(space: SearchSpace, trial: FrozenTrial, seed: int) -> Job:
    """The training of a trial with another seed."""
    fixed = [text for text in space.overrides(trial.params) if not text.startswith(("seed=", "++seed="))]
    return Job((*fixed, f"seed={seed}"), trial.number, confirmation(trial.number, seed))


def _value(run: Path, objective: Objective) -> float | None:
    """The objective of a retrained run; None where it is missing or did not complete."""
    try:
        result = read_result(run)
        values = objective.values(result, latency_ms=lambda: latency_ms(run)) if result.status == "completed" else None
    except RunError:
        return None
    return values[0] if values else None
