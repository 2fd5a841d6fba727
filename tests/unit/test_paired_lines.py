"""What `compare` says of runs on the same images, against scipy and counts made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from da6401.metrics.scores import scores_of
from da6401.report.paired_lines import paired_lines
from da6401.report.run_record import RunRecord
from da6401.runs.predictions import Predictions
from da6401.runs.run_folder import RunResult
from tests.answers import answers

LABELS = [0, 1, 2, 0] * 25  # 100 images


def run(*, metric: str = "accuracy", **splits: Predictions) -> RunRecord:
    """A run with these answers."""
    validation = splits.get("validation")
    reached = float((validation.predicted == validation.labels_N).mean()) if validation else None
    result = RunResult(
        status="completed", val_accuracy=reached, val_loss=0.5, best_epoch=1, epochs_run=1, test_accuracy=None,
        test_loss=None, parameters=1, macs=1, seconds=1.0, reason="",
        val_metrics=scores_of(validation).values if validation else {},
    )  # fmt: skip
    config: dict[str, Any] = {"trainer": {"metric": metric}}
    return RunRecord(folder=Path("run"), config=config, result=result, epochs=[], receipt={}, predictions=dict(splits))


def p_of(line: str) -> float:
    found = re.search(r"p = ([0-9.e-]+):", line)
    assert found is not None, line
    return float(found[1])


def test_a_pair_of_runs_by_hand() -> None:
    """A alone is right on 20 images, B on 2: McNemar's test is a coin thrown 22 times."""
    one, other = answers(LABELS, wrong=range(2)), answers(LABELS, wrong=range(2, 22))
    p = binomtest(20, 22).pvalue
    (line,) = paired_lines("AB", [run(validation=one), run(validation=other)])
    assert line.startswith("validation accuracy, A - B: +0.1800 (95% interval +0.09")
    assert line.endswith(f"n = 100), only A right on 20 and only B on 2; McNemar, p = {p:.3g}: A is better")
    (turned,) = paired_lines("AB", [run(validation=other), run(validation=one)])
    assert turned.startswith("validation accuracy, A - B: -0.1800")
    assert turned.endswith(f"only A right on 2 and only B on 20; McNemar, p = {p:.3g}: B is better")


@pytest.mark.parametrize(("alone", "other_alone", "is_shown"), [(5, 3, False), (8, 2, False), (10, 2, True)])
def test_no_difference_is_shown_where_the_test_shows_none(alone: int, other_alone: int, is_shown: bool) -> None:
    one = answers(LABELS, wrong=range(50, 50 + other_alone))
    other = answers(LABELS, wrong=range(alone))
    (line,) = paired_lines("AB", [run(validation=one), run(validation=other)])
    assert (binomtest(alone, alone + other_alone).pvalue < 0.05) == is_shown
    assert line.endswith("A is better" if is_shown else "no difference shown")


def test_p_values_are_corrected_for_all_the_lines() -> None:
    """10 to 2 is shown of one pair (p = 0.039), and not among three (Holm: 0.116)."""
    one, other = answers(LABELS, wrong=range(50, 52)), answers(LABELS, wrong=range(10))
    p = binomtest(10, 12).pvalue
    *lines, last = paired_lines("ABC", [run(validation=each) for each in (one, other, other)])
    assert [re.findall(r", ([ABC]) - ([ABC]):", line) for line in lines] == [[("A", "B")], [("A", "C")], [("B", "C")]]
    assert [p_of(line) for line in lines] == [pytest.approx(3 * p, rel=1e-2)] * 2 + [1.0]
    assert all(line.endswith("no difference shown") for line in lines)
    assert last == "(p-values are corrected for 3 tests by Holm's method; a difference is shown below 0.05)"


def test_both_splits_and_the_chosen_metric_each_have_a_line() -> None:
    """Of a loss the lower one is better, and the sign is that of the difference."""
    sure, unsure = answers(LABELS, sure=0.9), answers(LABELS, sure=0.5)
    runs = [run(metric="log_loss", validation=each, test=each) for each in (sure, unsure)]
    *lines, last = paired_lines("AB", runs)
    assert [line.partition(", A - B: ")[0] for line in lines] == [
        "validation accuracy", "validation log loss", "test accuracy", "test log loss",
    ]  # fmt: skip
    assert [line.rpartition(": ")[2] for line in lines] == ["no difference shown", "A is better"] * 2
    assert ", A - B: -0.5878 (" in lines[1]  # ln(0.5 / 0.9)
    assert "paired bootstrap" in lines[1]
    assert "only A right" not in lines[1]
    assert "4 tests" in last


def test_a_metric_without_value_has_no_line() -> None:
    runs = [run(metric="top5", validation=answers(LABELS, wrong=range(count))) for count in (3, 9)]
    (line,) = paired_lines("AB", runs)  # of three classes top5 is undefined
    assert line.startswith("validation accuracy")


def test_other_images_are_not_compared() -> None:
    here, there = answers(LABELS), answers(LABELS, prefix="other")
    runs = [run(validation=here, test=here), run(validation=there, test=here)]
    lines = paired_lines("AB", runs)
    assert [line.partition(",")[0] for line in lines] == ["test accuracy", "validation: A and B were not asked about "
                                                          "the same images: no paired test"]  # fmt: skip
    assert paired_lines("AB", [run(), run(validation=here)]) == []  # an unfinished run has no answers


def test_of_many_runs_each_is_compared_with_the_best() -> None:
    runs = [run(validation=answers(LABELS, wrong=range(count))) for count in (9, 30, 4, 12, 7)]
    *lines, last = paired_lines("ABCDE", runs)
    assert [re.findall(r", ([A-E]) - ([A-E]):", line)[0] for line in lines] == [("C", other) for other in "ABDE"]
    assert "4 tests" in last


def test_the_best_of_many_is_that_of_the_metric_which_all_have_chosen() -> None:
    """Run B errs twice and is sure; A is always right and unsure. An unfinished run is nobody's best."""
    unsure, sure = answers(LABELS, sure=0.4), answers(LABELS, wrong=range(2), sure=0.9)
    for metric, best in (("log_loss", "B"), ("accuracy", "A")):
        runs = [run(metric=metric, validation=each) for each in (unsure, sure, unsure, unsure)]
        lines = paired_lines("ABCDE", [*runs, run(metric=metric)])
        firsts = {re.findall(r"([A-E]) - [A-E]:", line)[0] for line in lines[:-1]}
        assert firsts == {best}
    mixed = [run(metric=each, validation=unsure) for each in ("accuracy", "log_loss", "accuracy")]
    lines = paired_lines("ABCDE", [*mixed, run(validation=sure), run(validation=sure)])
    assert {re.findall(r"([A-E]) - [A-E]:", line)[0] for line in lines[:-1]} == {"A"}
