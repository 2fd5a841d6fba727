"""Opening a sweep's study: storage, sampler, the space it was made for, and what it tries first."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from da6401.errors import ConfigError
from da6401.rundir import DATABASE
from da6401.storage import is_in_memory, sqlite_address
from da6401.sweep.space import Space

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


def build_sampler(config: DictConfig, space: Space, *, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of `hydra/sweeper/sampler`; without a seed of its own it gets this one. See ``reseed``."""
    node = OmegaConf.to_container(config, resolve=True)
    assert isinstance(node, dict)
    if node.get("seed") is None:
        node["seed"] = seed
    whitelist = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
    built = instantiate(node, _execution_whitelist_=whitelist)
    if isinstance(built, functools.partial):  # the grid sampler waits for its grid
        built = built(space.grid())
    return cast(optuna.samplers.BaseSampler, built)


def reseed(sampler: optuna.samplers.BaseSampler, *, seed: int, number: int) -> None:
    """Let a sampler's draws for a trial depend on the seed and the trial's number, not on who asks or how often before.

    So no two workers suggest the same points, a study that goes on does not repeat its own, and the same history gives
    the same suggestion. What a sampler must share with those of other workers, such as QMC's sequence, stays.
    """
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            value.rng.seed((seed * 1_000_003 + number) % 2**32)
        elif isinstance(value, optuna.samplers.BaseSampler):
            reseed(value, seed=seed, number=number)


def total_trials(study: optuna.Study, space: Space, n_trials: int) -> int:
    """The study's total; a grid ends at its last point."""
    if isinstance(study.sampler, optuna.samplers.GridSampler):
        return min(n_trials, math.prod(len(values) for values in space.grid().values()))
    return n_trials


def hold_space(study: optuna.Study, space: Space, *, extend: bool) -> None:
    """Write down what the study searches; a study that goes on must search the same.

    Raises:
        ConfigError: the space or a fixed override has changed, with the difference, unless ``extend``.
    """
    now = {
        f"{name}{_when(branch.conditions)}": json.loads(distribution_to_json(distribution))
        for branch in space.branches
        for name, distribution in branch.space.items()
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


def enqueue_first(study: optuna.Study, space: Space, defaults: Mapping[str, Any], warm: Sequence[FrozenTrial]) -> None:
    """Trials that a new study runs first: the configuration's defaults, and the best of another study."""
    for values in [defaults, *(trial.params for trial in warm)]:
        inside: dict[str, Any] = {}
        for branch in space.branches:
            if branch.holds({**space.choices, **space.fixed, **inside}):
                inside |= {n: values[n] for n, d in branch.space.items() if n in values and _contains(d, values[n])}
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


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def _when(conditions: Sequence[tuple[str, bool, str]]) -> str:
    return "".join(f" when {key}{'=' if equal else '!='}{value}" for key, equal, value in conditions)


def _told(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"{entry['name'].removesuffix('Distribution').lower()} {entry['attributes']}"
    return "absent" if entry is None else str(entry)
