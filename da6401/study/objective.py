"""What a sweep optimises: its metrics (metrics.py), their directions, the hard limits, and which trial is best.

The sampler, the pruner, the confirmation, the table, best.yaml, the checkpoints, the report and the notebooks ask this
module. It needs neither Optuna nor Hydra: trials of a study and of a report have the same few attributes.
"""

from __future__ import annotations

import itertools
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from da6401.config.metrics import Metric, directions_of, names_of
from da6401.registry import METRICS, OF_VALIDATION

if TYPE_CHECKING:
    from da6401.runs.run_folder import RunResult

SEED = "seed"  # a searched key of this name makes repetitions of one configuration
ATTRIBUTE = "objective"  # user attribute of a study


class Settings(Protocol):
    """The keys of `sweep` that an objective is made of."""

    @property
    def objectives(self) -> Sequence[str]: ...
    @property
    def max_parameters(self) -> int: ...
    @property
    def max_macs(self) -> int: ...


class Trial(Protocol):
    """A trial of a study (Optuna's FrozenTrial) or of a report."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> Any: ...  # an enum with the member COMPLETE, or "complete"
    @property
    def values(self) -> Any: ...  # numbers, one for each metric, of a completed trial; else None
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def constraints(self) -> Mapping[str, float]: ...  # by how much it is over each hard limit


T = TypeVar("T")
AnyTrial = TypeVar("AnyTrial", bound=Trial)


@dataclass(frozen=True)
class Candidate(Generic[AnyTrial]):
    """A completed configuration: one trial, or several that differ in their seed alone."""

    trial: AnyTrial  # that of the median seed, by the first metric; it stands for the others
    trials: tuple[AnyTrial, ...]  # by number
    values: tuple[float, ...]  # one for each metric, the means over the trials
    is_within: bool  # all trials keep the hard limits

    @property
    def is_repeated(self) -> bool:
        """Whether the sweep searches the seed, so that the values are means over seeds."""
        return any(map(_is_seed, self.trial.params))


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises.

    Args:
        metrics: one, or several whose Pareto set is searched.
        max_parameters, max_macs: hard limits of the model; 0 is none.
    """

    metrics: tuple[Metric, ...]
    max_parameters: int = 0
    max_macs: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Objective:
        """That of a sweep's settings; the directions follow from the metrics."""
        metrics = [Metric(index, name, METRICS[name].maximise) for index, name in enumerate(settings.objectives)]
        return cls(tuple(metrics), settings.max_parameters, settings.max_macs)

    @classmethod
    def of_study(
        cls, attributes: Mapping[str, Any], directions: Sequence[str], config: Mapping[str, Any] | None = None
    ) -> Objective:
        """That of a study, whoever made it: its directions hold, whatever the names say.

        Args:
            attributes: the study's user attributes, where newer ones have it written down, and older ones the keys
                that were typed.
            directions: "maximize" or "minimize", one for each value of a trial.
            config: the saved config of one of its trials, for older studies.
        """
        stored = attributes.get(ATTRIBUTE)
        stored = stored if isinstance(stored, Mapping) else (config or {}).get("sweep")
        stored = stored if isinstance(stored, Mapping) else {}
        names = names_of(stored.get("objectives") or _typed(attributes))
        if len(names) != len(directions):
            alone = "val_accuracy" if list(directions) == ["maximize"] else "value"
            names = [alone] if len(directions) == 1 else [f"value {index}" for index in range(len(directions))]
        metrics = [Metric(index, name, directions[index] == "maximize") for index, name in enumerate(names)]
        limits = [limit if isinstance(limit := stored.get(key), int) else 0 for key in ("max_parameters", "max_macs")]
        return cls(tuple(metrics), *limits)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Objective:
        """That of a run's saved config, where there is no study."""
        settings = config.get("sweep")
        names = names_of(settings.get("objectives")) if isinstance(settings, Mapping) else []
        known = [name for name in names if name in METRICS]
        return cls.of_study({}, directions_of(known or ["val_accuracy"]), config)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names."""
        return tuple(metric.name for metric in self.metrics)

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """In Optuna's words, one for each metric."""
        return [metric.direction for metric in self.metrics]

    @property
    def alone(self) -> Metric | None:
        """The metric where there is one, and so one best value; None of several."""
        return self.metrics[0] if len(self.metrics) == 1 else None

    def as_json(self) -> dict[str, Any]:
        """What a study's user attribute holds; the directions are the study's own."""
        return {"objectives": list(self.names), "max_parameters": self.max_parameters, "max_macs": self.max_macs}

    # ---- a run ----------------------------------------------------------------------------------------------------

    def of_epoch(self, line: Mapping[str, float]) -> float | None:
        """What an epoch reports to the pruner, from its numbers in metrics.jsonl; None where it does not move."""
        metric = self.alone
        return line.get(metric.name) if metric is not None and metric.by_epoch else None

    def values(self, result: RunResult, *, latency_ms: Callable[[], float | None]) -> tuple[float, ...] | None:
        """Those of a finished run, one for each metric; None where it lacks one.

        Args:
            latency_ms: measures the run's best model; called where it is asked for.
        """
        found = [latency_ms() if name == "latency_ms" else number_of(result, name) for name in self.names]
        values = tuple(float(value) for value in found if value is not None)
        return values if len(values) == len(found) else None

    def excess(self, result: RunResult) -> dict[str, float]:
        """By how much a run is over each hard limit that is set; at most 0 where it keeps it."""
        limits = {"parameters": self.max_parameters, "macs": self.max_macs}
        return {name: float(getattr(result, name) - limit) for name, limit in limits.items() if limit}

    def text(self, values: Sequence[float]) -> str:
        """A trial's values for people, such as "val_accuracy 0.9791"."""
        named = zip(self.metrics, values, strict=True)
        return ", ".join(f"{metric.name} {metric.text(value)}" for metric, value in named)

    # ---- the trials -----------------------------------------------------------------------------------------------

    def by(self, metric: Metric) -> Objective:
        """With this one of the metrics alone, and the same hard limits."""
        return replace(self, metrics=(metric,))

    def order(self, items: Iterable[T], values: Callable[[T], Sequence[float]]) -> list[T]:
        """Items by their values, best first; of several metrics the first decides, between equals the next."""
        return sorted(items, key=lambda item: self._costs(values(item)))

    def median(self, items: Sequence[T], values: Callable[[T], Sequence[float]]) -> T:
        """The item in the middle of this order; of two in the middle the better one, of equals the later one."""
        return self.order(reversed(items), values)[(len(items) - 1) // 2]

    def candidates(self, trials: Iterable[AnyTrial]) -> list[Candidate[AnyTrial]]:
        """The completed configurations, best first: the Pareto set before the others, and within each the order by
        values, the earliest of equals first; those over a hard limit last."""
        groups: dict[object, list[AnyTrial]] = {}
        for trial in sorted(filter(is_complete, trials), key=lambda each: each.number):
            groups.setdefault(_configuration(trial), []).append(trial)
        found = self.order(map(self._candidate, groups.values()), lambda each: each.values)
        front = {each.trial.number for each in self._front(found)}
        return sorted(found, key=lambda each: (not each.is_within, each.trial.number not in front))

    def best(self, trials: Iterable[AnyTrial]) -> list[Candidate[AnyTrial]]:
        """The best configuration within the hard limits (the earliest of equal ones), or none; of several metrics the
        Pareto set, the best in the first metric first."""
        return self.best_of(self.candidates(trials))

    def best_of(self, candidates: Iterable[Candidate[AnyTrial]]) -> list[Candidate[AnyTrial]]:
        """As ``best``, of all candidates, in their order."""
        front = self._front(candidates)
        return front if self.alone is None else front[:1]

    def ranked(
        self, trials: Sequence[AnyTrial], candidates: Iterable[Candidate[AnyTrial]] | None = None
    ) -> list[AnyTrial]:
        """All trials, best first; those that did not complete last.

        Args:
            candidates: of these trials, where they are known.
        """
        found = self.candidates(trials) if candidates is None else candidates
        done = [trial for each in found for trial in each.trials]
        return done + [trial for trial in trials if not is_complete(trial)]

    def so_far(self, trials: Iterable[AnyTrial]) -> list[tuple[AnyTrial, float]]:
        """Each completed trial within the hard limits, in this order, with the best value of the first metric until
        then: a mean over seeds where they are searched, and so one that can fall again."""
        groups: dict[object, list[float]] = {}
        means: dict[object, tuple[float]] = {}
        found = []
        for trial in trials:
            if is_complete(trial) and keeps_limits(trial):
                key = _configuration(trial)
                groups.setdefault(key, []).append(self._values(trial)[0])
                means[key] = (statistics.fmean(groups[key]),)
                found.append((trial, self.order(means.values(), tuple)[0][0]))
        return found

    def _candidate(self, trials: Sequence[AnyTrial]) -> Candidate[AnyTrial]:
        rows = [self._values(trial) for trial in trials]
        if len(rows) == 1:  # as nearly always: this is asked after every trial of a sweep
            return Candidate(trials[0], tuple(trials), rows[0], keeps_limits(trials[0]))
        means = tuple(statistics.fmean(column) for column in zip(*rows, strict=True))
        middle = self.median(trials, lambda trial: self._values(trial)[:1])
        return Candidate(middle, tuple(trials), means, all(map(keeps_limits, trials)))

    def _values(self, trial: Trial) -> tuple[float, ...]:
        """A completed trial's values of these metrics."""
        return tuple(float(trial.values[metric.index]) for metric in self.metrics)

    def _costs(self, values: Sequence[float]) -> tuple[float, ...]:
        """A number for each value; the lower, the better."""
        return tuple(metric.cost(value) for metric, value in zip(self.metrics, values, strict=False))

    def _front(self, ordered: Iterable[Candidate[AnyTrial]]) -> list[Candidate[AnyTrial]]:
        """Those within the limits that no other beats: as good in every metric, and better in one."""
        front: dict[tuple[float, ...], list[Candidate[AnyTrial]]] = {}
        # In this order a candidate can only be beaten by one before it, or by what that one is beaten by.
        for each in ordered:
            costs = self._costs(each.values)
            beaten = any(other != costs and all(map(operator.le, other, costs)) for other in front)
            if each.is_within and not beaten:
                front.setdefault(costs, []).append(each)
        return list(itertools.chain(*front.values()))


def number_of(result: RunResult, name: str) -> float | None:
    """A number of a finished run by a metric's name; None where it has none."""
    found: float | None = getattr(result, name, None)
    return result.val_metrics.get(name.removeprefix(OF_VALIDATION)) if found is None else found


def _typed(attributes: Mapping[str, Any]) -> str | None:
    """What the command of an older version said of sweep.objectives."""
    space = attributes.get("space")
    typed = space.get("sweep.objectives (fixed)") if isinstance(space, Mapping) else None
    return typed.strip("'\"") if isinstance(typed, str) else None


def is_complete(trial: Trial) -> bool:
    """Whether a trial ran to its end; a pruned one may have a value, too: that of the epoch which ended it."""
    return str(getattr(trial.state, "name", trial.state)).lower() == "complete" and bool(trial.values)


def keeps_limits(trial: Trial) -> bool:
    """Whether a trial is over no hard limit."""
    return max(trial.constraints.values(), default=0.0) <= 0


def _configuration(trial: Trial) -> object:
    """What the repetitions of a configuration share; where the seed is not searched each trial is one."""
    if not any(map(_is_seed, trial.params)):
        return trial.number
    return tuple(sorted((name, repr(value)) for name, value in trial.params.items() if not _is_seed(name)))


def _is_seed(name: str) -> bool:
    """Whether a parameter is the seed, under a condition or not."""
    return name.startswith(SEED) and (name == SEED or name.startswith(f"{SEED} ["))
