"""Means of metrics that trials are compared by."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

DECIMALS = 12  # equal shares, and gaps of them such as 3/60, else differ in their last bits by how they were computed


def mean(values: Iterable[float]) -> float:
    """Their mean without the noise of rounding, which would else choose between equally good trials."""
    return round(statistics.fmean(values), DECIMALS)
