"""A study that goes on searches the same: what it searches, and what all its trials share, is written down in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from da6401.config.domains import Interval, Value
from da6401.config.search_space import Parameter, SearchSpace
from da6401.errors import ConfigError
from da6401.runs.run_folder import MAY_CHANGE_ON_RESUME
from da6401.sweep.jobs import JobComposer
from da6401.sweep.param_writes import rewrite_choices
from da6401.sweep.suggest import distribution_of

# User attributes of the study: the distribution of each searched key; and the values of the others, those that come
# with an option of a searched config group under the option's name.
SPACE, BASE = "space", "base"
FIXED = " (fixed)"  # older versions have such entries in SPACE: the overrides that were typed
Base = dict[str, dict[str, Any]]


def check_same_space(study: optuna.Study, space: SearchSpace, composer: JobComposer, *, extend: bool) -> None:
    """Write down what the study searches; a study that goes on must search the same, and train it alike.

    One whose trials have not begun binds nobody. What does not change the meaning of a result may differ.

    Args:
        extend: go on with another space, or other values, which are the study's from then on.

    Raises:
        ConfigError: something has changed, with the difference; or, with ``extend``, in a way that no study can follow.
    """
    now, base = space_of(space), base_of(space, composer)
    before, base_before = study.user_attrs.get(SPACE), study.user_attrs.get(BASE)
    trials = study.get_trials(deepcopy=False)
    begun = any(trial.params or trial.state is not TrialState.WAITING for trial in trials)
    if before is not None and begun:
        changes = [*_changes_of_space(before, now), *_changes_of_base(before, base_before, base, space)]
        if changes and not extend:
            raise ConfigError(
                [*changes, f"the study {study.study_name} has trained another space or other values; go on with those, "
                 "take another study name, or go on with these: resume=extend"]
            )  # fmt: skip
        _let_choices_grow(study, trials, space)
    if before is not None and before != now:
        _fit_waiting(study, trials, space)
    for name, value, stored in ((SPACE, now, before), (BASE, base, base_before)):
        if value != stored:
            study.set_user_attr(name, value)


def space_of(space: SearchSpace) -> dict[str, Any]:
    """The distribution of each searched key, by the key and its conditions."""
    return {
        f"{parameter.key}{''.join(f' when {condition}' for condition in parameter.conditions)}": json.loads(
            distribution_to_json(distribution_of(parameter.domain))
        )
        for parameter in space.parameters
    }


def base_of(space: SearchSpace, composer: JobComposer) -> Base:
    """The values that all trials share; and by "key=option" those that come with an option of a searched group.

    What is searched itself is left out, and what does not change the meaning of a result.
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
    """What Optuna is to be asked for, where the trials of the study have had other choices than the space has now.

    A storage knows one set of choices for a name: all that there ever were, the older ones first.
    """
    found: dict[str, BaseDistribution] = {}
    for parameter, old in _met(trials, space):
        new = distribution_of(parameter.domain)
        if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution) and old != new:
            fresh = [choice for choice in new.choices if not _has(old, choice)]
            found[parameter.name] = CategoricalDistribution([*old.choices, *fresh])
    return found


def _met(trials: Sequence[FrozenTrial], space: SearchSpace) -> Iterator[tuple[Parameter, BaseDistribution]]:
    """The parameters that trials have had, each with its distribution there."""
    known = {name: each for trial in reversed(trials) for name, each in trial.distributions.items()}
    yield from ((parameter, known[parameter.name]) for parameter in space.parameters if parameter.name in known)


def _has(distribution: CategoricalDistribution, choice: object) -> bool:
    return any(type(each) is type(choice) and each == choice for each in distribution.choices)


def _let_choices_grow(study: optuna.Study, trials: Sequence[FrozenTrial], space: SearchSpace) -> None:
    problems = []
    wider = stored_distributions(trials, space)
    for parameter, old in _met(trials, space):
        new = distribution_of(parameter.domain)
        same_scale = getattr(old, "log", False) == getattr(new, "log", False)
        if type(old) is not type(new) or not same_scale:
            problems.append(
                f"{parameter.key}: was {_told(json.loads(distribution_to_json(old)))}, is "
                f"{_told(json.loads(distribution_to_json(new)))}: a study keeps one kind of values for a key; take "
                f"another study name, and warm_start={study.study_name} for its best trials"
            )
        elif parameter.name in wider and wider[parameter.name] != old:
            rewrite_choices(study, parameter.name, wider[parameter.name])
    if problems:
        raise ConfigError(problems)


def _fit_waiting(study: optuna.Study, trials: Sequence[FrozenTrial], space: SearchSpace) -> None:
    """Leave out of trials that were enqueued what the space has no longer."""
    domains = {parameter.name: parameter.domain for parameter in space.parameters}
    for trial in trials:
        given = trial.system_attrs.get("fixed_params")
        if trial.state is TrialState.WAITING and given and not trial.params:
            kept = {name: value for name, value in given.items() if name in domains and value in domains[name]}
            if kept != given:
                study._storage.set_trial_system_attr(trial._trial_id, "fixed_params", kept)


def _changes_of_space(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in sorted({*before, *now}) if not name.endswith(FIXED)]
    return [
        f"{name}: was {_told(before.get(name))}, is {_told(now.get(name))}"
        for name in names
        if not _same(before.get(name), now.get(name))
    ]


def _same(old: Any, new: Any) -> bool:
    """Whether two distributions are the same; the order of choices says nothing."""
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
            if key in old and key in new and old[key] != new[key]  # a key that one version lacks says nothing
        ]
    return changes


def _changes_of_typed(before: Mapping[str, Any], now: Base, space: SearchSpace) -> list[str]:
    """For a study of an older version, which knows the overrides that were typed and no others."""
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


def _told(entry: Any) -> str:
    if isinstance(entry, dict):
        return f"{entry['name'].removesuffix('Distribution').lower()} {entry['attributes']}"
    return "absent" if entry is None else str(entry)
