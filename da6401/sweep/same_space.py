"""A continued study must have the same search space and the same fixed values: both are recorded in the study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.config.domains import Interval, Value
from da6401.config.search_space import Parameter, SearchSpace
from da6401.errors import ConfigError
from da6401.runs.renamed_keys import renamed_text
from da6401.runs.run_folder import MAY_CHANGE_ON_RESUME
from da6401.study.optuna_internals import rewrite_distribution, storage_of, with_cache
from da6401.study.retrying_storage import RetryingStorage
from da6401.study.roles import ENQUEUED, OF_THE_RACE
from da6401.study.trial_store import TrialStore
from da6401.sweep.failures import RETRY_OF
from da6401.sweep.jobs import JobComposer
from da6401.sweep.leases import ATTEMPTS, REASON, SKIPPED
from da6401.sweep.suggest import distribution_of

# User attributes of the study: the distribution of each searched key; and the values of all other keys, those that an
# option of a searched config group brings under the option's name.
SPACE, BASE = "space", "base"
FOLDS = "folds"  # sweep.folds, where there are some
FIXED = " (fixed)"  # older versions recorded the typed overrides in SPACE, with this suffix
Base = dict[str, dict[str, Any]]


def check_same_space(study: optuna.Study, space: SearchSpace, composer: JobComposer, *, extend: bool) -> None:
    """Check that a study with begun trials has this search space and these fixed values, and record them.

    Keys that do not change the meaning of a result may differ.

    Args:
        extend: continue with the new space and values, and record those.

    Raises:
        ConfigError: the differences; with ``extend``, only those that no study can have.
    """
    now, base = space_of(space), base_of(space, composer)
    before, base_before = (_renamed(study.user_attrs.get(name)) for name in (SPACE, BASE))
    trials = study.get_trials(deepcopy=False)
    begun = any(trial.params or trial.state is not TrialState.WAITING for trial in trials)
    if before is not None and begun:
        changes = [*_changes_of_space(before, now), *_changes_of_base(before, base_before, base, space)]
        if changes and not extend:
            raise ConfigError(
                [*changes, f"the study {study.study_name} has trained another space or other values; go on with those, "
                 "take another study name, or go on with these: sweep.on_space_change=extend"]
            )  # fmt: skip
        _widen_choices(study, trials, space)
    if before is not None and before != now:
        _trim_enqueued(study, trials, space)
    for name, value in ((SPACE, now), (BASE, base)):
        if value != study.user_attrs.get(name):
            study.set_user_attr(name, value)


def check_same_folds(study: optuna.Study, folds: int) -> None:
    """Check that a study with begun trials has this number of folds, and record it.

    Raises:
        ConfigError: its trials are means over another number of folds, or single trainings.
    """
    before = study.user_attrs.get(FOLDS, 0)
    if before == folds:
        return
    trials = study.get_trials(deepcopy=False)
    if any(trial.params or trial.state is not TrialState.WAITING for trial in trials):
        raise ConfigError(
            [f"sweep.folds={folds}: the trials of the study {study.study_name} have sweep.folds={before}, and their "
             "values cannot be compared; go on with that, or take another study name (study=...)"]
        )  # fmt: skip
    study.set_user_attr(FOLDS, folds)


def names_in(study: optuna.Study) -> set[str]:
    """The names of parameters in a study's trials, those included that only wait."""
    trials = study.get_trials(deepcopy=False)
    return {name for each in trials for name in (*each.distributions, *each.system_attrs.get("fixed_params", {}))}


def _renamed(stored: Any) -> Any:
    """What a study of an older version has written down, by the new names of keys."""
    if not isinstance(stored, dict):
        return stored
    return {renamed_text(name): _renamed(value) for name, value in stored.items()}


def space_of(space: SearchSpace) -> dict[str, Any]:
    """The distribution of each searched key, by the key and its conditions."""
    return {
        f"{parameter.key}{''.join(f' when {condition}' for condition in parameter.conditions)}": json.loads(
            distribution_to_json(distribution_of(parameter.domain))
        )
        for parameter in space.parameters
    }


