"""The search space of a composed sweep: what its YAML and its command line say together, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from da6401.config.compose import known_values
from da6401.config.read_space import read_space
from da6401.config.search_path import as_job, hydra_overrides
from da6401.config.search_space import SearchSpace
from da6401.config.validate import is_network, value_problems
from da6401.errors import did_you_mean

OPTIONAL_GROUPS = ("experiment", "sweep")


@dataclass(frozen=True)
class Search:
    """The keys of hydra.sweeper that say what is searched, as they are written."""

    params: Any
    conditional: Any
    first: Any


def sweep_space(
    composed: DictConfig,
    search: Search,
    arguments: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    problems: list[str],
    network: Callable[[str], str],
) -> SearchSpace:
    """The search space of a composed sweep, for the check and for the sweeper; problems are added to the list.

    Args:
        arguments: the overrides of the command line; those of Hydra's own keys are left out.
        groups: each config group's options.
        network: the name of the network of an option of `model`; asked for those that are not named after one.
    """
    with as_job(composed, multirun=True):
        known = known_values(composed)
    params, conditional, first = search.params, search.conditional, search.first
    for name, value, kind, what in (
        ("params", params, Mapping, "a mapping of keys"),
        ("conditional", conditional, (list, tuple), "a list of {when: ..., params: ...}"),
        ("first", first, (list, tuple), "a list of {KEY: VALUE, ...}"),
    ):
        if value is not None and not isinstance(value, kind):
            problems.append(f"hydra.sweeper.{name}={value}: must be {what}")
    first = list(first) if isinstance(first, (list, tuple)) else []
    space = read_space(
        params if isinstance(params, Mapping) else {},
        conditional if isinstance(conditional, (list, tuple)) else [],
        [text for text in arguments if not text.lstrip("+~").startswith(("hydra.", "hydra/"))],
        known=known,
        options=groups,
        problems=problems,
        value_problems=value_check(groups),
        lenient=not any("hydra.sweeper.conditional" in text for text in hydra_overrides(composed)),
    )
    problems += _first_problems(first, space, known, {text.lstrip("+~").partition("=")[0] for text in arguments})
    searched = [str(option) for each in space.parameters if each.key == "model" for option in each.domain]
    networks = {name: network(name) for name in searched if not is_network(name)}
    return dataclasses.replace(
        space, networks=networks, first=tuple(each for each in first if isinstance(each, Mapping))
    )


def _first_problems(
    first: Sequence[Any], space: SearchSpace, known: Mapping[str, Any], typed: Collection[str]
) -> list[str]:
    """What is wrong with hydra.sweeper.first. What the command line says of a key goes before it, and is no mistake."""
    keys = {*known, *(parameter.key for parameter in space.parameters)}
    problems = []
    for number, each in enumerate(first):
        where = f"hydra.sweeper.first[{number}]"
        if not isinstance(each, Mapping):
            problems.append(f"{where}={each}: must be {{KEY: VALUE, ...}}")
            continue
        for key, value in each.items():
            domains = [parameter.domain for parameter in space.parameters if parameter.key == key]
            if key not in keys:
                problems.append(f"{where}: {key}: no such key{did_you_mean(key, keys)}")
            elif key not in typed and domains and not any(value in domain for domain in domains):
                problems.append(f"{where}: {key}={value}: is not among the values that are searched")
    return problems


def value_check(groups: Mapping[str, Sequence[str]]) -> Callable[[str, Any], list[str]]:
    """What is wrong with one value of a key, or of a config group."""
    return lambda key, value: option_problems(key, value, groups[key]) if key in groups else value_problems(key, value)


def option_problems(group: str, value: Any, options: Sequence[str]) -> list[str]:
    """What is wrong with an option of a config group, or with a list of them; [] where there is such a file."""
    if isinstance(value, list):
        return [problem for each in value for problem in option_problems(group, each, options)]
    if str(value) in options or (value is None and group in OPTIONAL_GROUPS):
        return []
    shown = "null" if value is None else value
    return [f"{group}={shown}: no such option of {group}: {', '.join(options)}{did_you_mean(value, options)}"]
