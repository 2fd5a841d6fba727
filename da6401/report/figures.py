"""The charts of a sweep: what its trials reached, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from da6401.config.metrics import Metric, word
from da6401.registry import METRICS
from da6401.report.charts import Chart, Focus, axis, chart, epochs, label, number
from da6401.report.sweep_record import SweepRecord, TrialRecord
from da6401.runs.looks import times
from da6401.study.objective import keeps_limits

COLOURS = {"complete": "@accent", "pruned": "@pruned", "fail": "@failed", "running": "@running", "waiting": "@muted"}
STATES = {**{state: state for state in COLOURS}, "fail": "failed"}  # in words
SYMBOLS = {"complete": "circle", "pruned": "triangle-down-open", "fail": "x-thin-open", "running": "circle-open"}


def history(sweep: SweepRecord, metric: Metric) -> Chart:
    """Every trial's objective in the order, or at the time, of its creation, and the best so far."""
    reached = {trial.number: trial.reached(metric) for trial in sweep.trials}
    seen = Focus.on([value for value in reached.values() if value is not None], maximise=metric.maximise)
    traces: list[dict[str, Any]] = []
    moments: list[list[str | None]] = []
    begun = (t for t in sweep.trials if t.state in SYMBOLS and (t.state != "running" or t.start))
    for state, mine in _by_state(begun):
        values = [reached[t.number] for t in mine]
        symbols = [SYMBOLS[state] if v is None or seen.holds(v) else seen.symbol for v in values]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": STATES[state], "x": [t.number for t in mine],
                "y": [seen.edge if v is None else seen.place(v) for v in values],
                "marker": {"symbol": symbols, "size": 8, "color": COLOURS[state], "line": {"width": 1.5}},
                "text": [f"trial {t.number}, {t.state}: {number(v)}" for t, v in zip(mine, values, strict=True)],
                "customdata": [t.number for t in mine], "hovertemplate": "%{text}<extra></extra>",
            }
        )  # fmt: skip
        moments.append([_time(t.start) for t in mine])
    steps: list[tuple[TrialRecord, float]] = []
    for trial, value in sweep.objective.by(metric).so_far(sweep.trials):
        if not steps or value != steps[-1][1]:
            steps.append((trial, value))
    if steps:
        ends = [*(trial for trial, _ in steps), sweep.trials[-1]]
        best = [seen.place(value) for _, value in steps]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": "best so far", "x": [t.number for t in ends],
                "y": [*best, best[-1]], "line": {"shape": "hv", "color": "@strong", "width": 2}, "hoverinfo": "skip",
            }
        )  # fmt: skip
        moments.append([_time(t.start) for t in ends])
    layout: dict[str, Any] = {"xaxis": axis("trial"), "yaxis": axis(word(metric.name), **seen.axis), "showlegend": True}
    if sweep.default is not None and (own := reached[sweep.default.number]) is not None and seen.holds(own):
        layout |= _level(own, "the default")
    counts = Counter(t.state for t in sweep.trials)
    listed = ", ".join(f"{counts[state]} {STATES[state]}" for state in COLOURS if counts[state])
    changes = len(steps) - 1
    drawn = chart(
        "History", f"{word(metric.name).capitalize()} of {len(sweep.trials)} trials: {listed}."
        + (f" The best so far changed {times(changes)} after the first." if changes > 0 else "")
        + (f" Crosses at the {seen.side} failed." if counts["fail"] else "")
        + seen.sentence(reached.values()),
        traces, layout, columns=["trial", "state", "created", word(metric.name)],
        rows=[[t.number, t.state, _time(t.start), reached[t.number]] for t in sweep.trials],
    )  # fmt: skip
    if all(t.start for t in sweep.trials):
        drawn["views"] = {"by trial": [trace["x"] for trace in traces], "by time of creation": moments}
    return drawn