def base_of(space: SearchSpace, composer: JobComposer) -> Base:
    """The values that all trials share; and by "key=option" those that an option of a searched group brings.

    Without the searched keys, and without those that do not change the meaning of a result.
    """
    groups = [parameter for parameter in space.parameters if parameter.key in composer.groups]
    searched = {parameter.key for parameter in space.parameters}

    def values(chosen: Mapping[str, Value]) -> dict[str, Any]:
        point = space.draw(lambda parameter: chosen.get(parameter.name, _first(parameter)))
        own = {each.name: point[each.name] for each in groups if each.name in point}
        found = composer.values(space.overrides(own))
        return {
            key: value
            for key, value in found.items()
            if key not in searched and not MAY_CHANGE_ON_RESUME.fullmatch(key)
        }

    shared = values({})
    base: Base = {"": shared}
    for parameter in groups:
        options = {option: values({parameter.name: option}) for option in parameter.domain}
        keys = {key for tree in options.values() for key in tree}
        unlike = {key for key in keys if len({repr(tree.get(key)) for tree in options.values()}) > 1}
        base |= {
            f"{parameter.key}={option}": {key: tree[key] for key in sorted(unlike & set(tree))}
            for option, tree in options.items()
        }
        base[""] = {key: value for key, value in base[""].items() if key not in unlike}
    return base


def _first(parameter: Parameter) -> Value:
    domain = parameter.domain
    return domain.low if isinstance(domain, Interval) else domain.values[0]


def stored_distributions(trials: Sequence[FrozenTrial], space: SearchSpace) -> dict[str, BaseDistribution]:
    """The distributions to ask Optuna for where the study's trials have had other choices than the space has now.

    A storage has one set of choices for a parameter: all that there ever were, the older ones first.
    """
    found: dict[str, BaseDistribution] = {}
    for parameter, old in _stored(trials, space):
        new = distribution_of(parameter.domain)
        if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution) and old != new:
            fresh = [choice for choice in new.choices if not _has(old, choice)]
            found[parameter.name] = CategoricalDistribution([*old.choices, *fresh])
    return found


def _stored(trials: Sequence[FrozenTrial], space: SearchSpace) -> Iterator[tuple[Parameter, BaseDistribution]]:
    """The parameters that trials have, with their stored distribution."""
    known = {name: each for trial in reversed(trials) for name, each in trial.distributions.items()}
    yield from ((parameter, known[parameter.name]) for parameter in space.parameters if parameter.name in known)


def _has(distribution: CategoricalDistribution, choice: object) -> bool:
    return any(type(each) is type(choice) and each == choice for each in distribution.choices)


def _widen_choices(study: optuna.Study, trials: Sequence[FrozenTrial], space: SearchSpace) -> None:
    problems = []
    wider = stored_distributions(trials, space)
    for parameter, old in _stored(trials, space):
        new = distribution_of(parameter.domain)
        same_scale = getattr(old, "log", False) == getattr(new, "log", False)
        if type(old) is not type(new) or not same_scale:
            problems.append(
                f"{parameter.key}: was {_text(json.loads(distribution_to_json(old)))}, is "
                f"{_text(json.loads(distribution_to_json(new)))}: a study keeps one kind of values for a key; take "
                f"another study name, and sweep.warm_start={study.study_name} for its best trials"
            )
        elif parameter.name in wider and wider[parameter.name] != old:
            _rewrite_choices(study, parameter.name, wider[parameter.name])
    if problems:
        raise ConfigError(problems)


def _rewrite_choices(study: optuna.Study, name: str, distribution: BaseDistribution) -> None:
    """Give a parameter more choices in all trials of a study.

    A trial stores the index of its choice: the old choices come first, so the indices keep their meaning.

    Raises:
        ConfigError: the storage cannot change a stored trial.
    """
    storage = storage_of(study)
    if isinstance(storage, InMemoryStorage):
        for trial in study.get_trials(deepcopy=False):
            if name in trial.distributions:
                trial.distributions[name] = distribution
        return
    if not isinstance(storage, RetryingStorage) or storage.database is None:
        raise ConfigError(
            [f"{name}: has more choices now, which a journal or a proxy cannot add to the trials that are there; give "
             "this command once with the database's own address, or take another study name and "
             f"sweep.warm_start={study.study_name}"]
        )  # fmt: skip
    study_id = storage.get_study_id_from_name(study.study_name)
    storage.retry(rewrite_distribution, storage.database, study_id, name, distribution)
    storage.inner = with_cache(storage.database)  # a new cache, without the old distributions


