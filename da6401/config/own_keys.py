"""The keys that plugins add: for each name that a plugin registers the dataclass of its keys, by config group.

Two forms. Of the groups in CHOSEN one name is chosen, and the plugin's keys stand beside the group's own:
``model.width`` with ``model=tiny``. In those of ADDED any number of names work at once, each with a group of its own:
``augmentation.noise.sigma``.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from da6401.config.rule import Rule, default_of, hints_of, key

CHOSEN = {"model": "name", "data": "source", "optimizer": "name", "schedule": "name"}  # and the key that says which
ADDED = ("augmentation", "metrics", "callbacks")
OWN: dict[str, dict[str, type]] = {group: {} for group in (*CHOSEN, *ADDED)}
SWITCH = "on"  # of a name in `augmentation` and `callbacks`
PLAIN = (int, float, bool, str)


def with_keys(base: type, name: str, keys: type | None, *, group: str, body: Mapping[str, Any]) -> type:
    """The schema of ``group=name``: the group's own keys, and those of a plugin's dataclass.

    Args:
        body: methods and properties that the schema has besides.

    Raises:
        ValueError: a field that cannot be a key; the message says which and why.
    """
    discriminator = (CHOSEN[group], Literal[name], key(name, f"registered by a plugin as {name}"))
    return _made(f"own_{name}", [discriminator, *_fields(keys, taken=CHOSEN[group])], (base,), keys, body)


def nested_keys(name: str, keys: type | None, *, switched: bool) -> type:
    """The schema of ``augmentation.name`` and its like: a plugin's keys, after one that switches it on.

    Raises:
        ValueError: as ``with_keys``.
    """
    switch = [(SWITCH, bool, key(False, f"whether {name} is used"))] if switched else []
    return _made(f"own_{name}", [*switch, *_fields(keys, taken=SWITCH)], (), keys, {})


def extended(base: type, group: str) -> type:
    """The schema of a group of ADDED with the names that plugins have registered now."""
    return _extended(base, tuple(OWN[group].items()))


@functools.lru_cache(maxsize=64)
def _extended(base: type, own: tuple[tuple[str, type], ...]) -> type:
    if not own:
        return base
    fields = [(name, schema, dataclasses.field(default_factory=schema)) for name, schema in own]
    made: type = dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True, kw_only=True)
    made.__doc__ = base.__doc__
    return made


def _made(
    name: str, fields: list[tuple[str, Any, Any]], bases: tuple[type, ...], keys: type | None, body: Mapping[str, Any]
) -> type:
    hidden = {"__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__match_args__", "__hash__"}
    own = {} if keys is None else {each: value for each, value in vars(keys).items() if not each.startswith("__")}
    methods = {each: value for each, value in own.items() if each not in {field[0] for field in fields} | hidden}
    made: type = dataclasses.make_dataclass(
        name, fields, bases=bases, namespace={**methods, **body}, frozen=True, kw_only=True
    )
    made.__doc__ = (keys and keys.__doc__) or name
    return made


def _fields(keys: type | None, *, taken: str) -> list[tuple[str, Any, Any]]:
    """The fields of a plugin's dataclass as keys; a field without a rule of its own has that of its type."""
    if keys is None:
        return []
    if not (isinstance(keys, type) and dataclasses.is_dataclass(keys)):
        raise ValueError(f"the keys are given as {keys!r}, which is no dataclass")
    hints = hints_of(keys)
    found = []
    for item in dataclasses.fields(keys):
        if item.name == taken:
            raise ValueError(f"the field {item.name} has the name of a key that says which plugin is used")
        if not _is_possible(hints[item.name]):
            raise ValueError(
                f"the field {item.name} is of type {item.type}: a key is an int, float, bool, str, a Literal of words, "
                "or a list of these"
            )
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ValueError(f"the field {item.name} has no default")
        rule = item.metadata.get("rule", Rule(""))
        found.append((item.name, hints[item.name], _copied(item, rule)))
    return found


def _copied(item: dataclasses.Field[Any], rule: Rule) -> Any:
    default = default_of(item)
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"rule": rule})
    return dataclasses.field(default=default, metadata={"rule": rule})


def _is_possible(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return all(isinstance(word, str) for word in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return all(_is_possible(member) for member in get_args(hint))
    if get_origin(hint) is list:
        return len(get_args(hint)) == 1 and _is_possible(get_args(hint)[0])
    return hint in PLAIN