def histories(sweeps: Mapping[str, SweepRecord], metric: Metric) -> Chart:
    """The best so far of several sweeps, by the trials or by the minutes that each has taken."""
    dashes, shades = ("solid", "dash", "dot", "dashdot"), ("@accent", "@strong", "@pruned", "@running", "@failed")
    traces, minutes, rows = [], [], []
    for index, (name, sweep) in enumerate(sweeps.items()):
        steps = sweep.objective.by(metric).so_far(sweep.trials)
        began = min((trial.start for trial in sweep.trials if trial.start), default=None)
        spent = [None if not (began and t.end) else round((t.end - began).total_seconds() / 60, 3) for t, _ in steps]
        rows += [[name, trial.number, at, value] for (trial, value), at in zip(steps, spent, strict=True)]
        minutes.append(spent)
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": label(name), "x": [trial.number + 1 for trial, _ in steps],
                "y": [value for _, value in steps],
                "line": {"shape": "hv", "color": shades[index % 5], "dash": dashes[index % 4], "width": 2},
                "hovertemplate": "%{y:.4f}<extra></extra>",
            }
        )  # fmt: skip
    drawn = chart(
        "Searches", f"The best {word(metric.name)} so far of {len(sweeps)} sweeps.", traces,
        {"xaxis": axis("trials"), "yaxis": axis(word(metric.name)), "showlegend": True},
        columns=["sweep", "trial", "minutes", f"best {word(metric.name)} so far"], rows=rows,
    )  # fmt: skip
    if all(each is not None for spent in minutes for each in spent):
        drawn["views"] = {"trials": [trace["x"] for trace in traces], "minutes": minutes}
    return drawn


