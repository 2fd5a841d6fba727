"""The keys of the metrics that plugins bring, for the run whose answers are being measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_keys: ContextVar[Any] = ContextVar("_keys", default=None)


@contextmanager
def measured_with(keys: Any) -> Iterator[None]:
    """Within the block the metrics of plugins have these keys, a run's ``metrics``."""
    token = _keys.set(keys)
    try:
        yield
    finally:
        _keys.reset(token)


def keys_of(name: str) -> Any:
    """The keys of a metric here; None where no run is being measured, or it has none."""
    return getattr(_keys.get(), name, None)
