"""What the trials cost, and how well their early epochs told the end."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from scipy.stats import spearmanr

from da6401.config.metrics import Metric, word
from da6401.report.blocks import Block, table
from da6401.report.charts import Chart, Focus, axis, chart, number
from da6401.report.figures import curve_metric
from da6401.report.sweep_record import SweepRecord, TrialRecord
from da6401.runs.run_folder import RunResult

MOST_EPOCHS, MOST_TRIALS = 20, 200  # columns and rows of the table of epochs
SURE = 0.9  # a rank correlation from which on an epoch tells the end
WIDE = 10  # times the smallest: from here on an axis is logarithmic

COSTS: dict[str, tuple[str, Callable[[RunResult], float]]] = {  # by the metric that it is
    "seconds": ("seconds of the run", lambda result: result.seconds),
    "parameters": ("parameters", lambda result: result.parameters),
    "macs": ("multiply-accumulates", lambda result: result.macs),
}


def cost_against_value(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """The objective against what it cost, with the line of the best value for at most so much; one chart a cost."""
    drawn = []
    for name, (words, of) in COSTS.items():
        found = [
            (of(trial.run.result), value, trial)
            for trial in sweep.complete
            if trial.run.result is not None and (value := trial.reached(metric)) is not None
        ]
        if len({cost for cost, _, _ in found}) < 3 or name in sweep.objective.names:
            continue
        seen = Focus.on([value for _, value, _ in found], maximise=metric.maximise)
        front: list[tuple[float, float]] = []
        by_value = sweep.objective.by(metric).order(found, lambda each: [each[1]])
        for cost, value, _ in sorted(by_value, key=operator.itemgetter(0)):
            if not front or metric.better(value, front[-1][1]):
                front.append((cost, value))
        most = max(cost for cost, _, _ in found)
        traces = [
            {
                "type": "scatter", "mode": "markers", "name": "a trial", "x": [cost for cost, _, _ in found],
                "y": [seen.place(value) for _, value, _ in found], "customdata": [t.number for _, _, t in found],
                "text": [number(value) for _, value, _ in found],
                "marker": {"size": 7, "color": "@accent", "opacity": 0.6,
                           "symbol": ["circle" if seen.holds(value) else seen.symbol for _, value, _ in found]},
                "hovertemplate": "trial %{customdata}: %{x:,.4~g}, %{text}<extra></extra>",
            },
            {
                "type": "scatter", "mode": "lines", "name": "best for at most this",
                "x": [*(c for c, _ in front), most],
                "y": [seen.place(v) for v in (*(v for _, v in front), front[-1][1])], "hoverinfo": "skip",
                "line": {"shape": "hv", "color": "@strong", "width": 2},
            },
        ]  # fmt: skip
        log = min(cost for cost, _, _ in found) > 0 and most >= WIDE * min(cost for cost, _, _ in found)
        drawn.append(
            chart(
                words.capitalize(), f"{word(metric.name).capitalize()} against {words}, n = {len(found)} completed "
                f"trials; the line is the best for at most so many.{seen.sentence(value for _, value, _ in found)}",
                traces, {"xaxis": axis(words, nticks=5, **({"type": "log"} if log else {})),
                         "yaxis": {"nticks": 6, **seen.axis}, "height": 300},
                columns=["trial", words, word(metric.name)], rows=[[t.number, cost, v] for cost, v, t in found],
            )
        )  # fmt: skip
    return drawn


def budget_correlation(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """Spearman's rank correlation of each epoch's value with the trials' final objective."""
    if not metric.by_epoch:
        return []
    by_epoch: dict[float, list[tuple[float, float]]] = {}
    for trial in sweep.complete:
        end, last = trial.reached(metric), max((line["epoch"] for line in trial.run.epochs), default=0.0)
        for line in trial.run.epochs:
            if end is not None and metric.name in line and line["epoch"] < last:
                by_epoch.setdefault(line["epoch"], []).append((line[metric.name], end))
    rows: list[list[Any]] = []
    for epoch, pairs in sorted(by_epoch.items()):
        early, ends = zip(*pairs, strict=True)
        if len(pairs) >= 5 and len(set(early)) > 1 and len(set(ends)) > 1:
            rho = float(spearmanr(early, ends).statistic)
            rows.append([epoch, rho, len(pairs)])
    if len(rows) < 2:
        return []
    sure = next((row[0] for at, row in enumerate(rows) if all(later[1] >= SURE for later in rows[at:])), None)
    said = "" if sure is None else f" From epoch {sure:.0f} on it is {SURE} or more."
    lowest = min(-0.05, *(row[1] for row in rows))
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": [row[0] for row in rows], "y": [row[1] for row in rows],
        "line": {"color": "@accent", "width": 2}, "marker": {"size": 6}, "text": [f"n = {row[2]}" for row in rows],
        "hovertemplate": "epoch %{x}: %{y:.3f}, %{text}<extra></extra>",
    }  # fmt: skip
    steps = {"dtick": 1} if len(rows) <= 10 else {}
    return [
        chart(
            "Early epochs",
            f"Rank correlation of the {word(metric.name)} after an epoch with that at the end, over "
            f"{rows[0][2]} completed trials. A pruner that stops trials early needs it to be high.{said}",
            [trace], {"xaxis": axis("epoch", **steps), "yaxis": axis("rank correlation", range=[lowest, 1.05]),
                      "height": 300},
            columns=["epoch", "rank correlation", "trials"], rows=rows,
        )
    ]  # fmt: skip


def epoch_table(sweep: SweepRecord, metric: Metric) -> list[Block]:
    """The value of each trial after each epoch, the best trial first; long ones are thinned out."""
    name = curve_metric(metric)
    order: list[TrialRecord] = [t for t in sweep.objective.by(metric).ranked(sweep.trials) if t.run.epochs]
    numbers = sorted({int(line["epoch"]) for trial in order for line in trial.run.epochs if name in line})
    if len(numbers) > MOST_EPOCHS:
        numbers = sorted({numbers[round(at * (len(numbers) - 1) / (MOST_EPOCHS - 1))] for at in range(MOST_EPOCHS)})
    rows = []
    for trial in order[:MOST_TRIALS]:
        values = {int(line["epoch"]): round(line[name], 4) for line in trial.run.epochs if name in line}
        rows.append([trial.number, trial.state, *(values.get(epoch) for epoch in numbers)])
    left = f", the best {MOST_TRIALS} of {len(order)} trials" if len(order) > MOST_TRIALS else ""
    caption = f"{word(name).capitalize()} after each epoch{left}"
    columns = ["trial", "state", *(f"epoch {epoch}" for epoch in numbers)]
    return [{**table(caption, columns, rows), "folded": True}] if rows and len(numbers) > 1 else []
