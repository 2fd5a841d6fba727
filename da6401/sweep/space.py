"""Search spaces: Hydra's sweep overrides as Optuna distributions, some of them under a condition."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from da6401.config.check import belongs
from da6401.errors import ConfigError


@dataclass(frozen=True)
class Branch:
    """Parameters that exist only where others have certain values; no condition: always."""

    conditions: tuple[tuple[str, bool, str], ...]  # key, whether it must equal the value, value as written
    space: Mapping[str, BaseDistribution]

    def holds(self, known: Mapping[str, Any]) -> bool:
        """Whether what is known of a trial meets all the conditions."""
        return all((str(known.get(key)) == value) == equal for key, equal, value in self.conditions)


@dataclass(frozen=True)
class Space:
    """A sweep's search space and the overrides that all its trials share."""

    branches: tuple[Branch, ...]
    fixed: Mapping[str, Any]
    choices: Mapping[str, Any]  # the options of the config groups, for conditions on what nobody overrides
    other_overrides: tuple[str, ...]  # deletions
    extend: Callable[[Trial], None] | None = None  # hydra.sweeper.custom_search_space, which suggests by itself

    def suggest(self, trial: Trial) -> list[str]:
        """Ask Optuna for this trial's values; the trial's overrides, fixed ones included.

        A key that the trial's model does not have is left out: filter counts go to the CNN, freeze depths to backbones.
        """
        chosen: dict[str, Any] = {}
        for branch in self.branches:
            known = {**self.choices, **self.fixed, **chosen}
            if branch.holds(known):
                for name, distribution in branch.space.items():
                    if belongs(name, str({**known, **chosen}.get("model"))):
                        chosen[name] = trial._suggest(name, distribution)
        if self.extend is not None:
            self.extend(trial)
            chosen = {**trial.params, **chosen}
        return self.overrides(chosen)

    def overrides(self, chosen: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these values."""
        model = str({**self.choices, **self.fixed, **chosen}.get("model"))
        given = {name: value for name, value in self.fixed.items() if belongs(name, model)}
        return [_override(name, value) for name, value in {**chosen, **given}.items()] + list(self.other_overrides)

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every parameter, for the grid sampler.

        Raises:
            ConfigError: a parameter is continuous, or exists only under a condition.
        """
        if any(branch.conditions and branch.space for branch in self.branches):
            raise ConfigError(
                ["hydra/sweeper/sampler=grid: hydra.sweeper.conditional has no grid; take another sampler"]
            )
        values = {}
        for name, distribution in self.branches[0].space.items():
            match distribution:
                case CategoricalDistribution():
                    values[name] = list(distribution.choices)
                case IntDistribution():
                    values[name] = list(range(distribution.low, distribution.high + 1, distribution.step))
                case _:
                    raise ConfigError(
                        [f"{name}: hydra/sweeper/sampler=grid needs a choice or a range of whole numbers"]
                    )
        return values


def parse_space(
    params: Mapping[str, str],
    conditional: Sequence[Mapping[str, Any]],
    arguments: Sequence[str],
    *,
    choices: Mapping[str, Any],
) -> Space:
    """The space of a sweep's YAML and command line; what the command line fixes is no longer searched.

    Args:
        params: key -> Hydra sweep, such as ``optimizer.lr: tag(log, interval(1e-4, 1e-1))``, or one fixed value.
        conditional: each ``{when: "model=cnn", params: {...}}``; ``when`` may tie several keys with commas.
        arguments: the task overrides of the command line.
        choices: the chosen option of each config group.
    """
    space, fixed, other = _parse([f"{key}={value}" for key, value in params.items()])
    typed_space, typed_fixed, typed_other = _parse(arguments)
    fixed = {key: value for key, value in fixed.items() if key not in typed_space} | typed_fixed
    always = {key: value for key, value in (space | typed_space).items() if key not in typed_fixed}
    branches = [Branch((), dict(sorted(always.items(), key=lambda item: "." in item[0])))]  # groups first
    for entry in conditional:
        inner, inner_fixed, _ = _parse([f"{k}={v}" for k, v in entry["params"].items()])
        if inner_fixed:
            names = ", ".join(inner_fixed)
            raise ConfigError([f"hydra.sweeper.conditional: {names}: give a choice or an interval, not one value"])
        free = {key: value for key, value in inner.items() if key not in fixed and key not in always}
        branches.append(Branch(_conditions(str(entry["when"])), free))
    return Space(tuple(branches), fixed, choices, (*other, *typed_other))


def _parse(overrides: Sequence[str]) -> tuple[dict[str, BaseDistribution], dict[str, Any], list[str]]:
    """Searched, fixed and deleted keys, in the official sweeper's reading; of a key given twice the last counts."""
    space: dict[str, BaseDistribution] = {}
    fixed: dict[str, Any] = {}
    other: list[str] = []
    for text in overrides:
        searched, given, deleted = create_params_from_overrides([text])
        for name in [name.lstrip("+") for name in (*searched, *given)]:
            space.pop(name, None)
            fixed.pop(name, None)
        space |= {name.lstrip("+"): distribution for name, distribution in searched.items()}
        fixed |= {name.lstrip("+"): value for name, value in given.items()}
        other += deleted
    return space, fixed, other


def _override(name: str, value: Any) -> str:
    """An override that sets a key whether or not Hydra's first composition, with another model, has it."""
    return f"++{name}={value}" if "." in name else f"{name}={value}"


def _conditions(text: str) -> tuple[tuple[str, bool, str], ...]:
    """``model=cnn, augmentation!=none`` as triples.

    Raises:
        ConfigError: a part is neither key=value nor key!=value.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\w.]+)\s*(!?=)\s*(\S+)\s*", part)
        if match is None:
            raise ConfigError(
                [f"hydra.sweeper.conditional: when: {text!r}: write key=value or key!=value, with commas"]
            )
        found.append((match[1], match[2] == "=", match[3]))
    return tuple(found)
