"""A sweep's gain over its default configuration, on images that did not choose the winner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from da6401.config.metrics import Metric
from da6401.metrics.scores import accuracy, score
from da6401.runs.predictions import Predictions
from da6401.study.gain import gain, gain_words, longest

CLASSES, IMAGES = 10, 400
ACCURACY, LOSS = Metric(0, "val_accuracy", maximise=True), Metric(0, "val_log_loss", maximise=False)


def drawn(rng: np.random.Generator, rates: list[float]) -> dict[int, Predictions]:
    """Trials whose networks are right on each image with these probabilities, independently."""
    labels_N = np.arange(IMAGES) % CLASSES
    names = tuple(f"{place}.png" for place in range(IMAGES))
    found = {}
    for number, rate in enumerate(rates):
        answered_N = np.where(rng.random(IMAGES) < rate, labels_N, (labels_N + 1) % CLASSES)
        probabilities_NK = np.full((IMAGES, CLASSES), 0.01, dtype=np.float32)
        probabilities_NK[np.arange(IMAGES), answered_N] = 0.91
        found[number] = Predictions(tuple("abcdefghij"), names, labels_N, probabilities_NK)
    return found


def best_of(answers: dict[int, Predictions]) -> int:
    return max(answers, key=lambda number: accuracy(answers[number].labels_N, answers[number].probabilities_NK))


def test_thirty_equal_trials_gain_nothing_though_the_best_of_them_looks_better() -> None:
    rng = np.random.default_rng(0)
    plain, nested, covered, shown = [], [], 0, 0
    for _ in range(60):
        answers = drawn(rng, [0.8] * 30)
        winner = best_of(answers)
        values = [accuracy(answers[each].labels_N, answers[each].probabilities_NK) for each in (winner, 0)]
        plain.append(values[0] - values[1])
        found = gain("accuracy", answers, winner, 0)
        if found is None:  # the default itself is the best
            continue
        nested.append(found.value)
        covered += found.interval[0] <= 0 <= found.interval[1]
        shown += found.is_shown and found.value > 0
    assert np.mean(plain) > 0.03  # what the winner's own images say
    assert abs(np.mean(nested)) < 0.01
    assert covered >= 0.85 * len(nested)
    assert shown <= 0.1 * len(nested)


def test_a_real_gain_is_found_and_not_overstated() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(30):
        answers = drawn(rng, [0.7, *[0.72] * 10, 0.8])
        if (one := gain("accuracy", answers, best_of(answers), 0)) is not None:
            found.append(one)
    assert np.mean([each.value for each in found]) == pytest.approx(0.095, abs=0.015)
    assert sum(each.is_shown for each in found) >= 0.8 * len(found)
    assert "on images that did not choose the winner" in gain_words(found[0], ACCURACY)


def test_two_trials_that_every_half_ranks_alike_have_the_plain_difference() -> None:
    answers = drawn(np.random.default_rng(2), [0.2, 0.9])
    for name in ("accuracy", "log_loss"):
        values = [score(name, each.labels_N, each.probabilities_NK) for each in answers.values()]
        found = gain(name, answers, 1, 0)
        assert found is not None
        assert found.value == pytest.approx(values[1] - values[0], abs=1e-6)
        assert found.is_shown


def test_the_log_loss_of_a_gain_has_the_floor_of_the_metric() -> None:
    answers = drawn(np.random.default_rng(2), [0.2, 0.9])
    labels_N, probabilities_NK = answers[0].labels_N, answers[0].probabilities_NK.copy()
    wrong_N = probabilities_NK.argmax(1) != labels_N
    probabilities_NK[np.flatnonzero(wrong_N), labels_N[wrong_N]] = 1e-12
    answers[0] = Predictions(answers[0].class_names, answers[0].names, labels_N, probabilities_NK)
    values = [score("log_loss", each.labels_N, each.probabilities_NK) for each in answers.values()]
    found = gain("log_loss", answers, 1, 0)
    assert found is not None
    assert found.value == pytest.approx(values[1] - values[0], abs=1e-6)


def test_of_a_loss_the_words_say_whether_the_sign_is_better() -> None:
    answers = drawn(np.random.default_rng(2), [0.2, 0.9])
    better = gain("log_loss", answers, 1, 0)
    more = gain("accuracy", answers, 1, 0)
    assert better is not None
    assert more is not None
    assert (better.value < 0, gain_words(better, LOSS).startswith("better; 95% interval -")) == (True, True)
    assert gain_words(replace(better, value=0.1), LOSS).startswith("worse; 95% interval")
    assert gain_words(more, ACCURACY).startswith("95% interval +")


def test_without_something_to_compare_there_is_no_gain() -> None:
    answers = drawn(np.random.default_rng(3), [0.5, 0.9])
    assert gain("accuracy", answers, 1, None) is None
    assert gain("accuracy", answers, 1, 7) is None
    assert gain("accuracy", answers, 1, 1) is None
    other = Predictions(answers[0].class_names, tuple(f"x{name}" for name in answers[0].names), answers[0].labels_N,
                        answers[0].probabilities_NK)  # fmt: skip
    assert gain("accuracy", {0: other, 1: answers[1]}, 1, 0) is None
    macro = gain("macro_f1", answers, 1, 0)
    assert macro is not None
    assert macro.test == "paired bootstrap"
    assert "did not choose" not in gain_words(macro, ACCURACY)


@dataclass
class _Trial:
    number: int
    params: dict[str, object] = field(default_factory=dict)


def test_a_race_trains_its_default_for_longer_and_longer() -> None:
    trials = [_Trial(0, {"a": 1}), _Trial(1, {"a": 2}), _Trial(2, {"a": 1}), _Trial(3, {"a": 2})]
    assert longest(trials[0], trials).number == 2
    assert longest(trials[0], []).number == 0
