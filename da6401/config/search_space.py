"""A sweep's search space: which keys vary between its trials, over which values, and under which conditions.

Read once from the YAML and the command line (``read_space.py``); neither Optuna nor torch is needed. The sweeper asks
Optuna for values (``sweep/suggest.py``), or takes the points in order.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Sweep
from hydra.errors import OverrideParseException

from da6401.config.domains import Domain, Interval, Value, same_value, written
from da6401.config.own_keys import CHOSEN, OWN
from da6401.config.validate import option_has_key
from da6401.runs.renamed_keys import older_names, renamed_text

Point = dict[str, Value]  # a configuration: parameter name -> value


class Condition(NamedTuple):
    """One part of ``when: "model=cnn, augmentation!=none"``."""

    key: str
    equal: bool
    value: str  # as written

    def admits(self, value: Any) -> bool:
        """Whether a value of the key meets it; a number is compared as one, and so is a truth value."""
        return any(same_value(wanted, value) for wanted in (as_value(self.value), self.value)) == self.equal

    def __str__(self) -> str:
        return f"{self.key}{'=' if self.equal else '!='}{self.value}"


@dataclass(frozen=True)
class Parameter:
    """One searched key, as Optuna knows it."""

    name: str  # the key; of a key that has other values under another condition, the key and its condition
    key: str
    domain: Domain
    conditions: tuple[Condition, ...] = ()

    @property
    def first(self) -> Value:
        """Its first or lowest value."""
        return self.domain.low if isinstance(self.domain, Interval) else next(iter(self.domain))

    @property
    def is_finite(self) -> bool:
        """Whether its values can be counted."""
        return not isinstance(self.domain, Interval) or self.domain.is_finite


@dataclass(frozen=True)
class SearchSpace:
    """The parameters in the order in which they were written, and what all trials share."""

    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, str]  # key -> the value as an override writes it
    known: Mapping[str, Any]  # every key's value where it is not searched, and each config group's option
    deletions: tuple[str, ...] = ()  # overrides such as ~key
    networks: Mapping[str, str] = field(default_factory=dict)  # of searched options of `model` that have other names
    replaced: tuple[str, ...] = ()  # keys that hydra.sweeper searches, and the command line gives one value
    first: tuple[Mapping[str, Any], ...] = ()  # hydra.sweeper.first: values of keys, tried after the defaults
    _by_name: Mapping[str, Parameter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {parameter.name: parameter for parameter in self.parameters})

    @property
    def is_finite(self) -> bool:
        """Whether its points can be counted."""
        return all(each.is_finite for each in self.parameters)

    @property
    def is_listed(self) -> bool:
        """Whether every key has a list or a range of values, as in `seed=0,1`: what Hydra's users take for a grid."""
        return all(not isinstance(each.domain, Interval) or each.domain.step is not None for each in self.parameters)

    def named_as(self, names: Iterable[str]) -> SearchSpace:
        """The same space for a study with these names of parameters, some of which an older version may have given."""
        older = older_names(names)
        renamed = (dataclasses.replace(each, name=older.get(each.name, each.name)) for each in self.parameters)
        return dataclasses.replace(self, parameters=tuple(renamed))

    def draw(self, ask: Callable[[Parameter], Value]) -> Point:
        """A point whose values are asked for one by one; config groups come first, since conditions depend on them."""
        chosen: Point = {}
        for parameter in sorted(self.parameters, key=lambda each: (bool(each.conditions), "." in each.key)):
            if self._applies(parameter, chosen):
                chosen[parameter.name] = ask(parameter)
        return chosen

    def given_points(self) -> list[Point]:
        """The defaults, then ``first`` where it departs from them; without values that the space does not have."""
        points: list[Point] = []
        for point in (self.inside(self.known), *self.first_points()):
            if point not in points:
                points.append(point)
        return points

    def first_points(self) -> list[Point]:
        """The points of ``first``; without values that the space does not have."""
        return [self.inside({**self.known, **values}) for values in self.first]

    @property
    def default(self) -> Point | None:
        """The configuration without a search; None where the space does not have each of its values."""
        point = self.inside(self.known)
        return point if self.is_whole(point) else None

    def options_with_own_keys(self) -> list[str]:
        """The searched options that have other keys than the others of their group, as overrides."""
        return [
            f"{each.key}={option}"
            for each in self.parameters
            if each.key in CHOSEN and not isinstance(each.domain, Interval)
            for option in dict.fromkeys(map(str, each.domain))
            if each.key in ("model", "data") or option in OWN[each.key]
        ]

    def first_values(self, option: str) -> Point:
        """The point of the first value of each key; of a group the given option, as in ``model=cnn``, "" of none."""
        group, _, name = option.partition("=")
        return self.draw(lambda parameter: name if parameter.key == group else parameter.first)

    def is_whole(self, point: Mapping[str, Any]) -> bool:
        """Whether it has a value for each parameter that applies to it."""
        return self.draw(lambda parameter: point.get(parameter.name)).keys() <= point.keys()

    def inside(self, values: Mapping[str, Any]) -> Point:
        """The point with these values of keys; without those that are not searched."""
        domains = {parameter.name: parameter.domain for parameter in self.parameters}
        drawn = self.draw(lambda parameter: values.get(parameter.key))
        return {name: value for name, value in drawn.items() if value in domains[name]}

    def points(self) -> Iterator[Point]:
        """Every point of a finite space, the last key varying fastest."""
        order = list(self.parameters)
        deciding = {group for each in order if self._depends_on(group := each.key.partition(".")[0], each.key)}
        order.sort(key=lambda each: each.key not in deciding)
        return self._extended({}, order)

    def _extended(self, chosen: Point, rest: Sequence[Parameter]) -> Iterator[Point]:
        if not rest:
            yield chosen
        elif not self._applies(rest[0], chosen):
            yield from self._extended(chosen, rest[1:])
        else:
            for value in rest[0].domain:
                yield from self._extended({**chosen, rest[0].name: value}, rest[1:])

    def count(self, most: int) -> int:
        """The number of points, at most ``most``; an infinite space has that many."""
        return sum(1 for _ in itertools.islice(self.points(), most)) if self.is_finite else most

    def identity(self, point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """A value that is equal for two points if and only if their trials would be the same training."""
        return tuple(sorted((name, self._step(name, value)) for name, value in point.items()))

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial; a key that its options, such as the model, do not have is left out."""
        values = {key_of(name): self._text(name, value) for name, value in point.items()}
        shared = {key: text for key, text in self.fixed.items() if self._has_key(key, point)}
        return [_override(key, text) for key, text in {**values, **shared}.items()] + list(self.deletions)

    def _applies(self, parameter: Parameter, chosen: Mapping[str, Any]) -> bool:
        if any(key_of(name) == parameter.key for name in chosen):  # under two conditions that both hold: the first
            return False
        return self._has_key(parameter.key, chosen) and all(
            condition.admits(self._option(condition.key, chosen)) for condition in parameter.conditions
        )

    def _has_key(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether a trial's options have a key; of another group than `model` that is asked where it is searched."""
        group = key.partition(".")[0]
        if group == "model":
            return option_has_key(key, self._network(chosen))
        is_searched = group in CHOSEN and any(parameter.key == group for parameter in self.parameters)
        return not is_searched or option_has_key(key, str(self._option(group, chosen)))

    def _depends_on(self, group: str, key: str) -> bool:
        """Whether the option of its group, where that is searched, says if there is the key; any model may say so."""
        options = [option for each in self.parameters if each.key == group and each.is_finite for option in each.domain]
        return (group == "model" and key != group) or not all(option_has_key(key, str(each)) for each in options)

    def _network(self, chosen: Mapping[str, Any]) -> str:
        """The network of a trial, which says what keys of `model` there are."""
        option = str(self._option("model", chosen))
        return self.networks.get(option, option)

    def _option(self, key: str, chosen: Mapping[str, Any]) -> Any:
        """The value of a key in a trial."""
        for name, value in chosen.items():
            if key_of(name) == key:
                return value
        return self.known.get(key)

    def _text(self, name: str, value: Any) -> str:
        return self._by_name[name].domain.text(value) if name in self._by_name else written(value)

    def _step(self, name: str, value: Any) -> tuple[str, Any]:
        """A value, comparable with others of its parameter; one on a scale of steps as the number of its step."""
        domain = self._by_name[name].domain if name in self._by_name else None
        if isinstance(domain, Interval) and domain.step is not None and isinstance(value, (int, float)):
            return "step", round((value - domain.low) / domain.step)
        return type(value).__name__, str(value) if value is None else value


def key_of(name: str) -> str:
    """The configuration key of a parameter's name in a study: what stands before its condition, by its new name."""
    return renamed_text(name.partition(" [")[0])


def parse_override(text: str) -> Override:
    """An override in Hydra's grammar.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        override = OverridesParser.create().parse_overrides([text])[
            0
        ]  # (parse_override does not wrap the grammar's errors)
        if not override.is_sweep_override() and _holds_sweep(override.value()):
            raise ValueError("a list or a mapping holds values, no choice, range or interval")
        return override
    except OverrideParseException as error:
        raise ValueError(_why(text, error)) from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def _holds_sweep(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_sweep, [*value, *value.values()]))
    return any(map(_holds_sweep, value)) if isinstance(value, list) else isinstance(value, (Sweep, Glob))


def _why(text: str, error: OverrideParseException) -> str:
    """Why Hydra's grammar refuses a text, in the user's words."""
    cause = str(error.__cause__ or "").strip().partition("\n")[0]
    if "NoneType is incompatible" in cause:
        return "null cannot stand in a function; write the values with commas, as in null,0.1"
    if "is incompatible with" in cause:
        return "a function takes single values, or a sweep where Hydra's grammar says so; write choice(1, 2, 3)"
    if cause == "empty choice is not legal":
        return "an empty choice: name at least one value"
    if cause.startswith("Unknown function"):
        return f"{cause[:1].lower()}{cause[1:]}; a text with parentheses needs quotes: key=\"'text (1)'\""
    if cause:
        return f"not an override; write key=value ({cause})"
    if "=" not in text and not text.startswith("~"):
        return "not an override; write key=value"
    return "not an override; write key=value, and a value with spaces or special characters as key=\"'value'\""


def as_value(text: str) -> Any:
    """A condition's value as the grammar reads it; the text itself where it does not."""
    try:
        override = parse_override(f"key={text}")
    except ValueError:
        return text
    return text if override.is_sweep_override() else override.value()


def _override(key: str, text: str) -> str:
    """An override that sets a key whether or not Hydra's first composition, with another model, has it."""
    return f"++{key}={text}" if "." in key else f"{key}={text}"
