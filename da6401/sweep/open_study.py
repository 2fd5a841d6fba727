"""Opens a sweep's study: its storage, its objective, and the trials that it runs first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from da6401.config.search_space import Point, SearchSpace, key_of
from da6401.errors import ConfigError
from da6401.registry import METRICS
from da6401.runs.run_folder import DATABASE
from da6401.study.objective import ATTRIBUTE, Objective
from da6401.study.retrying_storage import reason_of
from da6401.study.roles import DEFAULT, GIVEN, ROLE, SAMPLED
from da6401.study.storage import is_in_memory, read_only, sqlite_address

WARM_TRIALS = 3  # of the study that sweep.warm_start names
HAS_FIRST = "has_first"  # user attribute of a study: what it tries first was enqueued, where there is such a thing
FIRST_SECONDS = 5.0  # how long a process that has created a study may take to enqueue that
POLL_SECONDS = 0.1


def storage_of(storage: str | None, folder: Path, *, alone: bool) -> str:
    """The address of the study's storage: hydra.sweeper.storage, or an sqlite file in the sweep's folder.

    Args:
        alone: this process runs all trials.

    Raises:
        ConfigError: a study in memory, with workers.
    """
    if storage and is_in_memory(storage) and not alone:
        raise ConfigError(
            [f"hydra.sweeper.storage={storage}: is in this process's memory, and its workers are other processes; "
             "take hydra.sweeper.n_jobs=1 and no launcher, or a file: without hydra.sweeper.storage the study is one"]
        )  # fmt: skip
    return storage or sqlite_address(folder / DATABASE)


def open_study(*, name: str, storage: BaseStorage, objective: Objective) -> tuple[optuna.Study, bool]:
    """Create the study or open it; and whether it was created, which is true for one of many callers.

    Raises:
        ConfigError: the study optimises something else.
    """
    try:
        created = optuna.create_study(study_name=name, storage=storage, directions=objective.directions)
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        if directions_of(study) == objective.directions or study.get_trials(deepcopy=False):
            check_same_objective(study, objective)
            return study, False
        optuna.delete_study(study_name=name, storage=storage)  # without trials nothing depends on it
        return open_study(name=name, storage=storage, objective=objective)
    created.set_user_attr(HAS_FIRST, False)
    created.set_user_attr(ATTRIBUTE, objective.as_json())
    return created, True


def is_begun(name: str, storage: BaseStorage) -> bool:
    """Whether there is a study of this name, and what it tries first was enqueued."""
    try:
        return _has_first(optuna.load_study(study_name=name, storage=storage))
    except KeyError:
        return False


def lacks_first(study: optuna.Study, *, seconds: float) -> bool:
    """Whether a study that another process has created still lacks what it tries first after so many seconds: that
    process was killed, or its command was refused."""
    end = time.monotonic() + seconds
    while not _has_first(study):
        if time.monotonic() >= end:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _has_first(study: optuna.Study) -> bool:
    recorded = study.user_attrs.get(HAS_FIRST)  # older versions recorded nothing
    return bool(study.get_trials(deepcopy=False)) if recorded is None else bool(recorded)


def directions_of(study: optuna.Study) -> list[str]:
    """A study's directions, maximize or minimize, one for each value of a trial."""
    return [direction.name.lower() for direction in study.directions]


