"""Whether two models differ on the same images, and two configurations over the same folds and seeds."""

# N images, R resamples

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from da6401.errors import UndefinedMetricError
from da6401.metrics.intervals import Interval, Values, Z, resampled
from da6401.metrics.scores import score
from da6401.registry import DECIMALS
from da6401.runs.predictions import Predictions

EXACT = 50  # pairs, up to which the signed-rank test is exact
LEVEL = 0.05  # a difference is shown where the p-value, corrected for many, is below it


@dataclass(frozen=True)
class Difference:
    """A metric of one model less that of another, on the same images."""

    value: float
    interval: Interval  # 95%
    p: float  # that a difference as large comes by chance, of equally good models
    images: int
    test: str  # by which p was computed

    @property
    def is_shown(self) -> bool:
        """Whether p, which ``corrected`` may have raised, is below the level."""
        return self.p < LEVEL


def on_same_images(one: Predictions, other: Predictions) -> Predictions | None:
    """``other`` in the order of ``one``; None where they are not of the same images, labels and classes."""
    if one.class_names != other.class_names or len(one.names) != len(other.names):
        return None
    if one.names != other.names:
        row = {name: index for index, name in enumerate(other.names)}
        if len(row) < len(other.names) or set(row) != set(one.names):
            return None
        rows_N = np.array([row[name] for name in one.names])
        other = Predictions(one.class_names, one.names, other.labels_N[rows_N], other.probabilities_NK[rows_N])
    return other if np.array_equal(one.labels_N, other.labels_N) else None


def difference(name: str, one: Predictions, other: Predictions, *, resamples: int = 1000) -> Difference:
    """One metric of both, on the same images in the same order.

    Accuracy: McNemar's exact test on the images that one alone has right. Others: the paired bootstrap, whose resamples
    are the same for both, with a normal distribution of its deviation.

    Raises:
        UndefinedMetricError: the metric has no value on these images, or on most of their resamples.
    """
    labels_N, count = one.labels_N, len(one.labels_N)
    values = [score(name, labels_N, each.probabilities_NK) for each in (one, other)]
    gap = values[0] - values[1]
    if name == "accuracy":
        alone, other_alone = only_right(one, other)
        spread = math.sqrt(max(alone + other_alone - (alone - other_alone) ** 2 / count, 0.0)) / count
        p, test = mcnemar(alone, other_alone), "McNemar"
    else:
        gaps_R = resampled(name, one, number=resamples) - resampled(name, other, number=resamples)
        spread = _deviation(name, gaps_R)
        p = math.erfc(abs(gap) / spread / math.sqrt(2)) if spread > 0 else float(gap == 0)
        test = "paired bootstrap"
    return Difference(gap, (gap - Z * spread, gap + Z * spread), p, count, test)


def _deviation(name: str, gaps_R: Values) -> float:
    known = gaps_R[~np.isnan(gaps_R)]
    if 2 * len(known) < len(gaps_R):
        raise UndefinedMetricError(f"{name}: most resamples of these images lack a class, so that no test can be made")
    return float(known.std(ddof=1))


def only_right(one: Predictions, other: Predictions) -> tuple[int, int]:
    """On how many images the first alone is right, and the other alone."""
    right, other_right = one.predicted == one.labels_N, other.predicted == other.labels_N
    return int((right & ~other_right).sum()), int((other_right & ~right).sum())


def mcnemar(alone: int, other_alone: int) -> float:
    """The exact two-sided p-value of McNemar's test."""
    from scipy.stats import binomtest

    total = alone + other_alone
    return float(binomtest(alone, total).pvalue) if total else 1.0


def signed_rank(gaps: Sequence[float]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test on paired differences; 1 where all are 0."""
    from scipy.stats import wilcoxon

    rounded = [round(gap, DECIMALS) for gap in gaps]
    nonzero = [gap for gap in rounded if gap]
    if not nonzero:
        return 1.0
    ties = len({abs(gap) for gap in nonzero}) < len(nonzero)
    if ties and len(nonzero) <= EXACT:
        return _signed_rank_with_ties(nonzero)
    return float(wilcoxon(nonzero, method="exact" if len(nonzero) <= EXACT else "approx").pvalue)


def over_folds(gaps: Sequence[float], images: int) -> Difference:
    """The mean of two or more differences, one of each fold: Student's interval, and Wilcoxon's signed-rank test."""
    from scipy.stats import t

    value = statistics.fmean(gaps)
    half = float(t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(value, (value - half, value + half), signed_rank(gaps), images, "Wilcoxon's signed-rank test")


def _signed_rank_with_ties(gaps: Sequence[float]) -> float:
    """The exact p-value over all signs of the gaps, whose ranks are means where sizes are equal.

    scipy approximates it by a normal distribution, which gives few pairs a smaller p than they can have.
    """
    from scipy.stats import rankdata

    doubled = np.rint(2 * rankdata(np.abs(gaps))).astype(np.int64)  # means of ranks are halves
    total = int(doubled.sum())
    ways = np.zeros(total + 1, dtype=np.int64)  # signs that give each sum of the positive ranks
    ways[0] = 1
    for rank in doubled.tolist():
        ways[rank:] += ways[:-rank].copy()
    distance = np.abs(2 * np.arange(total + 1) - total)
    seen = abs(2 * int(doubled[np.asarray(gaps) > 0].sum()) - total)
    return float(ways[distance >= seen].sum() / 2.0 ** len(gaps))


def least_p(pairs: int) -> float:
    """The smallest p-value that Wilcoxon's test can give for so many pairs."""
    return float(2.0 ** (1 - pairs)) if pairs else 1.0


def corrected(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for many tests (Holm 1979), in the same order."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