def _level(value: float, name: str) -> dict[str, Any]:
    """A horizontal line across a chart, with its name at the right end."""
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
    text = {"xref": "paper", "x": 1, "y": value, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    return {
        "shapes": [{**line, "line": {"color": "@muted", "width": 1, "dash": "dot"}}],
        "annotations": [{**text, "text": name, "font": {"size": 11, "color": "@muted"}}],
    }


def learning_curves(sweep: SweepRecord, metric: Metric) -> Chart:
    """The validation curve of every trial, the best and the default trial apart."""
    name = curve_metric(metric)
    upward = METRICS[name].maximise
    best, first = next(iter(sweep.best), None), sweep.default
    apart = {trial.number for trial in (best, first) if trial}
    traces = []
    for state, mine in _by_state(t for t in sweep.trials if t.number not in apart and t.run.epochs):
        line = {"color": COLOURS[state], "width": 1.2}
        faint = 0.4 if state == "complete" else 0.8
        traces.append(_curves(mine, name, legend=STATES[state], line=line, opacity=faint))
    if first and first.run.epochs and first is not best:
        line = {"color": "@strong", "width": 2, "dash": "dot"}
        traces.append(_curves([first], name, legend=f"default, trial {first.number}", line=line))
    if best and best.run.epochs:
        line = {"color": "@strong", "width": 3}
        traces.append(_curves([best], name, legend=f"best, trial {best.number}", line=line))
    rows = [
        [t.number, t.state, len(t.run.epochs), max(v) if upward else min(v), v[-1]]
        for t in sweep.trials
        if (v := [line[name] for line in t.run.epochs if name in line])
    ]
    return chart(
        "Learning curves", f"{word(name).capitalize()} by epoch of {len(rows)} trials.", traces,
        {"xaxis": epochs(trial.run.epochs for trial in sweep.trials), "yaxis": axis(word(name)), "showlegend": True},
        columns=["trial", "state", "epochs", f"{'highest' if upward else 'lowest'} {word(name)}", "last"], rows=rows,
    )  # fmt: skip


def curve_metric(metric: Metric) -> str:
    """What is drawn by epoch: the metric itself, where epochs have it."""
    return metric.name if metric.by_epoch else "val_accuracy"


def _curves(trials: Sequence[TrialRecord], name: str, *, legend: str, **style: Any) -> dict[str, Any]:
    points = [(trial, [(line["epoch"], line[name]) for line in trial.run.epochs if name in line]) for trial in trials]
    lines = joined(points)
    return {
        "type": "scatter", "mode": "lines" if len(lines["x"]) > 2 else "markers", "name": legend, **lines,
        "hovertemplate": "trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>", **style,
    }  # fmt: skip


def joined(lines: Iterable[tuple[TrialRecord, Sequence[tuple[float, float]]]]) -> dict[str, list[Any]]:
    """The points of several trials' lines for one trace, with gaps between: 500 traces would take seconds to draw."""
    joined: dict[str, list[Any]] = {"x": [], "y": [], "customdata": []}
    for trial, points in lines:
        joined["x"] += [*(x for x, _ in points), None]
        joined["y"] += [*(y for _, y in points), None]
        joined["customdata"] += [trial.number] * len(points) + [None]
    return joined


def pareto(sweep: SweepRecord, one: Metric, other: Metric) -> Chart:
    """Two metrics against each other; the front are the trials within the hard limits that no other of these beats."""
    front = sweep.objective.by(one).ranked(sweep.best)  # the line of steps joins neighbours
    chosen = {t.number for t in front}
    rest = [t for t in sweep.complete if t.number not in chosen]
    over = [t for t in rest if not keeps_limits(t)]
    beaten = [t for t in rest if keeps_limits(t)]
    traces = [
        {
            "type": "scatter", "mode": mode, "name": name, "x": [t.reached(one) for t in trials],
            "y": [t.reached(other) for t in trials], "customdata": [t.number for t in trials],
            "text": [str(t.number) for t in trials], "textposition": "top center",
            "marker": {"size": size, "color": colour}, "line": {"color": colour, "shape": shape},
            "hovertemplate": "trial %{customdata}: %{x:.4f}, %{y:.5g}<extra></extra>",
        }
        for name, trials, mode, size, colour, shape in (
            ("beaten", beaten, "markers", 7, "@pruned", "linear"),
            *([("over the limit", over, "markers", 7, "@failed", "linear")] if over else []),
            ("Pareto front", front, "lines+markers+text", 9, "@accent", "vh"),
        )
    ]  # fmt: skip
    within = f" within the limit are beaten by no other; {len(over)} over it cannot win" if over else ""
    return chart(
        "Pareto front",
        f"{word(one.name).capitalize()} against {word(other.name)}: {len(front)} of {len(sweep.complete) - len(over)} "
        f"completed trials{within or ' are beaten by no other'}.",
        traces, {"xaxis": axis(word(one.name)), "yaxis": axis(word(other.name)), "showlegend": True},
        columns=["trial", word(one.name), word(other.name), "on the front", *(["over the limit"] if over else [])],
        rows=[[t.number, t.reached(one), t.reached(other), t.number in chosen, *([t in over] if over else [])]
              for t in sweep.complete],
    )  # fmt: skip


def timeline(sweep: SweepRecord) -> Chart:
    """Which slot ran which trial when."""
    traces = []
    begun = [t for t in sweep.trials if t.start]
    now = max((moment for t in begun if (moment := t.end or t.start)), default=None)
    for state, mine in _by_state(begun):
        lengths = [(((t.end or now or t.start) - t.start).total_seconds()) for t in mine]  # type: ignore[operator]
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": STATES[state],
                "y": [f"slot {label(t.slot)}" for t in mine], "base": [_time(t.start) for t in mine],
                "x": [1000 * seconds for seconds in lengths], "customdata": [t.number for t in mine],
                "text": [str(t.number) for t in mine], "textposition": "inside", "insidetextanchor": "middle",
                "marker": {"color": COLOURS[state], "line": {"color": "@panel", "width": 1}},
                "hovertext": [f"trial {t.number}, {s:.1f} s" for t, s in zip(mine, lengths, strict=True)],
                "hoverinfo": "text",
            }
        )  # fmt: skip
    slots = sorted({t.slot for t in begun})
    return chart(
        "Timeline", f"{len(begun)} trials on {len(slots)} {'slot' if len(slots) == 1 else 'slots'}.",
        traces,
        {
            "barmode": "overlay", "xaxis": {"type": "date"}, "showlegend": True,
            "yaxis": {"type": "category", "autorange": "reversed", "categoryorder": "category ascending"},
            "height": 140 + 42 * len(slots),
        },
        columns=["trial", "slot", "state", "start", "end", "attempts"],
        rows=[[t.number, t.slot, t.state, _time(t.start), _time(t.end), t.attempts] for t in begun],
    )  # fmt: skip


def _by_state(trials: Iterable[TrialRecord]) -> list[tuple[str, list[TrialRecord]]]:
    """The states that these trials are in, in the order of COLOURS, each with its trials."""
    groups: dict[str, list[TrialRecord]] = {state: [] for state in COLOURS}
    for trial in trials:
        groups[trial.state].append(trial)
    return [(state, group) for state, group in groups.items() if group]


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(sep=" ", timespec="milliseconds") if moment else None
