"""95% intervals of metrics on a finite split: Wilson's of a share of images, the bootstrap's of all others."""

# N images, K classes, R resamples

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from da6401.errors import UndefinedMetricError
from da6401.metrics.scores import score
from da6401.registry import SCORES
from da6401.runs.predictions import Predictions

Z = 1.959963984540054  # the normal distribution's 97.5% point
RESAMPLES = 1000
WORK = 50_000_000  # values that resamples read in all, before there are fewer of them
FEWEST = 200

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]


def wilson(share: float, count: int) -> Interval:
    """The 95% interval of a share of ``count`` independent images (Wilson 1927), within 0..1.

    Args:
        share: right ones among them; it is rounded to a whole number of images.
    """
    right = round(share * count)
    share, middle = right / count, (right + Z * Z / 2) / (count + Z * Z)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    return (0.0 if right == 0 else middle - half), (1.0 if right == count else middle + half)


@functools.lru_cache(maxsize=256)
def _resamples(count: int, number: int) -> npt.NDArray[np.int64]:
    """(R, N): images drawn with replacement; the same ones each time, so that runs can be compared image by image."""
    return np.random.default_rng(0).integers(0, count, (number, count))


def resampled(name: str, answers: Predictions, *, number: int = RESAMPLES) -> Values:
    """(R,): a metric on images drawn with replacement; NaN where it is undefined."""
    images, classes = answers.probabilities_NK.shape
    number = max(min(number, FEWEST), min(number, WORK // (images * classes)))
    labels_N, probabilities_NK = answers.labels_N, answers.probabilities_NK
    values = np.full(number, np.nan)
    for place, rows_N in enumerate(_resamples(images, number)):
        try:
            values[place] = score(name, labels_N[rows_N], probabilities_NK[rows_N])
        except UndefinedMetricError:  # a rare class was not drawn
            continue
    return values


def interval_of(name: str, answers: Predictions) -> Interval | None:
    """The 95% interval of a metric; None where it, or half of the resamples, are undefined."""
    try:
        value = score(name, answers.labels_N, answers.probabilities_NK)
    except UndefinedMetricError:
        return None
    if SCORES[name].is_share:
        return wilson(value, len(answers.labels_N))
    values = resampled(name, answers)
    known = values[~np.isnan(values)]
    if 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, (0.025, 0.975)).tolist()
    return low, high


def span(interval: Interval | None, form: str = "{:.3f}") -> str:
    """An interval in words, "" where there is none."""
    return "" if interval is None else f"95% interval {form.format(interval[0])} to {form.format(interval[1])}"
