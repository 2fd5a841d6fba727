"""Confirming the winner: the best of many noisy trials is lucky, so the best few are trained again with fresh seeds."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from da6401.config.schema import SweepConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import RunError
from da6401.rundir import read_result
from da6401.sweep.launch import Launch

FRESH_SEED = 1_000_003  # the first of the fresh seeds: far from those that anyone types


@dataclass(frozen=True)
class Confirmed:
    """A trial of the sweep, retrained."""

    trial: int
    value: float  # in the sweep
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
    launch: Launch,
) -> list[Confirmed]:
    """Retrain the best ``sweep.confirm_top`` trials with ``sweep.confirm_seeds`` seeds each; ranked by their mean.

    A retraining that is there already is not made again, so a confirmation that was stopped goes on.
    """
    if not settings.confirm_top or len(study.directions) > 1:
        return []
    sign = 1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else -1
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(done, key=lambda trial: (-sign * trial.values[0], trial.number))
    confirmed = []
    for trial in ranked[: settings.confirm_top]:
        runs: dict[Path, float] = {}
        for index in range(settings.confirm_seeds):
            run = folder / "confirm" / f"trial-{trial.number}-seed-{FRESH_SEED + index}"
            value = _value(run)
            if value is None:
                fixed = [text for text in space.overrides(trial.params) if not text.startswith(("seed=", "++seed="))]
                subdir = f"hydra.sweep.subdir='{run.relative_to(folder)}'"
                launch([*fixed, f"seed={FRESH_SEED + index}", subdir], trial.number)
                value = _value(run)
            if value is not None:  # a seed that failed is left out, and the count of seeds says so
                runs[run] = value
        if runs:
            middle = sorted(runs, key=lambda run: runs[run])[len(runs) // 2]
            confirmed.append(Confirmed(trial.number, trial.values[0], tuple(runs.values()), middle))
    return sorted(confirmed, key=lambda item: -sign * item.mean)


def _value(run: Path) -> float | None:
    try:
        result = read_result(run)
    except RunError:
        return None
    return result.val_accuracy if result.status == "completed" else None
