"""Charts that optuna.visualization makes, in the page's colours and words; each needs the study's own trials."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from da6401.config.metrics import Metric, word
from da6401.report.charts import Chart, Focus, axis, chart, label, number, shown_value
from da6401.report.importance import by_importance
from da6401.report.sweep_record import SweepRecord
from da6401.study.objective import Objective

SURFACE = 80  # trials that a contour joins; a grid of all their values grows with the square of them
KEYS = 3  # the most important ones, in pairs
COLOURS = ("@accent", "@pruned", "@running", "@failed", "@strong")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def pairs_of_keys(sweep: SweepRecord, metric: Metric) -> list[Chart]:
    """For each pair of the most important keys the contour of the objective, then the ranks of the trials."""
    done = [trial for trial in sweep.frozen if trial.state is TrialState.COMPLETE]
    keys = [key for key in by_importance(sweep, metric) if sum(key in trial.params for trial in done) > 1][:KEYS]
    seen = Focus.on([trial.values[metric.index] for trial in done], maximise=metric.maximise)
    pairs = {}
    for pair in itertools.combinations(sorted(keys, key=keys.index), 2):
        mine = [trial for trial in done if all(key in trial.params for key in pair)]
        if all(len({str(trial.params[key]) for trial in mine}) > 1 for key in pair):
            pairs[pair] = mine
    return [draw(sweep, metric, pair, mine, seen) for draw in (_contour, _rank) for pair, mine in pairs.items()]


Pair = tuple[str, str]


def _contour(sweep: SweepRecord, metric: Metric, keys: Pair, trials: Sequence[FrozenTrial], seen: Focus) -> Chart:
    from optuna.visualization import plot_contour

    chosen = _spread(trials, sweep.objective.by(metric))
    drawn = plot_contour(_study(chosen, metric, seen), params=list(keys), target_name=word(metric.name))
    surface, points, *_ = _traces(drawn)
    surface |= {
        "colorscale": "@heat", "reversescale": not metric.maximise, "showscale": False,
        "contours": {"coloring": "heatmap"}, "line": {"width": 0.5, "color": "@rule", "smoothing": 1.3},
    }  # fmt: skip
    points["marker"] = {"size": 5, "color": "@strong", "line": {"width": 1, "color": "@panel"}}
    some = "" if len(chosen) == len(trials) else f" The surface joins {len(chosen)} of them."
    said = f"{word(metric.name).capitalize()} between {len(trials)} trials: the stronger the colour, the better.{some}"
    return _of_pair("Contour", said, [surface, {**points, **_named(chosen, metric)}], sweep, metric, keys, trials)


def _rank(sweep: SweepRecord, metric: Metric, keys: Pair, trials: Sequence[FrozenTrial], seen: Focus) -> Chart:
    from optuna.visualization import plot_rank

    drawn = plot_rank(_study(trials, metric, seen), params=sorted(keys), target_name=word(metric.name))
    points = _traces(drawn)[0]
    order = sweep.objective.by(metric).order(range(len(trials)), lambda at: [trials[at].values[metric.index]])
    rank = {at: place for place, at in enumerate(reversed(order))}
    points["marker"] = {
        "size": 8, "color": [rank[at] for at in range(len(trials))], "colorscale": "@time",
        "line": {"width": 1, "color": "@muted"},
    }  # fmt: skip
    said = f"Each of {len(trials)} trials by its rank: the stronger the colour, the better."
    return _of_pair("Rank", said, [{**points, **_named(trials, metric)}], sweep, metric, keys, trials)


def _of_pair(
    kind: str, said: str, traces: Sequence[Mapping[str, Any]], sweep: SweepRecord, metric: Metric, keys: Pair,
    trials: Sequence[FrozenTrial],
) -> Chart:  # fmt: skip
    rows = [[t.number, *(t.params[key] for key in keys), t.values[metric.index]] for t in trials]
    title = f"{kind}: {' and '.join(map(_last, keys))}"
    columns = ["trial", *keys, word(metric.name)]
    return chart(title, said, traces, _layout(sweep, trials, *keys), columns=columns, rows=rows)


def _named(trials: Sequence[FrozenTrial], metric: Metric) -> dict[str, Any]:
    """What a point says when it is pointed at, and which trial opens when it is clicked."""
    texts = [f"trial {trial.number}: {number(trial.values[metric.index])}" for trial in trials]
    return {
        "customdata": [t.number for t in trials], "hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>",
    }  # fmt: skip


def distribution(sweeps: Mapping[str, SweepRecord], metric: Metric) -> list[Chart]:
    """The empirical distribution of the objective: of several sweeps one curve each, of one by the model searched."""
    from optuna.visualization import plot_edf

    groups: dict[str, list[FrozenTrial]] = {}
    for name, sweep in sweeps.items():
        done = [trial for trial in sweep.frozen if trial.state is TrialState.COMPLETE]
        models = {str(trial.params.get("model")) for trial in done}
        for trial in done:
            by_model = len(sweeps) == 1 and len(models) > 1
            groups.setdefault(f"model={trial.params.get('model')}" if by_model else name, []).append(trial)
    groups = {name: trials for name, trials in groups.items() if len(trials) > 1}
    values = [trial.values[metric.index] for trials in groups.values() for trial in trials]
    if len(set(values)) < 2:
        return []
    studies = [_study(trials, metric) for trials in groups.values()]
    drawn = plot_edf(studies, target_name=word(metric.name))
    traces = _traces(drawn)
    for index, (trace, name) in enumerate(zip(traces, groups, strict=True)):
        line = {"color": COLOURS[index % 5], "dash": DASHES[index % 5], "width": 2, "shape": "hv"}
        trace |= {"name": f"{label(name)} (n = {len(groups[name])})", "line": line,
                  "hovertemplate": "%{y:.0%} reached at most %{x:.4f}<extra></extra>"}  # fmt: skip
    lines = "" if len(groups) == 1 else " A curve further " + ("right" if metric.maximise else "left") + " is better."
    return [
        chart(
            "Distribution",
            f"Share of the completed trials that reached at most this {word(metric.name)}.{lines}", traces,
            {"xaxis": axis(word(metric.name)), "yaxis": axis("share of trials", range=[0, 1.02]),
             "showlegend": len(groups) > 1, "height": 320},
            columns=["trials of", word(metric.name), "share"],
            rows=[[name, value, (at + 1) / len(trials)] for name, trials in groups.items()
                  for at, value in enumerate(sorted(trial.values[metric.index] for trial in trials))],
        )
    ]  # fmt: skip


def hypervolume(sweep: SweepRecord, _: Metric) -> list[Chart]:
    """How much of the space between the worst values the Pareto front has covered, by trial."""
    from optuna.visualization import plot_hypervolume_history

    done = [trial for trial in sweep.frozen if trial.state is TrialState.COMPLETE]
    metrics = sweep.objective.metrics
    worst = [
        sweep.objective.by(each).order((t.values[each.index] for t in done), lambda value: [value])[-1]
        for each in metrics
    ]
    _quiet()
    study = optuna.create_study(directions=sweep.objective.directions)
    study.add_trials(done)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        (trace,) = _traces(plot_hypervolume_history(study, worst))
    numbers = [trial.number for trial in done]
    most = max(trace["y"], default=0.0)
    if most <= 0:
        return []
    shares = [value / most for value in trace["y"]]
    trace |= {"x": numbers, "y": shares, "line": {"shape": "hv", "color": "@accent", "width": 2}, "mode": "lines",
              "hovertemplate": "trial %{x}: %{y:.1%}<extra></extra>"}  # fmt: skip
    point = ", ".join(f"{word(each.name)} {number(value)}" for each, value in zip(metrics, worst, strict=True))
    return [
        chart(
            "Hypervolume",
            "What the Pareto front dominates, as a share of what it dominates at the end. It is measured "
            f"from the worst values of all completed trials ({point}).",
            [trace], {"xaxis": axis("trial"), "yaxis": axis("share of the last", range=[0, 1.05], tickformat=".0%"),
                      "height": 300},
            columns=["trial", "share"], rows=[list(row) for row in zip(numbers, shares, strict=True)],
        )
    ]  # fmt: skip


@functools.lru_cache(maxsize=1)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _study(trials: Sequence[FrozenTrial], metric: Metric, seen: Focus | None = None) -> optuna.Study:
    """A study in memory of these trials with the one metric; where there is a focus, worse values are at its edge."""
    _quiet()
    study = optuna.create_study(direction=metric.direction)
    place = seen.place if seen else float
    for trial in trials:
        value = place(trial.values[metric.index])
        study.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    return study


def _spread(trials: Sequence[FrozenTrial], objective: Objective) -> list[FrozenTrial]:
    """At most SURFACE of the trials: the better half of these are the best, the others evenly from all the rest."""
    if len(trials) <= SURFACE:
        return list(trials)
    (metric,) = objective.metrics
    order = objective.order(trials, lambda trial: [trial.values[metric.index]])
    best, rest = order[: SURFACE // 2], order[SURFACE // 2 :]
    count = SURFACE - len(best)
    return best + [rest[round(at * (len(rest) - 1) / (count - 1))] for at in range(count)]


def _traces(figure: Any) -> list[dict[str, Any]]:
    """A figure's traces as plain values: lists in place of arrays, None in place of NaN, names that are escaped."""
    plain: list[dict[str, Any]] = [_plain(trace) for trace in figure.to_plotly_json()["data"]]
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "bdata" in value:
        array = np.frombuffer(_bytes(value["bdata"]), dtype=value["dtype"])
        shape = [int(each) for each in str(value.get("shape", array.size)).split(",")]
        return _plain(array.reshape(shape).tolist())
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_text(each) if isinstance(each, str) else _plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _bytes(packed: str) -> bytes:
    import base64

    return base64.b64decode(packed)


def _text(value: str) -> str:
    """A value of a choice as the other charts write it."""
    return {"True": "true", "False": "false"}.get(value) or label(value)


def _layout(sweep: SweepRecord, trials: Sequence[FrozenTrial], *keys: str) -> dict[str, Any]:
    found: dict[str, Any] = {"height": 320}
    for name, key in zip(("xaxis", "yaxis"), sorted(keys), strict=True):  # Optuna has them in this order
        kind = "log" if key in sweep.logarithmic else "-"
        if not all(isinstance(t.params[key], (int, float)) and not isinstance(t.params[key], bool) for t in trials):
            kind = "category"
        found[name] = axis(label(_last(key)), type=kind, nticks=5, tickformat="~g")
    return found


def _last(key: str) -> str:
    return shown_value(key if " [" in key else key.rpartition(".")[2])
