"""What a sweep gained: its winner against the default configuration, on images that did not choose the winner.

The best of many trials on some images is partly lucky on them. So half of the images choose the winner, and the other
half say by how much it is better than the default; this is done for many halves, both ways, and averaged.
"""

# N validation images, T trials, S splits

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from da6401.config.metrics import Metric
from da6401.metrics.intervals import Z
from da6401.metrics.paired import Difference, difference, on_same_images
from da6401.metrics.scores import log_losses
from da6401.runs.predictions import Predictions

SPLITS = 200
BY_IMAGE = {"accuracy": 1.0, "log_loss": -1.0}  # metrics that are a mean over images, and the sign of "better"


class HasParams(Protocol):
    """A trial of either record."""

    @property
    def params(self) -> Mapping[str, object]: ...


Trial = TypeVar("Trial", bound=HasParams)


def longest(default: Trial, complete: Sequence[Trial]) -> Trial:
    """The last complete training of the default configuration: a race trains it for longer and longer."""
    return [each for each in [default, *complete] if each.params == default.params][-1]


def gain(name: str, answers: Mapping[int, Predictions], winner: int, default: int | None) -> Difference | None:
    """The winner's metric less the default's, with its interval.

    A metric that is no mean over images is compared on all of them, which flatters the winner.

    Args:
        answers: of the sweep's completed trials, by number.

    Returns:
        None where there is no such default, or it was asked other images, or it is the winner.

    Raises:
        UndefinedMetricError: the metric has no value on these images.
    """
    if default is None or default not in answers or winner == default:
        return None
    same = {number: found for number, each in answers.items()
            if (found := on_same_images(answers[default], each)) is not None}  # fmt: skip
    if winner not in same:
        return None
    if name not in BY_IMAGE:
        return difference(name, same[winner], same[default])
    scores_TN = BY_IMAGE[name] * np.stack([_scores(name, each) for each in same.values()])
    gaps_N = BY_IMAGE[name] * _held_out_gaps(scores_TN, list(same).index(default))
    value, spread = float(gaps_N.mean()), float(gaps_N.std(ddof=1)) / math.sqrt(len(gaps_N))
    p = math.erfc(abs(value) / spread / math.sqrt(2)) if spread > 0 else float(value == 0)
    return Difference(value, (value - Z * spread, value + Z * spread), p, len(gaps_N), "nested hold-out")


def _held_out_gaps(scores_TN: npt.NDArray[np.float64], default: int) -> npt.NDArray[np.float64]:
    """(N,): of each image the winner's score less the default's, averaged over the winners that it did not choose."""
    count = scores_TN.shape[1]
    rng = np.random.default_rng(0)
    chooses_SN = np.argsort(rng.random((SPLITS, count)), axis=1) < count // 2
    chooses_SN = np.concatenate([chooses_SN, ~chooses_SN]).astype(np.float64)
    winners_S = (chooses_SN @ scores_TN.T).argmax(axis=1)
    gaps_SN = (scores_TN[winners_S] - scores_TN[default]) * (1 - chooses_SN)
    return np.asarray(np.divide(gaps_SN.sum(axis=0), (1 - chooses_SN).sum(axis=0)), dtype=np.float64)


def _scores(name: str, answers: Predictions) -> npt.NDArray[np.float64]:
    """(N,): each image's part in the metric."""
    if name == "accuracy":
        return np.asarray(answers.predicted == answers.labels_N, dtype=np.float64)
    return np.asarray(log_losses(answers.labels_N, answers.probabilities_NK), dtype=np.float64)


def gain_words(found: Difference, metric: Metric) -> str:
    """What its sign means, its interval in words, whether it shows anything, and on which images."""
    low, high = found.interval
    sign = f"{word}; " if (word := metric.sign_word(found.value)) else ""
    verdict = "" if found.is_shown else ", no gain shown"
    where = ", on images that did not choose the winner" if found.test == "nested hold-out" else ""
    return f"{sign}95% interval {low:+.3f} to {high:+.3f}, n = {found.images}{where}{verdict}"
