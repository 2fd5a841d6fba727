"""A trial's values: the sampler's suggestion, or the next point of a grid.

No configuration is trained twice in a study. A sampler that repeats one is asked again, up to REPEATS times; then the
first free point of a finite space is taken. A space without a free point is exhausted.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from da6401.config.domains import Choices, Domain, Value
from da6401.config.search_space import Parameter, Point, SearchSpace
from da6401.study.optuna_internals import Parameter as StoredParameter
from da6401.study.optuna_internals import write_parameters
from da6401.study.retrying_storage import RetryingStorage
from da6401.study.roles import ENQUEUED
from da6401.study.trial_store import TrialStore
from da6401.sweep.failures import retried
from da6401.sweep.samplers import reseed

REPEATS = 10  # repeated suggestions for a trial before the next free point is taken
COUNTED = 1_000_000  # most points that are counted for a study's total

Extend = Callable[[optuna.Trial], None]  # hydra.sweeper.custom_search_space


def distribution_of(domain: Domain) -> BaseDistribution:
    """Optuna's distribution of a domain."""
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if domain.is_whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def ask(trial: optuna.Trial, parameter: Parameter, distribution: BaseDistribution) -> Value:
    """The trial's value of a parameter, suggested by the study's sampler."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(parameter.name, choices)
        case IntDistribution() as whole:
            return trial.suggest_int(parameter.name, whole.low, whole.high, step=whole.step, log=whole.log)
        case FloatDistribution() as real:
            return trial.suggest_float(parameter.name, real.low, real.high, step=real.step, log=real.log)
    raise AssertionError("every domain is one of the three")


def next_point(space: SearchSpace, trials: Sequence[FrozenTrial], number: int) -> Point | None:
    """The point of trial ``number`` in a study that takes them in order; None where none is free.

    Workers need no communication: each leaves the first free points to the trials with smaller numbers that have no
    point yet.
    """
    own = [trial.params or trial.system_attrs.get(ENQUEUED, {}) for trial in trials]
    taken = {space.identity(point) for point in own if point}
    ahead = sum(
        not point and trial.state in (TrialState.RUNNING, TrialState.WAITING)
        for trial, point in zip(trials[:number], own, strict=False)
    )
    for point in space.points():
        if space.identity(point) in taken:
            continue
        if not ahead:
            return point
        ahead -= 1
    return None


def total_trials(space: SearchSpace, trials: Sequence[FrozenTrial], n_trials: int) -> int:
    """The study's total: n_trials, or fewer where the space has no more points.

    Repeated trials, and trials of points outside the space, do not count.
    """
    points = space.count(COUNTED)
    if not space.is_finite or points == COUNTED or points >= n_trials:
        return n_trials
    inside = {space.identity(point) for point in space.points()}
    tried = {identity for trial in trials if trial.params and (identity := space.identity(trial.params)) in inside}
    beside = sum(bool(trial.params) for trial in trials) - len(tried)
    return min(n_trials, points + beside)


class Draft:
    """A claimed trial whose parameters are collected while they are suggested, and written together or not at all.

    Optuna has one transaction for each parameter, which took a quarter of the time that a sweep adds to a training.

    Optuna takes this object for the study's storage, in a Study of its own: a Study caches its trials, and the sampler
    must see those that other workers have finished meanwhile. It reads them once for all that the sampler asks.

    Attributes:
        trial: takes suggestions; after ``write`` an ordinary trial of the study.
    """

    def __init__(self, store: TrialStore, study: optuna.Study, number: int) -> None:
        self._storage, self._study_id = store.storage, store.study_id
        self._id = store.id_of(number)
        self._frozen = copy.deepcopy(store.read(number))  # some storages return their own object
        self._parameters: list[StoredParameter] = []
        self._trials: list[FrozenTrial] | None = None
        own_study = optuna.Study(study.study_name, cast(BaseStorage, self), study.sampler, study.pruner)
        self.trial = optuna.Trial(own_study, self._id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Called by the trial when it is created; it also writes its suggestions into the returned object."""
        return self._frozen if trial_id == self._id else self._storage.get_trial(trial_id)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The study's trials, as they were when they were first asked for."""
        if self._trials is None:
            self._trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return self._trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Called by the sampler, several times for one draw."""
        found = [trial for trial in self.trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_param(self, *parameter: *StoredParameter) -> None:
        """Called by the trial for each suggestion."""
        self._parameters.append(parameter)

    def set(self, name: str, distribution: BaseDistribution, value: Value) -> None:
        """Set a parameter, whether or not a value was suggested."""
        self._frozen.params[name] = value
        self._frozen.distributions[name] = distribution
        self._parameters = [each for each in self._parameters if each[1] != name]
        self._parameters.append((self._id, name, distribution.to_internal_repr(value), distribution))

    def write(self) -> None:
        """Write the parameters.

        Raises:
            ValueError: the study has another distribution for one; a database then gets none of them.
        """
        self._trials = None
        storage = self._storage
        if isinstance(storage, RetryingStorage) and storage.database is not None:
            storage.retry(write_parameters, storage.database, self._parameters)
            return
        for parameter in self._parameters:
            storage.set_trial_param(*parameter)


@dataclass
class Suggester:
    """Gives each trial of a study its point.

    Args:
        in_order: take the points of the space one after the other, as a grid does, and ignore the sampler.
        seed: of the sampler.
        stored: the distributions of parameters that have had other choices (same_space.py).
    """

    study: optuna.Study
    space: SearchSpace
    extend: Extend | None
    in_order: bool
    seed: int
    stored: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = TrialStore(self.study)

    def point(self, claimed: FrozenTrial) -> tuple[optuna.Trial, Point] | None:
        """The claimed trial with its parameters, which are then in the study; None where the space is exhausted.

        An enqueued or requeued trial keeps its parameters.
        """
        given = bool(claimed.params or claimed.system_attrs.get(ENQUEUED))
        if self.in_order and not given:
            return self._written(claimed, self._next_point(claimed))
        for attempt in range(REPEATS):
            reseed(self.study.sampler, seed=self.seed, number=claimed.number, attempt=attempt)
            draft = Draft(self.store, self.study, claimed.number)
            taken = {self.space.identity(trial.params) for trial in ([] if given else draft.trials) if trial.params}
            point = self._suggested(draft, claimed, attempt)
            if self.space.identity(point) not in taken:
                draft.write()
                return draft.trial, point
        if self.space.is_finite and self.extend is None:
            return self._written(claimed, self._next_point(claimed))
        draft = Draft(self.store, self.study, claimed.number)
        point = self._suggested(draft, claimed, REPEATS)  # a repetition: such a space has no next point
        draft.write()
        return draft.trial, point

    def repeats(self, number: int, point: Point) -> int | None:
        """The number of an earlier trial with this point: two machines can draw the same at the same moment."""
        if not self.space.is_finite:
            return None
        identity = self.space.identity(point)
        trials = self.study.get_trials(deepcopy=False)
        again = retried(trials)  # perhaps by this trial
        others = (trial for trial in trials[:number] if trial.number not in again)
        return next((trial.number for trial in others if self.space.identity(trial.params) == identity), None)

    def _suggested(self, draft: Draft, claimed: FrozenTrial, attempt: int) -> Point:
        def value_of(parameter: Parameter) -> Value:
            name, distribution = parameter.name, self._distribution(parameter)
            value = ask(draft.trial, parameter, distribution)
            if name not in self.stored or name in claimed.params or value in parameter.domain:
                return value
            rng = random.Random(f"{self.seed} {claimed.number} {attempt} {name}")
            value = rng.choice(list(parameter.domain))  # the sampler's is a choice that the study has no longer
            draft.set(name, distribution, value)
            return value

        point = self.space.draw(value_of)
        if self.extend is None:
            return point
        self.extend(draft.trial)
        return {**draft.trial.params, **point}

    def _next_point(self, claimed: FrozenTrial) -> Point | None:
        return next_point(self.space, self.study.get_trials(deepcopy=False), claimed.number)

    def _written(self, claimed: FrozenTrial, point: Point | None) -> tuple[optuna.Trial, Point] | None:
        if point is None:
            return None
        distributions = {parameter.name: self._distribution(parameter) for parameter in self.space.parameters}
        draft = Draft(self.store, self.study, claimed.number)
        for name, value in point.items():
            draft.set(name, distributions[name], value)
        draft.write()
        return draft.trial, point

    def _distribution(self, parameter: Parameter) -> BaseDistribution:
        return self.stored.get(parameter.name) or distribution_of(parameter.domain)
