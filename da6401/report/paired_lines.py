"""Runs compared on the same images: the difference of each pair, its interval, and whether it is shown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from da6401.config.metrics import chosen_metric, word
from da6401.errors import RunError, UndefinedMetricError
from da6401.metrics.paired import LEVEL, Difference, corrected, difference, on_same_images, only_right, over_folds
from da6401.registry import OF_VALIDATION, SCORES
from da6401.report.run_record import RunRecord
from da6401.runs.predictions import Predictions, read_predictions
from da6401.runs.run_folder import VALIDATION_CSV, read_result
from da6401.study.objective import Objective, number_of

ALL_PAIRS = 4  # runs; of more each is compared with the best
SPLITS = ("validation", "test")

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Compared:
    """A pair of runs by one metric on one split."""

    pair: Pair
    split: str
    metric: str
    answers: tuple[Predictions, Predictions]
    difference: Difference
    folds: int = 0  # over which it is a mean; 0 where it is one of these answers


def paired_lines(labels: Sequence[str], runs: Sequence[RunRecord]) -> list[str]:
    """A line for each pair of runs, split and metric; p-values are corrected for the number of lines (Holm)."""
    pairs = _pairs(runs)
    found = list(_compared(runs, pairs))
    lines = []
    for each, p in zip(found, corrected([each.difference.p for each in found]), strict=True):
        lines.append(_line(labels, dataclasses.replace(each, difference=dataclasses.replace(each.difference, p=p))))
    for split in SPLITS:
        there = [pair for pair in pairs if all(split in runs[index].predictions for index in pair)]
        told = {each.pair for each in found if each.split == split}
        apart = [f"{labels[one]} and {labels[other]}" for one, other in there if (one, other) not in told]
        if apart:
            lines.append(f"{split}: {', '.join(apart)} were not asked about the same images: no paired test")
    if len(found) > 1:
        lines.append(f"(p-values are corrected for {len(found)} tests by Holm's method; a difference is shown below "
                     f"{LEVEL})")  # fmt: skip
    return lines


def _pairs(runs: Sequence[RunRecord]) -> list[Pair]:
    if len(runs) <= ALL_PAIRS:
        return list(itertools.combinations(range(len(runs)), 2))
    chosen = {name for run in runs for name in _chosen(run)}
    metric = chosen_metric(chosen.pop() if len(chosen) == 1 else "accuracy")
    reached = {
        index: value
        for index, run in enumerate(runs)
        if run.result is not None and (value := number_of(run.result, metric.name)) is not None
    }
    best = next(iter(Objective((metric,)).order(reached, lambda index: [reached[index]])), 0)
    return [(best, index) for index in range(len(runs)) if index != best]


def _compared(runs: Sequence[RunRecord], pairs: Sequence[Pair]) -> Iterator[Compared]:
    for split in SPLITS:
        for one, other in pairs:
            answers = [runs[index].predictions.get(split) for index in (one, other)]
            if answers[0] is None or answers[1] is None:
                continue
            same = on_same_images(answers[0], answers[1])
            if same is None:
                continue
            for metric in dict.fromkeys(["accuracy", *_chosen(runs[one]), *_chosen(runs[other])]):
                gaps = _gaps_of_folds(runs[one], runs[other], metric) if split == "validation" else []
                if gaps:
                    found = over_folds(gaps, len(same.labels_N))
                    yield Compared((one, other), split, metric, (answers[0], same), found, len(gaps))
                    continue
                try:
                    gap = difference(metric, answers[0], same)
                except UndefinedMetricError:
                    continue
                yield Compared((one, other), split, metric, (answers[0], same), gap)


def _gaps_of_folds(one: RunRecord, other: RunRecord, metric: str) -> list[float]:
    """By fold, a metric of one trial less that of the other; [] unless both are trials of the same folds."""
    if len(one.folds) < 2 or len(one.folds) != len(other.folds):
        return []
    gaps = []
    for folders in zip(one.folds, other.folds, strict=True):
        try:
            answers = [read_predictions(folder / VALIDATION_CSV) for folder in folders]
            values = [number_of(read_result(folder), OF_VALIDATION + metric) for folder in folders]
        except RunError:  # unfinished
            return []
        if on_same_images(*answers) is None or values[0] is None or values[1] is None:
            return []
        gaps.append(values[0] - values[1])
    return gaps


def _chosen(run: RunRecord) -> list[str]:
    name = (run.config.get("trainer") or {}).get("metric")
    return [name] if name in set(SCORES) else []


def _line(labels: Sequence[str], each: Compared) -> str:
    one, other = (labels[index] for index in each.pair)
    gap, (low, high) = each.difference, each.difference.interval
    counts, over = "", f"n = {gap.images}"
    if each.folds:
        over = f"mean over {each.folds} folds, n = {gap.images}"
    elif each.metric == "accuracy":
        alone, other_alone = only_right(*each.answers)
        counts = f", only {one} right on {alone} and only {other} on {other_alone}"
    metric = chosen_metric(each.metric)
    better = one if metric.better(gap.value, 0.0) else other
    verdict = f"{better} is better" if gap.is_shown else "no difference shown"
    words = f"{each.split} {word(metric.name).removeprefix('validation ')}"
    return (
        f"{words}, {one} - {other}: {gap.value:+.4f} (95% interval "
        f"{low:+.4f} to {high:+.4f}, {over}){counts}; {gap.test}, p = {gap.p:.3g}: {verdict}"
    )