def check_same_objective(study: optuna.Study, objective: Objective) -> None:
    """Check that an existing study has this objective, and record it.

    Raises:
        ConfigError: its trials have another objective or other hard limits.
    """
    have, name = directions_of(study), study.study_name
    remedy = "use another study name (study=...)"
    if have != objective.directions:
        raise ConfigError(
            [f"sweep.objectives: {_said(objective.names, objective.directions)}, and the study {name} has "
             f"{', '.join(have)}; {remedy}"]
        )  # fmt: skip
    stored = study.user_attrs.get(ATTRIBUTE)
    if stored == objective.as_json():
        return
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    before = Objective.of_study(study.user_attrs, have)
    if finished and before.names != objective.names and all(each in METRICS for each in before.names):
        raise ConfigError(
            [f"sweep.objectives={','.join(objective.names)}: the study {name} optimises {','.join(before.names)}; "
             f"{remedy}"]
        )  # fmt: skip
    if finished and stored is not None:
        limits = [key for key in ("max_parameters", "max_macs") if getattr(before, key) != getattr(objective, key)]
        if limits:
            raise ConfigError(
                [f"sweep.{key}={getattr(objective, key)}: the study {name} has judged its trials by "
                 f"sweep.{key}={getattr(before, key)}; {remedy}, and sweep.warm_start={name} to begin with its best"
                 for key in limits]
            )  # fmt: skip
    if stored is None and objective.names == ("val_loss",) and any(trial.intermediate_values for trial in trials):
        raise ConfigError(
            [f"sweep.objectives=val_loss: an older version began the study {name}, and its pruner used the accuracy; "
             f"{remedy}"]
        )  # fmt: skip
    study.set_user_attr(ATTRIBUTE, objective.as_json())


def _said(names: Sequence[str], directions: Sequence[str]) -> str:
    pairs = zip(names, directions, strict=True)
    return " and ".join(f"{name} is {direction.removesuffix('ize')}ised" for name, direction in pairs)


def enqueue_first(
    study: optuna.Study, space: SearchSpace, warm: Sequence[FrozenTrial], *, in_order: bool = False
) -> None:
    """Enqueue what a new study tries first: the configuration's defaults, hydra.sweeper.first, and the best trials of
    another study.

    Args:
        in_order: the study takes the points of the space in order: its defaults have their place among them.
    """
    own, *others = space.given_points()
    of_others = [space.inside({key_of(name): value for name, value in trial.params.items()}) for trial in warm]
    role_of_own = SAMPLED if space.default is None else DEFAULT
    first = [(role_of_own, own), *((GIVEN, each) for each in [*others, *of_others])]
    if in_order:
        first = [(GIVEN, _completed(space, each)) for each in [*space.first_points(), *of_others]]
    for role, point in first:
        if point:
            study.enqueue_trial(point, user_attrs={ROLE: role}, skip_if_exists=True)


def _completed(space: SearchSpace, given: Point) -> Point:
    """The first point of a finite space that has these values; an empty one where none has."""
    point = space.draw(lambda parameter: given.get(parameter.name, next(iter(parameter.domain))))
    return point if given and given.items() <= point.items() else {}


def best_of_study(name: str, folder: Path, storage: BaseStorage) -> list[FrozenTrial]:
    """The best completed trials of another study, by its own objective.

    It is looked for beside this sweep's folder, then in this sweep's storage.

    Raises:
        ConfigError: there is no such study, or it cannot be read.
    """
    database = folder.parent / name / DATABASE
    if not database.exists():
        try:
            return _best(optuna.load_study(study_name=name, storage=storage))
        except KeyError as error:
            others = [each for each in optuna.get_all_study_names(storage) if each != folder.name]
            known = f"; it has {', '.join(others[:10])}" if others else ""
            where = f"at {database}, and none of that name in this sweep's storage"
            raise ConfigError([f"sweep.warm_start={name}: there is no study {where}{known}"]) from error
    try:
        with read_only(sqlite_address(database)) as other:
            names = optuna.get_all_study_names(other)
            if name in names or len(names) == 1:  # a folder that was renamed has a study of another name
                return _best(optuna.load_study(study_name=name if name in names else names[0], storage=other))
    except Exception as error:  # databases' own errors have no common base, and each means the same here
        raise ConfigError(
            [f"sweep.warm_start={name}: {database} cannot be read ({reason_of(error)}); repair it, or name another "
             "study"]
        ) from error  # fmt: skip
    held = f"holds the studies {', '.join(names[:10])}, and none is called {name}" if names else "holds no study"
    raise ConfigError([f"sweep.warm_start={name}: {database} {held}"])


def _best(study: optuna.Study) -> list[FrozenTrial]:
    objective = Objective.of_study(study.user_attrs, directions_of(study))
    return [each.trial for each in objective.candidates(study.get_trials(deepcopy=False))][:WARM_TRIALS]
