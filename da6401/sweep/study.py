"""Opening a sweep's study: storage, sampler, the space it was made for, and what it tries first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from da6401.config.search_space import Condition, SearchSpace, key_of
from da6401.errors import ConfigError
from da6401.rundir import DATABASE
from da6401.storage import is_in_memory, sqlite_address
from da6401.sweep.space import distribution_of

SPACE = "space"  # user attribute of the study
WARM_TRIALS = 3  # of the study that warm_start names


def storage_of(storage: str | None, folder: Path, *, alone: bool) -> str:
    """The study's database: the one that is asked for, or an sqlite file in the sweep's folder.

    Args:
        alone: this process has no workers.

    Raises:
        ConfigError: a study in memory, with workers.
    """
    if storage and is_in_memory(storage) and not alone:
        raise ConfigError(
            [f"hydra.sweeper.storage={storage}: is in this process's memory, and its workers are other processes; "
             "take hydra.sweeper.n_jobs=1 and no launcher, or a file: without hydra.sweeper.storage the study is one"]
        )  # fmt: skip
    return storage or sqlite_address(folder / DATABASE)


def open_study(*, name: str, storage: BaseStorage, directions: Sequence[str]) -> tuple[optuna.Study, bool]:
    """Create the study, or open it; and whether it was created, which of many callers one is told.

    Raises:
        ConfigError: the study has other directions.
    """
    try:
        created = optuna.create_study(study_name=name, storage=storage, directions=cast(Any, list(directions)))
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        return created, True
    have = [direction.name.lower() for direction in study.directions]
    if have != list(directions):
        raise ConfigError([f"hydra.sweeper.direction={list(directions)}: the study {study.study_name} has {have}"])
    return study, False


def hold_space(study: optuna.Study, space: SearchSpace, *, extend: bool) -> None:
    """Write down what the study searches; a study that goes on must search the same.

    Raises:
        ConfigError: the space or a fixed override has changed, with the difference, unless ``extend``.
    """
    now = {
        f"{parameter.key}{_when(parameter.conditions)}": json.loads(
            distribution_to_json(distribution_of(parameter.domain))
        )
        for parameter in space.parameters
    } | {f"{name} (fixed)": str(value) for name, value in space.fixed.items() if name != "study"}
    before = study.user_attrs.get(SPACE)
    if before is not None and before != now and not extend:
        changes = [
            f"{name}: was {_told(before.get(name))}, is {_told(now.get(name))}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        rule = f"the study {study.study_name} searched another space; use that, another study name, or resume=extend"
        raise ConfigError([*changes, rule])
    if before != now:
        study.set_user_attr(SPACE, now)


def enqueue_first(study: optuna.Study, space: SearchSpace, warm: Sequence[FrozenTrial]) -> None:
    """Trials that a new study runs first: the configuration's defaults, and the best of another study."""
    for values in [space.known, *({key_of(name): value for name, value in trial.params.items()} for trial in warm)]:
        inside = space.draw(lambda parameter, values=values: values.get(parameter.key))  # type: ignore[misc]
        domains = {parameter.name: parameter.domain for parameter in space.parameters}
        inside = {name: value for name, value in inside.items() if value in domains[name]}
        if inside:
            study.enqueue_trial(inside, skip_if_exists=True)


def best_of_study(name: str, folder: Path) -> list[FrozenTrial]:
    """The best completed trials of another study beside this one's folder.

    Raises:
        ConfigError: there is no such study.
    """
    database = folder.parent / name / DATABASE
    if not database.exists():
        raise ConfigError([f"warm_start={name}: there is no study at {database}"])
    study = optuna.load_study(study_name=None, storage=sqlite_address(database))
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(done, key=lambda trial: sign * trial.values[0])[:WARM_TRIALS]


def _when(conditions: Sequence[Condition]) -> str:
    return "".join(f" when {condition}" for condition in conditions)


def _told(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"{entry['name'].removesuffix('Distribution').lower()} {entry['attributes']}"
    return "absent" if entry is None else str(entry)
