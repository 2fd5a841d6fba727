"""The objective against one parameter: as it was found, as a model of it predicts, and epoch by epoch."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from da6401.config.metrics import Metric, word
from da6401.report.charts import Chart, Focus, chart, epochs, label, number, shown_value
from da6401.report.figures import curve_metric
from da6401.report.importance import by_importance
from da6401.report.sweep_record import SweepRecord, TrialRecord, is_numeric

GROUPS = 6  # of trials, at most, that a chart tells apart by one key's value
MOST_KEYS = 6  # the most important ones
GRID = 20  # points of a partial dependence
TREES, SAMPLE = 60, 200  # of the forest, and trials that it is averaged over
COLOURS = ("@accent", "@running", "@pruned", "@failed", "@muted", "@strong")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid")


def slices(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """The objective against each parameter alone."""
    drawn = []
    for name in sweep.params:
        mine = [t for t in sweep.complete if name in t.params]
        values = [t.params[name] for t in mine]
        if len({str(value) for value in values}) < 2:
            continue
        reached = [t.reached(metric) for t in mine]
        seen = Focus.on([each for each in reached if each is not None], maximise=metric.maximise)
        scale = is_numeric(values)
        x = values if scale else [label(shown_value(value)) for value in values]
        points = {
            "type": "scatter", "mode": "markers", "x": x,
            "y": [None if each is None else seen.place(each) for each in reached],
            "customdata": [t.number for t in mine], "text": [number(each) for each in reached],
            "marker": {"size": 7, "color": [t.number for t in mine], "colorscale": "@time", "opacity": 0.8,
                       "line": {"width": 1, "color": "@muted"},
                       "symbol": ["circle" if each is None or seen.holds(each) else seen.symbol for each in reached]},
            "hovertemplate": "trial %{customdata}: %{x}, %{text}<extra></extra>",
        }  # fmt: skip
        traces = [points]
        if len(set(values)) <= 8:  # a mean for each value
            groups = {each: [r for v, r in zip(x, reached, strict=True) if v == each and r is not None] for each in x}
            means = [seen.place(statistics.fmean(group)) for group in groups.values()]
            symbol = {"symbol": "line-ew-open", "size": 26, "color": "@strong", "line": {"width": 2}}
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "x": list(groups), "y": means, "marker": symbol,
                    "hovertemplate": "mean %{y:.4f}<extra></extra>",
                }
            )  # fmt: skip
        log = scale and name in sweep.logarithmic and min(values) > 0
        kind: dict[str, Any] = {"type": "log" if log else "-" if scale else "category", "tickformat": "~g"}
        if log and max(values) / min(values) >= 10:
            kind["dtick"] = 1  # a mark each power of ten
        drawn.append(
            chart(
                name,
                f"{word(metric.name).capitalize()} against {name}, n = {len(mine)} trials; the stronger "
                "the colour, the later." + seen.sentence(reached),
                traces,
                {"xaxis": {"nticks": 5, **kind}, "yaxis": {"nticks": 5, **seen.axis}, "height": 240},
                columns=["trial", name, word(metric.name)],
                rows=[[t.number, t.params[name], t.reached(metric)] for t in mine],
            )
        )  # fmt: skip
    return drawn


def curves_by_value(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """The mean validation curve of the completed trials that share a value, one chart a key."""
    name = curve_metric(metric)
    drawn = []
    for key in by_importance(sweep, metric)[:MOST_KEYS]:
        groups = _groups(key, [t for t in sweep.complete if key in t.params and len(t.run.epochs) > 1])
        traces, rows = [], []
        for index, (value, mine) in enumerate(groups.items()):
            by_epoch: dict[float, list[float]] = {}
            for line in (line for trial in mine for line in trial.run.epochs if name in line):
                by_epoch.setdefault(line["epoch"], []).append(line[name])
            means = {epoch: statistics.fmean(found) for epoch, found in sorted(by_epoch.items())}
            rows += [[value, epoch, mean, len(by_epoch[epoch])] for epoch, mean in means.items()]
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": f"{label(value)} (n = {len(mine)})",
                    "x": list(means), "y": list(means.values()),
                    "line": {"color": COLOURS[index], "dash": DASHES[index], "width": 2},
                    "hovertemplate": "epoch %{x}: %{y:.4f}<extra></extra>",
                }
            )  # fmt: skip
        if len(groups) > 1:
            drawn.append(
                chart(
                    key, f"Mean {word(name)} of the completed trials by epoch, for each value of {key}.", traces,
                    {"xaxis": epochs(t.run.epochs for t in sweep.complete), "showlegend": True, "height": 300},
                    columns=[key, "epoch", f"mean {word(name)}", "trials"], rows=rows,
                )
            )  # fmt: skip
    return drawn


def _groups(key: str, trials: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """The trials by a key's value, or by thirds of a range; {} where there are too many values to tell apart."""
    values = [trial.params[key] for trial in trials]
    distinct = set(map(shown_value, values))
    groups: dict[str, list[TrialRecord]] = {}
    if len(distinct) <= GROUPS and len(distinct) <= len(trials) / 2:
        order = sorted(trials, key=lambda t: t.params[key] if is_numeric(values) else shown_value(t.params[key]))
        for trial in order:
            groups.setdefault(shown_value(trial.params[key]), []).append(trial)
    elif is_numeric(values) and len(trials) >= 6:
        order = sorted(trials, key=lambda trial: trial.params[key])
        for third in range(3):
            part = order[len(order) * third // 3 : len(order) * (third + 1) // 3]
            groups[f"{part[0].params[key]:.3g} to {part[-1].params[key]:.3g}"] = part
    return groups


def partial_dependence(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """What a random forest that was fitted to the trials predicts for each value of a key, the others as they were."""
    keys = [key for key in by_importance(sweep, metric) if all(key in trial.params for trial in sweep.complete)]
    reached = [value for trial in sweep.complete if (value := trial.reached(metric)) is not None]
    seen = Focus.on(reached, maximise=metric.maximise)
    rows = tuple((*(t.params[key] for key in keys), seen.place(t.reached(metric) or 0.0)) for t in sweep.complete)
    if len(keys) < 2:
        return []
    explained, found = _forest(tuple(keys), rows)
    drawn = []
    for key, points in list(found.items())[:MOST_KEYS]:
        values, means, lows, highs = map(list, zip(*points, strict=True))
        numeric = is_numeric(values)
        x = values if numeric else [label(shown_value(value)) for value in values]
        line = {"type": "scatter", "x": x, "mode": "lines+markers" if len(x) <= GROUPS else "lines"}
        edge = {"type": "scatter", "x": x, "mode": "lines", "line": {"width": 0, "color": "@accent"},
                "hoverinfo": "skip"}  # fmt: skip
        traces = [
            {**edge, "y": lows},
            {**edge, "y": highs, "fill": "tonexty", "fillcolor": "@tint"},
            {**line, "y": means, "line": {"color": "@accent", "width": 2},
             "hovertemplate": "%{x}: %{y:.4f}<extra></extra>"},
        ]  # fmt: skip
        log = numeric and key in sweep.logarithmic and min(values) > 0
        kind = {"type": "log" if log else "-" if numeric else "category", "tickformat": "~g"}
        drawn.append(
            chart(
                key, f"The forest explains {max(0.0, explained):.0%} of the variation of {word(metric.name)} on trials "
                "that it was not fitted to. The band is four in five of its trees.",
                traces, {"xaxis": {"nticks": 5, **kind}, "yaxis": {"nticks": 5}, "height": 240},
                columns=[key, "predicted mean", "10% of the trees below", "90% below"],
                rows=[[value, *others] for value, *others in points],
            )
        )  # fmt: skip
    return drawn


Point = tuple[Any, float, float, float]  # a value, the prediction's mean, and where 10% and 90% of the trees are


@functools.lru_cache(maxsize=8)  # while a sweep runs, most changes of the page are epochs and no new trial
def _forest(keys: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> tuple[float, dict[str, list[Point]]]:
    """The share of the variation that a forest explains out of its bag, and its prediction by each key's values."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    columns = [_encoded([row[at] for row in rows]) for at in range(len(keys))]
    X_NP = np.array([[code[shown_value(row[at])] for at, (code, _) in enumerate(columns)] for row in rows])
    y_N = np.array([row[-1] for row in rows])
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, oob_score=True, random_state=0).fit(X_NP, y_N)
    sample_NP = X_NP[:: max(1, len(X_NP) // SAMPLE)]
    found: dict[str, list[Point]] = {}
    for at, key in enumerate(keys):
        code, values = columns[at]
        if len(values) > GRID:
            values = [values[round(place * (len(values) - 1) / (GRID - 1))] for place in range(GRID)]
        moved = np.repeat(sample_NP, len(values), axis=0)
        moved[:, at] = np.tile([code[shown_value(value)] for value in values], len(sample_NP))
        trees_TV = np.array([tree.predict(moved).reshape(-1, len(values)).mean(0) for tree in forest.estimators_])
        low_V, high_V = np.quantile(trees_TV, (0.1, 0.9), axis=0)
        found[key] = list(zip(values, trees_TV.mean(0).tolist(), low_V.tolist(), high_V.tolist(), strict=True))
    return float(forest.oob_score_), found


def _encoded(values: Sequence[Any]) -> tuple[Mapping[str, float], list[Any]]:
    """A number for each value, by its text: of numbers their rank, so that a logarithm makes no difference."""
    by_text = {shown_value(value): value for value in values}
    order = sorted(by_text.values()) if is_numeric(values) else [by_text[text] for text in sorted(by_text)]
    return {shown_value(value): float(rank) for rank, value in enumerate(order)}, order
