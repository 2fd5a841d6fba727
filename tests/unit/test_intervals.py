"""Intervals and paired tests against scipy, tables made by hand, and simulated models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, rankdata, wilcoxon

from da6401.errors import UndefinedMetricError
from da6401.metrics.intervals import interval_of, wilson
from da6401.metrics.paired import (
    corrected,
    difference,
    least_p,
    mcnemar,
    on_same_images,
    only_right,
    signed_rank,
)
from da6401.metrics.scores import score
from da6401.runs.predictions import Predictions

CLASSES = ("a", "b", "c")


def model(labels: np.ndarray, *, right: float, seed: int) -> Predictions:
    """Answers that are right with this probability, independently for each image."""
    rng = np.random.default_rng(seed)
    wrong = (labels + rng.integers(1, 3, len(labels))) % 3
    predicted = np.where(rng.random(len(labels)) < right, labels, wrong)
    probabilities = np.full((len(labels), 3), 0.1, dtype=np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.8
    return Predictions(CLASSES, tuple(f"{row}.jpg" for row in range(len(labels))), labels, probabilities)


LABELS = np.random.default_rng(7).choice(3, 300, p=[0.6, 0.3, 0.1])


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (1, 3), (302, 378), (999, 1000)])
def test_wilson_is_scipys(right: int, count: int) -> None:
    theirs = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_bootstrap_holds_the_true_value_about_as_often_as_it_says() -> None:
    """Of 40 samples at 95%, 32 or fewer come by chance once in 3,000 times."""
    covered = 0
    truth = np.random.default_rng(0).choice(3, 200_000, p=[0.5, 0.3, 0.2])
    population = model(truth, right=0.7, seed=0)
    expected = score("macro_f1", population.labels_N, population.probabilities_NK)
    for seed in range(40):
        labels = np.random.default_rng(seed + 1).choice(3, 150, p=[0.5, 0.3, 0.2])
        low, high = interval_of("macro_f1", model(labels, right=0.7, seed=seed + 100)) or (1, 0)
        covered += low <= expected <= high
    assert covered >= 33


def test_an_interval_of_a_metric_without_value_is_none() -> None:
    without = model(np.zeros(50, dtype=np.int64), right=0.5, seed=0)
    assert interval_of("macro_auroc", without) is None
    assert interval_of("top5", without) is None
    low, high = interval_of("accuracy", without) or (1, 0)
    assert low < score("accuracy", without.labels_N, without.probabilities_NK) < high


def test_mcnemar_counts_what_one_alone_has_right() -> None:
    one, other = model(LABELS, right=0.9, seed=1), model(LABELS, right=0.7, seed=2)
    alone, other_alone = only_right(one, other)
    agree = int(((one.predicted == LABELS) == (other.predicted == LABELS)).sum())
    assert alone + other_alone + agree == 300
    gap = difference("accuracy", one, other)
    assert gap.value == pytest.approx((alone - other_alone) / 300)
    assert gap.p == binomtest(alone, alone + other_alone).pvalue == mcnemar(alone, other_alone)
    assert gap.is_shown
    assert gap.interval[0] > 0
    assert mcnemar(0, 0) == 1.0


def test_equally_good_models_are_seldom_told_apart_and_unequal_ones_mostly() -> None:
    for name in ("accuracy", "macro_f1", "log_loss"):
        same = [difference(name, model(LABELS, right=0.8, seed=s), model(LABELS, right=0.8, seed=s + 50))
                for s in range(12)]  # fmt: skip
        assert sum(each.is_shown for each in same) <= 3, name
        better = [difference(name, model(LABELS, right=0.9, seed=s), model(LABELS, right=0.7, seed=s + 50))
                  for s in range(3)]  # fmt: skip
        assert all(each.is_shown for each in better), name
        assert all((each.value > 0) == (name != "log_loss") for each in better)


def test_a_model_against_itself_shows_nothing() -> None:
    one = model(LABELS, right=0.8, seed=1)
    for name in ("accuracy", "macro_f1"):
        gap = difference(name, one, one)
        assert (gap.value, gap.p, gap.is_shown) == (0.0, 1.0, False)


def test_only_the_same_images_are_compared_and_their_order_does_not_matter() -> None:
    one, other = model(LABELS, right=0.9, seed=1), model(LABELS, right=0.8, seed=2)
    turned = Predictions(CLASSES, other.names[::-1], other.labels_N[::-1], other.probabilities_NK[::-1])
    found = on_same_images(one, turned)
    assert found is not None
    assert found.names == one.names
    assert np.array_equal(found.probabilities_NK, other.probabilities_NK)
    renamed = Predictions(CLASSES, ("x", *other.names[1:]), other.labels_N, other.probabilities_NK)
    relabelled = Predictions(CLASSES, other.names, (other.labels_N + 1) % 3, other.probabilities_NK)
    classes = Predictions(("a", "b", "d"), other.names, other.labels_N, other.probabilities_NK)
    assert [on_same_images(one, each) for each in (renamed, relabelled, classes)] == [None] * 3


def test_holms_correction_by_hand() -> None:
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.5, 0.9]) == [1.0, 1.0]
    assert corrected([]) == []


def test_wilcoxon_is_scipys_and_says_what_few_pairs_can_show() -> None:
    gaps = [0.02, 0.01, 0.03, -0.005, 0.04, 0.06]
    assert signed_rank(gaps) == wilcoxon(gaps).pvalue
    assert signed_rank([0.0, 0.0]) == 1.0
    assert signed_rank([0.5, 0.5, 0.4, 0.6, 0.6, 0.3]) == least_p(6) == 0.03125  # equal sizes give no less
    tied = [0.1, -0.1, 0.2, 0.3, 0.3, 0.3, -0.2]
    signs = itertools.product((1, -1), repeat=len(tied))
    ranks = rankdata(np.abs(tied))
    sums = np.array([ranks @ np.array(each) for each in signs])
    assert signed_rank(tied) == (np.abs(sums) >= abs(ranks @ np.sign(tied)) - 1e-9).mean()
    assert signed_rank([0.01, 0.02, 0.03, 0.04, 0.05]) == least_p(5) == 0.0625
    assert least_p(6) < 0.05


def test_equal_gaps_of_shares_are_ties_whatever_their_last_bits() -> None:
    wins, others = [54, 51, 52, 51, 44, 44, 52, 44], [52, 50, 49, 50, 43, 43, 50, 45]
    counts = [float(one - other) for one, other in zip(wins, others, strict=True)]
    shares = [one / 60 - other / 60 for one, other in zip(wins, others, strict=True)]
    assert len({abs(gap) for gap in shares}) > len({abs(gap) for gap in counts})
    assert signed_rank(shares) == signed_rank(counts)


def test_without_enough_resamples_there_is_no_test() -> None:
    labels = np.arange(3)  # one image a class: nearly each resample lacks one
    one, other = model(labels, right=1.0, seed=1), model(labels, right=0.0, seed=2)
    with pytest.raises(UndefinedMetricError, match="resamples"):
        difference("macro_auroc", one, other)
