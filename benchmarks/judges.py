"""python -m benchmarks.judges: how well what is cheap ranks complete trainings, on the table of benchmarks.curves.

Each judge is a number that is known of a configuration after a part of the cost of its full training. It is compared
with the accuracy after that full training, on the validation and test images together. The page is
benchmarks/judges.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.curves import FIRST, FULL, IMAGES, MIDDLE, RUNS, SIDE, read_table, unpack

PAGE = Path(__file__).with_suffix(".md")
DRAWS = 1000
AT_COST = 4.0  # full trainings that are spent on judging, for the comparison at equal cost
LENGTH = RUNS[FULL].epochs

Numbers = npt.NDArray[np.float64]  # (C,): one for each configuration


@dataclass(frozen=True)
class Judged:
    """What a judge is worth on a data set, in points of accuracy where it is no correlation."""

    count: int  # configurations
    spearman: float
    spearman_sd: float  # over bootstrap samples of the configurations
    regret: float  # of the configuration that it puts first
    regret_sd: float
    at_cost: float  # expected regret, against the best of all, of its choice among as many as AT_COST pays for


def final_of(full: Mapping[str, Any]) -> float:
    """The accuracy of a full training on the validation and test images together."""
    validated = len(unpack(full["losses"]))
    right = full["accuracy"][-1] * validated + full["test"] * full["tests"]
    return float(right / (validated + full["tests"]))


def scores(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Of one configuration: for each judge its cost in full trainings, and its score, higher is better.

    Args:
        runs: the configuration's lines of the table, by their run.
    """
    full, found = runs[FULL], dict[str, tuple[float, float]]()
    for epoch in MIDDLE:
        share = f"{epoch} of {LENGTH} epochs"
        cost = epoch / LENGTH
        found[f"accuracy after {share}"] = cost, full["accuracy"][epoch - 1]
        found[f"loss after {share}"] = cost, -full["loss"][epoch - 1]
        accuracy, loss = full["averaged"][str(epoch)]
        found[f"averaged weights after {share}, accuracy"] = cost, accuracy
        found[f"averaged weights after {share}, loss"] = cost, -loss
    for run, kind in RUNS.items():
        if run in runs and run != FULL:
            cost = kind.epochs * kind.images * kind.side**2 / (LENGTH * SIDE**2)
            words = f"{kind.epochs} epochs" if run in FIRST else run
            found[f"complete training, {words}, accuracy"] = cost, runs[run]["accuracy"][-1]
            found[f"complete training, {words}, loss"] = cost, -runs[run]["loss"][-1]
    found["the full training, validation accuracy"] = 1.0, full["accuracy"][-1]
    found["the full training, validation loss"] = 1.0, -full["loss"][-1]
    return found


def judged(score: Numbers, final: Numbers, *, cost: float) -> Judged:
    """Compare a judge's scores with the final accuracies, both higher is better.

    Args:
        cost: of one score, in full trainings.
    """
    rng = np.random.default_rng(0)
    count = len(final)
    rows = rng.integers(0, count, (DRAWS, count))
    correlations = [spearmanr(score[row], final[row]).statistic for row in rows if np.ptp(score[row]) > 0]
    regrets = [_regret(score[row], final[row]) for row in rows]
    afforded = max(1, min(count, round(AT_COST / cost)))
    drawn = [rng.permutation(count)[:afforded] for _ in range(DRAWS)]
    chosen = [final.max() - final[row][score[row].argmax()] for row in drawn]
    return Judged(
        count, float(spearmanr(score, final).statistic), statistics.stdev(correlations),
        100 * _regret(score, final), 100 * statistics.stdev(regrets), 100 * statistics.fmean(chosen),
    )  # fmt: skip


def _regret(score: Numbers, final: Numbers) -> float:
    return float(final.max() - final[score.argmax()])


def rows(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """The page's table: for each judge its cost, and for each data set what it is worth."""
    names = sorted({line["data"] for line in table})
    results: dict[str, dict[str, Judged]] = {}
    costs: dict[str, float] = {}
    for name in names:
        by_config: dict[int, dict[str, Mapping[str, Any]]] = {}
        for line in table:
            if line["data"] == name:
                by_config.setdefault(line["config"], {})[line["run"]] = line
        complete = [runs for runs in by_config.values() if all(run in runs for run in FIRST)]
        every = [scores(runs) for runs in complete]
        final = np.array([final_of(runs[FULL]) for runs in complete])
        for judge in dict.fromkeys(judge for each in every for judge in each):
            have = np.array([judge in each for each in every])
            costs[judge] = next(each[judge][0] for each in every if judge in each)
            score = np.array([each[judge][1] for each in every if judge in each])
            if len(score) > 2 and np.ptp(score) > 0:
                results.setdefault(judge, {})[name] = judged(score, final[have], cost=costs[judge])
    lines = [f"| judge | cost | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for judge in sorted(results, key=lambda judge: costs[judge]):
        cells = [_cell(results[judge].get(name)) for name in names]
        lines.append(f"| {judge} | {costs[judge]:.2f} | {' | '.join(cells)} |")
    return lines


def _cell(found: Judged | None) -> str:
    if found is None:
        return ""
    return (
        f"{found.spearman:.2f} ± {found.spearman_sd:.2f}; {found.regret:.1f} ± {found.regret_sd:.1f}; "
        f"{found.at_cost:.1f} (n={found.count})"
    )


def main() -> None:
    """Write the page."""
    table = read_table()
    PAGE.write_text(
        "# What ranks complete trainings\n\nWritten by `python -m benchmarks.judges` from the table of `python -m "
        f"benchmarks.curves`: configurations of `sweep=tune_a`, {IMAGES} training images of each data set, {SIDE} px, "
        f"{LENGTH} epochs, bf16 on one thread of an x86 CPU, n=1 seed. Each cell: Spearman correlation with the "
        "accuracy after the full training, on the validation and test images together, ± its bootstrap sd over the "
        "configurations; how many points the judge's first choice loses to the best, ± bootstrap sd; how many points "
        f"it loses on average at equal cost, where {AT_COST:g} full trainings pay for its scores of configurations "
        "drawn at random; n configurations. Cost is the share of a full training's arithmetic. Averaged weights: a "
        "moving average over about two epochs. In the last two rows the validation images are also among those that "
        "judge.\n\n" + "\n".join(rows(table)) + "\n"
    )  # fmt: skip
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
