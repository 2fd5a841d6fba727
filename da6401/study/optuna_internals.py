"""Private names of Optuna, each behind a function that says why no public name would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage

from da6401.config.private_names import Package

if TYPE_CHECKING:
    from numpy.random import RandomState

OPTUNA = Package("optuna", ">=5,<6", last="5.0.0")

Parameter = tuple[int, str, float, BaseDistribution]  # the trial's id, a name, the value as Optuna stores it


@OPTUNA.names()
def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage of a study: a Study can neither claim a trial nor change one that it did not ask for."""
    return study._storage


@OPTUNA.names()
def with_cache(storage: BaseStorage) -> BaseStorage:
    """A database with Optuna's cache of finished trials, as a Study has it; any other storage as it is.

    Optuna documents it as internal. Without it, a database is asked for all trials again and again.
    """
    return optuna.storages.get_storage(storage)


def generators_of(sampler: BaseSampler) -> Iterator[RandomState]:
    """The random generators of a sampler and of those within it: BaseSampler.reseed_rng takes no seed."""
    with OPTUNA.names():
        from optuna.samplers._lazy_random_state import LazyRandomState
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            yield value.rng
        elif isinstance(value, BaseSampler):
            yield from generators_of(value)


def write_parameters(database: RDBStorage, parameters: Sequence[Parameter]) -> None:
    """Write parameters in one transaction: BaseStorage.set_trial_param has one for each.

    Raises:
        ValueError: the study knows a parameter by another distribution; none is written.
    """
    with OPTUNA.names():
        from optuna.storages._rdb.storage import _create_scoped_session

        write = database._set_trial_param_without_commit
    with _create_scoped_session(database.scoped_session, ignore_integrity_error=True) as session:
        for parameter in parameters:
            write(session, *parameter)


def rewrite_distribution(database: RDBStorage, study_id: int, name: str, distribution: BaseDistribution) -> None:
    """Let all trials of a study have a parameter by another distribution: Optuna never changes one."""
    with OPTUNA.names():
        from optuna.storages._rdb.models import TrialModel, TrialParamModel
        from optuna.storages._rdb.storage import _create_scoped_session
    with _create_scoped_session(database.scoped_session) as session:
        trials = session.query(TrialModel.trial_id).filter(TrialModel.study_id == study_id)
        rows = session.query(TrialParamModel).filter(
            TrialParamModel.param_name == name, TrialParamModel.trial_id.in_(trials)
        )
        rows.update({"distribution_json": distribution_to_json(distribution)}, synchronize_session=False)
