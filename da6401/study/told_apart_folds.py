"""Which trials of a sweep with sweep.folds cannot be told from its winner: Wilcoxon's test over folds and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from da6401.errors import RunError
from da6401.metrics.paired import LEVEL, corrected, least_p, signed_rank
from da6401.runs.run_folder import read_result
from da6401.runs.trial_folders import fold_folders
from da6401.study.objective import AnyTrial, Candidate, Objective
from da6401.study.told_apart import MARK, ToldApart

MOST_FOLDS = 100

Key = tuple[object, int]  # the seed, where that is searched, and the fold


def fold_values(folder: Path, objective: Objective) -> list[float]:
    """The objective of each fold of a trial; [] of a trial that is one training, or of several metrics."""
    values = []
    for run in fold_folders(folder):
        try:
            found = objective.values(read_result(run), latency_ms=lambda: None)
        except RunError:  # unfinished
            return []
        if found is None or len(found) != 1:
            return []
        values.append(found[0])
    return values


def told_apart_over_folds(
    candidates: Sequence[Candidate[AnyTrial]], folders: Mapping[int, Path], winner: int | None, objective: Objective
) -> ToldApart:
    """Compare each completed configuration with the winner.

    Args:
        candidates: the completed configurations.
        folders: the run folder of each of their trials.
        winner: the trial that stands for the winner; None: there is none.
    """
    values = {number: found for number, folder in folders.items() if (found := fold_values(folder, objective))}
    if not values:
        return ToldApart()
    by_key = [_by_key(each, values) for each in candidates]
    place = next((index for index, each in enumerate(candidates) if each.trial.number == winner), None)
    if place is None:
        return ToldApart(folds=values)
    best = by_key[place]
    gaps = {
        index: [best[key] - found[key] for key in best if key in found]
        for index, found in enumerate(by_key)
        if index != place
    }
    tested = {index: each for index, each in gaps.items() if each}
    p_values = dict(zip(tested, corrected([signed_rank(each) for each in tested.values()]), strict=True))
    p = {trial.number: value for index, value in p_values.items() for trial in candidates[index].trials}
    return ToldApart(
        same=frozenset(number for number, value in p.items() if value >= LEVEL), tested=len(tested), folds=values, p=p,
        said=_said(p_values, max(map(len, tested.values()), default=0), len(next(iter(values.values())))),
    )  # fmt: skip


def folds_json(told: ToldApart) -> dict[str, Any]:
    """For sweep.json: the folds of each completed trial, and the p-value against the winner."""
    return {
        "test": "Wilcoxon's signed-rank test against the winner, corrected (Holm)",
        "trials": [
            {"trial": number, "values": values, "mean": statistics.fmean(values),
             "deviation": statistics.stdev(values) if len(values) > 1 else 0.0, "p": told.p.get(number)}
            for number, values in sorted(told.folds.items())
        ],
    }  # fmt: skip


def _by_key(candidate: Candidate[AnyTrial], values: Mapping[int, Sequence[float]]) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for trial in candidate.trials:
        seed = next((value for name, value in trial.params.items() if name == "seed"), None)
        found |= {(seed, fold): value for fold, value in enumerate(values.get(trial.number, ()), start=1)}
    return found


def _said(p_values: Mapping[int, float], pairs: int, folds: int) -> str:
    """What the marks mean, and in one line where so few pairs cannot show anything."""
    tests = len(p_values)
    if not tests:
        return ""
    same = sum(value >= LEVEL for value in p_values.values())
    over = f"{folds} folds" if pairs <= folds else f"{pairs} pairs of fold and seed"
    text = (
        f"{MARK} cannot be told from the winner over {over}: {same} of {tests} other configurations (Wilcoxon's "
        f"signed-rank test, corrected for {tests}, p >= {LEVEL})"
    )
    least = min(1.0, tests * least_p(pairs))
    if least < LEVEL:
        return text
    seeds = max(1, pairs // folds)
    enough = next((k for k in range(folds, MOST_FOLDS) if tests * least_p(k * seeds) < LEVEL), MOST_FOLDS)
    return (
        f"{text}\nthe least p that {over} can give is {least:.3f}: no difference can show; sweep.folds={enough} could"
    )
