"""Which trials a sweep's table marks as not told from the winner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest

from da6401.config.metrics import Metric
from da6401.metrics.intervals import interval_of, wilson
from da6401.metrics.scores import log_loss
from da6401.registry import METRICS
from da6401.runs.predictions import Predictions, write_predictions
from da6401.runs.run_folder import VALIDATION_CSV, RunResult, write_result
from da6401.study.objective import Objective
from da6401.study.told_apart import ToldApart, score_name, told_apart
from tests.answers import answers

LABELS = [0, 1, 2, 0] * 25  # 100 images
RESULT = RunResult(
    status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=1, test_accuracy=None, test_loss=None,
    parameters=1, macs=1, seconds=1.0, reason="",
)  # fmt: skip


def objective(*names: str) -> Objective:
    return Objective(tuple(Metric(index, name, METRICS[name].maximise) for index, name in enumerate(names)))


def folders(place: Path, trials: Mapping[int, Predictions | str]) -> dict[int, Path]:
    """Trials' run folders with these answers, or with this text in their place."""
    found = {number: place / f"trial-{number}" for number in trials}
    for number, content in trials.items():
        found[number].mkdir()
        if isinstance(content, Predictions):
            write_predictions(found[number] / VALIDATION_CSV, content)
        elif content:
            (found[number] / VALIDATION_CSV).write_text(content)
    return found


def test_marks_and_intervals_by_hand(tmp_path: Path) -> None:
    """Trial 3 wins; trial 0 errs on 2 other images, trial 7 on 30."""
    trials = {3: answers(LABELS), 0: answers(LABELS, wrong=range(2)), 7: answers(LABELS, wrong=range(30))}
    told = told_apart(folders(tmp_path, trials), 3, objective("val_accuracy"))
    assert told.intervals == {3: wilson(1.0, 100), 0: wilson(0.98, 100), 7: wilson(0.70, 100)}
    assert (set(told.same), told.tested) == ({0}, 2)
    assert told.sentence == (
        "~ cannot be told from the winner on these validation images: 1 of 2 other trials "
        "(paired tests, corrected for 2, p >= 0.05)"
    )


def test_what_one_test_shows_is_not_shown_among_many(tmp_path: Path) -> None:
    """7 to 0 has p = 0.016: shown among three tests, not among four, where Holm's 0.0625 is above 0.05."""
    assert binomtest(7, 7).pvalue == pytest.approx(0.015625)
    alone = {number: answers(LABELS, wrong=range(7)) for number in (1, 2, 3)}
    for number, is_same in ((3, False), (4, True)):
        place = tmp_path / str(number)
        place.mkdir()
        trials = {0: answers(LABELS), **alone, **({4: alone[1]} if number == 4 else {})}
        told = told_apart(folders(place, trials), 0, objective("val_accuracy"))
        assert told.tested == number
        assert told.same == (set(range(1, 5)) if is_same else set())


def test_a_loss_is_the_log_loss_of_the_answers(tmp_path: Path) -> None:
    sure, unsure = answers(LABELS, sure=0.9), answers(LABELS, sure=0.5)
    found = folders(tmp_path, {0: sure, 1: sure, 2: unsure})
    told = told_apart(found, 0, objective("val_loss"))
    assert told.same == {1}
    assert told.intervals[2] == pytest.approx(interval_of("log_loss", unsure))


def test_a_loss_that_the_answers_do_not_have_is_left_out(tmp_path: Path) -> None:
    """A network that is sure of a wrong class has a loss of hundreds; its answers, whose floor is 2.2e-16, of 36."""
    plain, saturated = answers(LABELS), answers(LABELS, wrong=range(50), sure=1.0)
    losses = {number: log_loss(each.labels_N, each.probabilities_NK) for number, each in enumerate([plain] * 2)}
    found = folders(tmp_path, {0: plain, 1: plain, 2: saturated})
    for number, loss in {**losses, 2: 240.0}.items():
        write_result(found[number], replace(RESULT, val_loss=loss))
    told = told_apart(found, 0, objective("val_loss"), default=1)
    assert (set(told.intervals), set(told.same), told.tested, told.left_out) == ({0, 1}, {1}, 1, (2,))
    assert told.gain is None
    assert told.sentence.splitlines()[1] == (
        "no interval and no test for trial 2, and no gain over the default: val_loss differs there from the log "
        "loss of validation.csv, in which a probability counts as at least 2.2e-16"
    )
    assert told_apart(found, 2, objective("val_loss")).left_out == (2,)
    assert told_apart(found, 0, objective("val_log_loss")).left_out == ()


def test_only_what_was_asked_about_the_same_images_is_tested(tmp_path: Path) -> None:
    trials: dict[int, Predictions | str] = {
        0: answers(LABELS), 1: answers(LABELS, prefix="other"), 2: "", 3: "no predictions", 4: answers(LABELS),
    }  # fmt: skip
    told = told_apart(folders(tmp_path, trials), 0, objective("val_accuracy"))
    assert set(told.intervals) == {0, 1, 4}  # trial 2 has no answers, those of trial 3 are damaged
    assert (set(told.same), told.tested) == ({4}, 1)


@pytest.mark.parametrize("winner", [None, 2])
def test_without_a_winner_or_its_answers_there_are_intervals_alone(tmp_path: Path, winner: int | None) -> None:
    found = folders(tmp_path, {0: answers(LABELS), 1: answers(LABELS), 2: ""})
    told = told_apart(found, winner, objective("val_accuracy"))
    assert set(told.intervals) == {0, 1}
    assert (told.same, told.tested, told.sentence) == (frozenset(), 0, "")


@pytest.mark.parametrize("names", [("parameters",), ("latency_ms",), ("val_accuracy", "parameters")])
def test_what_is_no_single_metric_of_answers_is_not_tested(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = folders(tmp_path, {0: answers(LABELS), 1: answers(LABELS)})
    assert told_apart(found, 0, objective(*names)) == ToldApart()
    assert score_name(objective(*names).alone) is None


def test_an_undefined_metric_is_not_tested(tmp_path: Path) -> None:
    found = folders(tmp_path, {0: answers(LABELS), 1: answers(LABELS)})
    assert told_apart(found, 0, objective("val_top5")) == ToldApart()  # of three classes


def test_metrics_of_answers_have_their_own_names() -> None:
    names = {name: score_name(objective(name).alone) for name in ("val_accuracy", "val_loss", "val_macro_f1")}
    assert names == {"val_accuracy": "accuracy", "val_loss": "log_loss", "val_macro_f1": "macro_f1"}