def _trim_enqueued(study: optuna.Study, trials: Sequence[FrozenTrial], space: SearchSpace) -> None:
    """Remove from the trials that wait the values that the space no longer has.

    One that has begun ends, and another one takes its place: the values of a trial that has some cannot change.
    """
    domains = {parameter.name: parameter.domain for parameter in space.parameters}
    store = TrialStore(study)
    for trial in trials:
        given = trial.params or trial.system_attrs.get(ENQUEUED) or {}
        kept = {name: value for name, value in given.items() if name in domains and value in domains[name]}
        if trial.state is not TrialState.WAITING or kept == given:
            continue
        if not trial.params:
            store.storage.set_trial_system_attr(store.id_of(trial.number), ENQUEUED, kept)
            continue
        attributes = {name: value for name, value in trial.user_attrs.items() if name in OF_THE_RACE}
        new = create_trial(
            state=TrialState.WAITING, system_attrs={ENQUEUED: kept},
            user_attrs={**attributes, ATTEMPTS: 1, RETRY_OF: trial.number},
        )  # fmt: skip
        reason = f"the search space has changed; trial {store.create(new).number} takes its place"
        for name, value in ((SKIPPED, True), (REASON, reason)):
            store.set_user_attr(trial.number, name, value)
        store.set_state(trial.number, TrialState.FAIL)


def _changes_of_space(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in sorted({*before, *now}) if not name.endswith(FIXED)]
    return [
        f"{name}: was {_text(before.get(name))}, is {_text(now.get(name))}"
        for name in names
        if not _same(before.get(name), now.get(name))
    ]


def _same(old: Any, new: Any) -> bool:
    """Whether two distributions are the same; the order of choices does not matter."""
    if old and new and "choices" in old["attributes"] and "choices" in new["attributes"]:
        first, second = ([repr(each) for each in entry["attributes"]["choices"]] for entry in (old, new))
        return sorted(first) == sorted(second)
    return bool(old == new)


def _changes_of_base(before: Mapping[str, Any], base_before: Base | None, now: Base, space: SearchSpace) -> list[str]:
    if base_before is None:
        return _changes_of_typed(before, now, space)
    changes = []
    for label in [label for label in base_before if label in now]:
        old, new = ({**each[""], **each[label]} for each in (base_before, now))
        changes += [
            f"{key}{f' with {label}' if label else ''}: was {old[key]}, is {new[key]}"
            for key in sorted({*base_before[label], *now[label]})
            if key in old and key in new and old[key] != new[key]  # not a key that one version lacks
        ]
    return changes


def _changes_of_typed(before: Mapping[str, Any], now: Base, space: SearchSpace) -> list[str]:
    """For a study of an older version, which recorded only the typed overrides."""
    typed = {name.removesuffix(FIXED): text for name, text in before.items() if name.endswith(FIXED)}
    values = {**space.known, **now[""]}
    searched = {parameter.key for parameter in space.parameters}
    changes = []
    for key in sorted({*typed, *space.fixed} - searched):
        if MAY_CHANGE_ON_RESUME.fullmatch(key) or (key in typed and key not in values):
            continue
        if key not in typed:
            changes.append(f"{key}: was absent, is {space.fixed[key]}")
        elif str(values[key]) != typed[key] and values[key] != _read(typed[key]):
            changes.append(f"{key}: was {typed[key]}, is {values[key]}")
    return changes


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _text(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"{entry['name'].removesuffix('Distribution').lower()} {entry['attributes']}"
    return "absent" if entry is None else str(entry)
