"""The page's sections on a race: the model that it handed over, and what the minutes went to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from da6401.config.metrics import word
from da6401.report.blocks import Block, section, table, text
from da6401.report.charts import Chart, axis, chart
from da6401.report.figures import curve_metric, joined
from da6401.report.sweep_record import SweepRecord, TrialRecord

OPTION = ("model", "val_accuracy", "val_loss", "chosen")
PLAN = ("phase", "candidate", "epochs", "seconds")
LEDGER = ("trial", "phase", "candidate", "epochs", "planned_seconds", "seconds")


def race_sections(sweep: SweepRecord) -> list[dict[str, Any]]:
    """[] of a sweep that was no race; sweep.json is of unknown origin, and what does not fit is left out."""
    found = []
    model, ledger = sweep.summary.get("model"), sweep.summary.get("ledger")
    if isinstance(model, Mapping):
        runs = model.get("runs")
        names = ", ".join(map(str, runs)) if isinstance(runs, list) else ""
        note = text(f"It answers with {names}. All verbs take the folder model, beside the trials.")
        found.append(section("Handed over", _table("On the validation images", OPTION, model.get("options")), note))
    if isinstance(ledger, list):
        caption = "Seconds, as planned before each training and as spent"
        planned = _table(
            "The plan at the start, if the first candidate stays the best", PLAN, sweep.summary.get("plan")
        )
        found.append(section("What the minutes went to", by_minute(sweep), _table(caption, LEDGER, ledger), planned))
    return found


def by_minute(sweep: SweepRecord) -> Chart | None:
    """The best model so far by minute, and each epoch of the defaults' own trainings; None before the first end."""
    metric, begun = sweep.objective.metrics[0], [trial.start for trial in sweep.trials if trial.start]
    ended = sorted((trial for trial in sweep.complete if trial.end), key=lambda trial: trial.end or begun[0])
    if not ended or not begun:
        return None
    origin = min(begun)

    def minute(moment: datetime) -> float:
        return (moment - origin).total_seconds() / 60

    steps = [(trial.number, minute(trial.end), value) for trial, value in sweep.objective.by(metric).so_far(ended)
             if trial.end]  # fmt: skip
    best = {
        "type": "scatter", "mode": "lines+markers", "name": "best so far", "x": [x for _, x, _ in steps],
        "y": [y for *_, y in steps], "line": {"shape": "hv", "color": "@strong", "width": 2},
        "customdata": [trial for trial, *_ in steps],
        "hovertemplate": "%{x:.2f} min, trial %{customdata}: %{y:.4f}<extra></extra>",
    }  # fmt: skip
    name = curve_metric(metric)
    default = sweep.default
    lines = [
        (trial, [(minute(trial.start) + _seconds(trial, line) / 60, line[name]) for line in trial.run.epochs
                 if name in line])
        for trial in sweep.trials
        if default and trial.start and trial.params == default.params
    ]  # fmt: skip
    own = {
        "type": "scatter", "mode": "lines+markers", "name": "the defaults, epoch by epoch", **joined(lines),
        "line": {"color": "@muted", "width": 1.5, "dash": "dot"}, "marker": {"size": 4},
        "hovertemplate": "%{x:.2f} min, trial %{customdata}: %{y:.4f}<extra></extra>",
    }  # fmt: skip
    return chart(
        "Best by minute", f"{word(metric.name).capitalize()} of the best training so far, by minutes since the first "
        "training began, and that of the defaults after each of their epochs.",
        [best, own], {"xaxis": axis("minutes"), "yaxis": axis(word(metric.name)), "showlegend": True},
        columns=["trial", "minutes", word(metric.name)], rows=steps,
    )  # fmt: skip


def _seconds(trial: TrialRecord, line: Mapping[str, float]) -> float:
    """From the start of a trial to the end of this epoch; the start of the process and of features included."""
    after = sum(each["seconds"] for each in trial.run.epochs if each["epoch"] > line["epoch"])
    whole = (trial.end - trial.start).total_seconds() if trial.start and trial.end else 0.0
    return max(0.0, whole - after)


def _table(caption: str, columns: Sequence[str], entries: Any) -> Block:
    rows: Iterable[Any] = entries if isinstance(entries, list) else []
    values = [[_short(row.get(name)) for name in columns] for row in rows if isinstance(row, Mapping)]
    return table(caption, [name.replace("_", " ") for name in columns], values)


def _short(value: Any) -> Any:
    return round(value, 4 if abs(value) < 1 else 1) if isinstance(value, float) else value
