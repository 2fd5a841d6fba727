"""Trials' parameters in the study's storage: written all at once, and known by more choices than they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel
from optuna.storages._rdb.storage import _create_scoped_session

from da6401.errors import ConfigError
from da6401.study.storage import PatientStorage

Parameter = tuple[int, str, float, BaseDistribution]  # the trial's id, a name, the value as Optuna stores it


@contextmanager
def batch_param_writes(trial: optuna.Trial) -> Iterator[list[Parameter]]:
    """The parameters that are suggested within the block are written at its end: all that stand in the list by then.

    Optuna has a transaction for each, which took a quarter of what a sweep adds to a trial's training.
    """
    storage, parameters = trial.storage, list[Parameter]()
    trial.storage = cast(BaseStorage, _Collecting(storage, parameters))
    try:
        yield parameters
    finally:
        trial.storage = storage
    if isinstance(storage, PatientStorage):
        storage.patiently(_write, storage.inner, parameters)
    else:
        _write(storage, parameters)


class _Collecting:
    """A storage but for parameters, which are put in a list."""

    def __init__(self, storage: BaseStorage, parameters: list[Parameter]) -> None:
        self.storage = storage
        self.parameters = parameters

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def set_trial_param(self, *parameter: *Parameter) -> None:
        self.parameters.append(parameter)


def _write(storage: BaseStorage, parameters: Sequence[Parameter]) -> None:
    database = getattr(storage, "_backend", None)  # of Optuna's cache
    if not isinstance(database, RDBStorage):
        for parameter in parameters:
            storage.set_trial_param(*parameter)
        return
    with _create_scoped_session(database.scoped_session, ignore_integrity_error=True) as session:
        for parameter in parameters:
            database._set_trial_param_without_commit(session, *parameter)


def replace_value(trial: optuna.Trial, parameters: list[Parameter], name: str, value: Any) -> None:
    """Give a parameter that was suggested, and is not written yet, another value.

    Args:
        parameters: the list of ``batch_param_writes``.
    """
    frozen = trial._cached_frozen_trial
    distribution = frozen.distributions[name]
    frozen.params[name] = value
    parameters[:] = [each for each in parameters if each[1] != name]
    parameters.append((trial._trial_id, name, distribution.to_internal_repr(value), distribution))


def rewrite_choices(study: optuna.Study, name: str, distribution: BaseDistribution) -> None:
    """Let all trials of a study know a parameter by more choices.

    A choice is stored as its place among the choices: the old ones come first, so what is stored keeps its meaning.

    Raises:
        ConfigError: the storage writes a trial once and for all.
    """
    storage = study._storage
    inner = storage.inner if isinstance(storage, PatientStorage) else storage
    database = getattr(inner, "_backend", None)  # of Optuna's cache
    if isinstance(inner, InMemoryStorage):
        for trial in study.get_trials(deepcopy=False):
            if name in trial.distributions:
                trial.distributions[name] = distribution
        return
    if not isinstance(database, RDBStorage):
        raise ConfigError(
            [f"{name}: has more choices now, which a journal or a proxy cannot add to the trials that are there; give "
             "this command once with the database's own address, or take another study name and "
             f"warm_start={study.study_name}"]
        )  # fmt: skip

    def rewrite() -> None:
        with _create_scoped_session(database.scoped_session) as session:
            trials = session.query(TrialModel.trial_id).filter(TrialModel.study_id == study._study_id)
            rows = session.query(TrialParamModel).filter(
                TrialParamModel.param_name == name, TrialParamModel.trial_id.in_(trials)
            )
            rows.update({"distribution_json": distribution_to_json(distribution)}, synchronize_session=False)

    if isinstance(storage, PatientStorage):
        storage.patiently(rewrite)
        storage.inner = optuna.storages.get_storage(database)  # a cache without the trials as they were
    else:
        rewrite()
