"""A sweep and its trials as plain values, and what follows from them alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from da6401.config.metrics import Metric
from da6401.report.run_record import RunRecord
from da6401.runs.looks import Looked
from da6401.study.gain import longest
from da6401.study.objective import Candidate, Objective, is_complete
from da6401.study.roles import DEFAULT
from da6401.study.told_apart import ToldApart, told_apart
from da6401.study.told_apart_folds import told_apart_over_folds


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a study together with its run folder."""

    number: int
    state: str  # complete, pruned, fail, running, waiting
    values: tuple[float, ...] | None  # of a completed trial, one for each metric
    params: dict[str, Any]
    run: RunRecord
    reason: str
    slot: str
    attempts: int
    start: datetime | None
    end: datetime | None
    constraints: Mapping[str, float]  # by how much it is over each hard limit
    role: str  # apart from the sampler's own trials: roles.DEFAULT, roles.GIVEN, or ""

    def reached(self, metric: Metric) -> float | None:
        """A metric of a completed trial; of another what its last epoch had, where epochs have it."""
        if self.values:
            return self.values[metric.index]
        lines = [line[metric.name] for line in self.run.epochs if metric.name in line]
        return lines[-1] if lines else None


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep folder."""

    folder: Path
    name: str
    trials: list[TrialRecord]
    objective: Objective
    logarithmic: frozenset[str]  # parameters searched on a logarithmic scale
    summary: dict[str, Any]  # sweep.json; {} while the sweep runs
    frozen: list[FrozenTrial]  # the study's own; [] without a study
    problems: list[str]  # what could not be read
    looked: Looked = field(default_factory=dict)  # its runs whose test split was looked at

    @property
    def chose_after_look(self) -> bool:
        """Whether several of its runs have been looked at, or a trial began after the first look."""
        times = [look.when for looks in self.looked.values() for look in looks if look.when is not None]
        # Looks have whole seconds: a trial that began within that of the look may have been there before it.
        starts = [trial.start.astimezone().replace(microsecond=0) for trial in self.trials if trial.start is not None]
        return len(self.looked) > 1 or bool(times and starts and max(starts) > min(times))

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that ran to their end: a pruned one has a value too, that of the epoch which ended it."""
        return [trial for trial in self.trials if is_complete(trial)]

    @property
    def params(self) -> list[str]:
        """Every searched key, in the order of the trials."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.params))

    @property
    def default(self) -> TrialRecord | None:
        return next((trial for trial in self.trials[:1] if trial.role == DEFAULT), None)

    @functools.cached_property
    def trained_default(self) -> TrialRecord | None:
        """The longest complete training of the default configuration: a race trains it for longer and longer."""
        return None if self.default is None else longest(self.default, self.complete)

    @functools.cached_property
    def winners(self) -> list[Candidate[TrialRecord]]:
        """The best configuration within the hard limits; of several metrics the Pareto set."""
        return self.objective.best(self.trials)

    @functools.cached_property
    def told(self) -> ToldApart:
        """Which trials cannot be told from the winner, and its gain over the longest training of the default."""
        folders = {trial.number: trial.run.folder for trial in self.complete}
        best = self.best[0].number if self.best else None
        over_folds = told_apart_over_folds(self.objective.candidates(self.complete), folders, best, self.objective)
        if over_folds.folds:
            return over_folds
        known = self.default is not None and not (self.winners and self.winners[0].is_repeated)
        default = self.trained_default.number if self.trained_default and known else None
        return told_apart(folders, best, self.objective, default=default)

    @property
    def best(self) -> list[TrialRecord]:
        """The trials that stand for the winners: the best one itself, or that of the median seed."""
        return [each.trial for each in self.winners]


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether these have an order worth a scale: numbers, and more than one of them."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
