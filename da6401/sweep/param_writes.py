"""Trials' parameters in the study's storage: written all at once, and known by more choices than they were."""

from __future__ import annotations

import copy
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from da6401.config.domains import Value
from da6401.errors import ConfigError
from da6401.study.optuna_internals import Parameter, rewrite_distribution, storage_of, with_cache, write_parameters
from da6401.study.storage import PatientStorage
from da6401.study.trial_store import TrialStore


class Draft:
    """A claimed trial while its parameters are suggested: they are collected, and written together or not at all.

    Optuna has a transaction for each parameter, which took a quarter of what a sweep adds to a trial's training.

    To Optuna this is the study's storage. A study of its own also makes the sampler look at what other workers have
    finished meanwhile: Optuna keeps the trials that a study has seen until it is told of one.

    Attributes:
        trial: takes suggestions, and is an ordinary trial of the study once they are written.
    """

    def __init__(self, store: TrialStore, study: optuna.Study, number: int) -> None:
        self._storage = store.storage
        self._id = store.id_of(number)
        self._frozen = copy.deepcopy(store.read(number))  # some storages give their own object, not to be changed
        self._parameters: list[Parameter] = []
        own_study = optuna.Study(study.study_name, cast(BaseStorage, self), study.sampler, study.pruner)
        self.trial = optuna.Trial(own_study, self._id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Called by the trial when it is made; it writes what it suggests into the answer, too."""
        return self._frozen if trial_id == self._id else self._storage.get_trial(trial_id)

    def set_trial_param(self, *parameter: *Parameter) -> None:
        """Called by the trial when it suggests."""
        self._parameters.append(parameter)

    def set(self, name: str, distribution: BaseDistribution, value: Value) -> None:
        """Give a parameter a value, whether or not one was suggested."""
        self._frozen.params[name] = value
        self._frozen.distributions[name] = distribution
        self._parameters = [each for each in self._parameters if each[1] != name]
        self._parameters.append((self._id, name, distribution.to_internal_repr(value), distribution))

    def write(self) -> None:
        """Write the parameters.

        Raises:
            ValueError: the study knows one by another distribution; none is written to a database then.
        """
        storage = self._storage
        if isinstance(storage, PatientStorage) and storage.database is not None:
            storage.patiently(write_parameters, storage.database, self._parameters)
            return
        for parameter in self._parameters:
            storage.set_trial_param(*parameter)


def rewrite_choices(study: optuna.Study, name: str, distribution: BaseDistribution) -> None:
    """Let all trials of a study know a parameter by more choices.

    A choice is stored as its place among the choices: the old ones come first, so what is stored keeps its meaning.

    Raises:
        ConfigError: the storage writes a trial once and for all.
    """
    storage = storage_of(study)
    if isinstance(storage, InMemoryStorage):
        for trial in study.get_trials(deepcopy=False):
            if name in trial.distributions:
                trial.distributions[name] = distribution
        return
    if not isinstance(storage, PatientStorage) or storage.database is None:
        raise ConfigError(
            [f"{name}: has more choices now, which a journal or a proxy cannot add to the trials that are there; give "
             "this command once with the database's own address, or take another study name and "
             f"warm_start={study.study_name}"]
        )  # fmt: skip
    study_id = storage.get_study_id_from_name(study.study_name)
    storage.patiently(rewrite_distribution, storage.database, study_id, name, distribution)
    storage.inner = with_cache(storage.database)  # a cache without the trials as they were
