"""The rule of a key in the schema: which values it may have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, get_type_hints

from da6401.registry import Registry


@dataclass(frozen=True)
class Rule:
    """What a key's value must satisfy, beyond its type."""

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None  # like low, but the bound itself is not allowed
    below: float | None = None  # like high, but the bound itself is not allowed
    pattern: str = ""  # a regular expression that the whole text must match
    shape: str = ""  # the pattern in words
    path: bool = False  # the text names a file or folder
    names: Registry[Any] | Mapping[str, Any] | None = None  # the text, or each of a list, is one of these names


def key(default: Any, doc: str, **rule: Any) -> Any:
    """A dataclass field whose metadata holds its Rule. A list as the default is each dataclass's own copy."""
    metadata = {"rule": Rule(doc, **rule)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(item: Field[Any]) -> Any:
    """The default of a field that ``key`` made."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def hints_of(cls: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields."""
    return _hints(cls)


@functools.lru_cache(maxsize=256)  # every trial's configuration is checked, and Python evaluates them anew each time
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)
