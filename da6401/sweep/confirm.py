"""Confirming the winner: the best of many noisy trials is lucky, so the best few are trained again with fresh seeds."""

from __future__ import annotations

import dataclasses
import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from da6401.config.metrics import Metric
from da6401.config.schema import SweepConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import MachineError, RunError
from da6401.runs.run_folder import read_result
from da6401.runs.trial_folders import confirmation
from da6401.study.objective import Objective, median_of
from da6401.sweep.failures import machine_failure
from da6401.sweep.jobs import Job, RunJobs
from da6401.sweep.trial import latency_ms

log = logging.getLogger(__name__)

FRESH_SEED = 1_000_003  # the first of the fresh seeds: far from those that anyone types


@dataclass(frozen=True)
class Confirmed:
    """A trial of the sweep, retrained."""

    trial: int
    value: float  # in the sweep; the mean where that has repeated it with several seeds
    values: tuple[float, ...]  # with fresh seeds
    run: Path  # the retrained run of the median value, which stands for the trial

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
) -> list[Confirmed]:
    """Retrain the best ``sweep.confirm_top`` trials within the hard limits with ``sweep.confirm_seeds`` seeds each.

    They are ranked by the mean of the objective. A retraining that is there already is not made again, so a
    confirmation that was stopped goes on.

    Raises:
        MachineError: this machine cannot run them.
    """
    objective = Objective.of(settings)
    metric = objective.alone
    if not settings.confirm_top or metric is None:
        return []
    inside = [each for each in objective.candidates(study.get_trials(deepcopy=False)) if each.is_within]
    seeds = [FRESH_SEED + index for index in range(settings.confirm_seeds)]
    chosen = [(each, [_job(space, each.trial, seed) for seed in seeds]) for each in inside[: settings.confirm_top]]
    missing = [job for _, own in chosen for job in own if _value(folder / job.folder, objective) is None]
    params, problems = {each.trial.number: each.trial.params for each, _ in chosen}, list[str]()
    if missing:  # together: a launcher runs them side by side
        for job, ended in zip(missing, run_jobs(missing), strict=True):
            problem = machine_failure(ended.error, params[job.number])
            if problem is not None:
                problems.append(f"{folder / job.folder} is not confirmed: {problem}")
            elif ended.error is not None:
                log.warning("%s: not confirmed: %s", folder / job.folder, ended.reason)
    if problems:  # not left out: they go on, here or on another machine
        raise MachineError("\n".join(problems))
    confirmed = []
    for candidate, own in chosen:
        values = {folder / job.folder: _value(folder / job.folder, objective) for job in own}
        # A seed that failed is left out, and the count of seeds says so.
        runs = {run: value for run, value in values.items() if value is not None}
        if runs:
            middle = _middle(runs, metric)
            confirmed.append(Confirmed(candidate.trial.number, candidate.values[0], tuple(runs.values()), middle))
    return sorted(confirmed, key=lambda item: metric.cost(item.mean))


def _job(space: SearchSpace, trial: FrozenTrial, seed: int) -> Job:
    """The training of a trial with another seed."""
    fixed = [text for text in space.overrides(trial.params) if not text.startswith(("seed=", "++seed="))]
    return Job((*fixed, f"seed={seed}"), trial.number, confirmation(trial.number, seed))


def _middle(runs: Mapping[Path, float], metric: Metric) -> Path:
    return median_of(list(runs), lambda run: metric.cost(runs[run]))


def _value(run: Path, objective: Objective) -> float | None:
    """The objective of a retrained run; None where it is not there, or did not complete."""
    try:
        result = read_result(run)
        values = objective.values(result, latency_ms=lambda: latency_ms(run)) if result.status == "completed" else None
    except RunError:
        return None
    return values[0] if values else None
