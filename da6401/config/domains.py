"""The values that a searched key may take, read from Hydra's sweep syntax: `choice`, `range`, `interval`, `a,b`."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)

from da6401.config.quoting import quote

Value = None | bool | int | float | str  # what Optuna stores of a choice
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")  # a text that Hydra reads as it is written
WORDS = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)  # Hydra reads these as other types
LARGEST = 2**53  # above it, neighbouring whole numbers are the same float
MOST_STEPS = 1_000_000  # values of a range


@dataclass(frozen=True)
class Choices:
    """Some values, without an order."""

    values: tuple[Value, ...]  # a list or a mapping stands as its text
    structures: frozenset[str] = frozenset()  # those texts

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)

    def __contains__(self, value: Any) -> bool:
        return any(same_value(each, value) for each in self.values)

    def text(self, value: Value) -> str:
        """The value as an override writes it."""
        return value if isinstance(value, str) and value in self.structures else written(value)


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both included; whole numbers where both are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None  # None: every number between them, or every whole number

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_finite(self) -> bool:
        """Whether its numbers can be counted."""
        return self.is_whole or self.step is not None

    def __iter__(self) -> Iterator[Value]:
        if self.is_whole:
            yield from range(int(self.low), int(self.high) + 1, int(self.step or 1))
            return
        assert self.step is not None, "an interval without a step has no next number"
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        for index in range(round((self.high - self.low) / self.step) + 1):
            yield float(low + index * step)

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return not self.is_finite or math.isclose(steps, round(steps), abs_tol=1e-6)

    def text(self, value: Value) -> str:
        """The value as an override writes it."""
        return written(value)


Domain = Choices | Interval


def same_value(first: Any, second: Any) -> bool:
    """Whether two values of a configuration are the same: 0 is 0.0, but neither is False nor "0"."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    return bool(first == second)


def written(value: Value) -> str:
    """A value as Hydra's grammar reads it again."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if not PLAIN.fullmatch(value) or WORDS.fullmatch(value):
            return quote(value)
        case str():
            return value
    return repr(value)


def domain_of(override: Override, options: Sequence[str] = ()) -> Domain:
    """The domain of a sweep override.

    Args:
        options: what `glob` selects from: the options of the config group.

    Raises:
        ValueError: it has no value, or cannot be searched; the message says what to write.
    """
    sweep: Any = override.value()
    if isinstance(sweep, Glob):
        found = sweep.filter(list(options))
        if not found:
            raise ValueError(f"glob({', '.join(sweep.include)}) matches none of {', '.join(options) or 'its values'}")
        return Choices(tuple(found))
    assert isinstance(sweep, (ChoiceSweep, RangeSweep, IntervalSweep)), "only sweep overrides have a domain"
    tags = set(sweep.tags)
    if tags - {"log"}:
        raise ValueError(f"tag({', '.join(sorted(tags))}, ...): the only tag is log")
    if isinstance(sweep, IntervalSweep):
        return _interval(sweep)
    if tags:
        raise ValueError("log belongs to an interval: write tag(log, interval(LOW, HIGH)), or int(...) of the interval")
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers:
        return _range(sweep)
    items = list(_flat(sweep.list)) if isinstance(sweep, ChoiceSweep) else list(sweep)
    if sweep.shuffle:  # the same for every worker and on every resume
        random.Random(override.key_or_group).shuffle(items)
    return _choices(items)


def _flat(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (RangeSweep, IntervalSweep, Glob)):
            raise ValueError("a choice holds values, no range, interval or glob")
        if isinstance(item, ChoiceSweep):
            yield from _flat(item.list)
        else:
            yield item


def _choices(items: Sequence[Any]) -> Choices:
    values: list[Value] = []
    structures = set()
    for item in items:
        value: Value = item.text if isinstance(item, QuotedString) else item
        if isinstance(item, (list, dict)):
            value = Transformer.str(item)
            structures.add(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no finite number")
        if not any(type(each) is type(value) and same_value(each, value) for each in values):
            values.append(value)
    if not values:
        raise ValueError("holds no value")
    return Choices(tuple(values), frozenset(structures))


def _range(sweep: RangeSweep) -> Interval:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None, "the grammar gives a range both ends"
    assert stop is not None
    numbers = (start, stop, step)
    if not all(math.isfinite(number) for number in numbers) or step == 0:
        raise ValueError("needs finite numbers and a step other than 0")
    count = math.ceil((Decimal(str(stop)) - Decimal(str(start))) / Decimal(str(step)))  # the stop is not included
    if count <= 0:
        raise ValueError("holds no value: range(START, STOP) ends before STOP; the other way round?")
    if count > MOST_STEPS:
        raise ValueError(f"holds {count:,} values, more than {MOST_STEPS:,}; write interval({start}, {stop})")
    last = Decimal(str(start)) + (count - 1) * Decimal(str(step))
    if all(isinstance(number, int) for number in numbers):
        low, high = sorted((int(start), int(last)))
        return Interval(low, high, step=abs(int(step)))
    low_float, high_float = sorted((float(start), float(last)))
    return Interval(low_float, high_float, step=abs(float(step)))


def _interval(sweep: IntervalSweep) -> Interval:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None, "the grammar gives an interval both ends"
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high)) or max(abs(low), abs(high)) > LARGEST:
        raise ValueError("needs two finite numbers")
    if low > high:
        raise ValueError(f"the lower end comes first: write interval({high:g}, {low:g})")
    if log and low <= 0:
        raise ValueError("a logarithmic interval begins above 0")
    return Interval(low, high, log=log)
