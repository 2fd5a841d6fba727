"""Parallel coordinates: every parameter of every completed trial at once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from da6401.config.metrics import Metric, word
from da6401.report.charts import Chart, chart, label, shown_value
from da6401.report.figures import joined
from da6401.report.sweep_record import SweepRecord, is_numeric

SHADES = 6  # of the lines
LONGEST_LINE = 12  # characters of a line of a heading
CLOSEST = 0.055  # between two ticks, of the height of an axis


def parallel(sweep: SweepRecord, metric: Metric) -> Chart:
    """Parallel coordinates: one axis a parameter, one line a completed trial, darker the better."""
    done = sweep.objective.by(metric).ranked(sweep.complete)[::-1]  # the best is drawn last, over the others
    columns = [(name, [t.params.get(name) for t in done], name in sweep.logarithmic) for name in sweep.params]
    columns.append((word(metric.name), [t.reached(metric) for t in done], False))
    traces: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    heights: list[list[float]] = []
    texts: list[str] = []
    headings: list[list[str]] = []
    for place, (name, values, log) in enumerate(columns):
        scaled, ticks = _scaled(values, log=log)
        heights.append(scaled)
        headings.append(_lines(label(short(name, sweep.params))))
        texts += [text for _, text in ticks]
        annotations.append({"x": place, "y": 1.12, "text": f"<b>{'<br>'.join(headings[-1])}</b>", "xanchor": "center"})
        annotations += [
            {"x": place, "y": y, "text": text, "xanchor": "left", "xshift": 5, "bgcolor": "@page"} for y, text in ticks
        ]
    for shade in range(SHADES):
        lines = ((trial, list(enumerate(each[rank] for each in heights))) for rank, trial in enumerate(done)
                 if rank * SHADES // len(done) == shade)  # fmt: skip
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", **joined(lines),
                "line": {"color": f"@shade{shade}", "width": 1.5 if shade < SHADES - 1 else 2.5},
                "marker": {"size": 5}, "hovertemplate": "trial %{customdata}<extra></extra>",
            }
        )  # fmt: skip
    for each in annotations:
        each |= {"showarrow": False, "yanchor": "middle", "font": {"size": 11}}
    axes = [
        {"type": "line", "x0": p, "x1": p, "y0": 0, "y1": 1, "line": {"color": "@rule", "width": 1}}
        for p in range(len(columns))
    ]
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False, "showline": False, "fixedrange": True}
    return chart(
        "Parallel coordinates",
        f"The parameters of {len(done)} completed trials: the stronger the colour, the better. "
        "Drag the mouse over an axis to keep the trials that pass there: the table below shows them alone.",
        traces,
        {
            "xaxis": {**hidden, "range": [-0.5, len(columns) - 0.5]}, "yaxis": {**hidden, "range": [-0.2, 1.2]},
            "annotations": annotations, "shapes": axes, "dragmode": "select", "margin": {"l": 10, "r": 10, "b": 10},
            "height": 420, "width": _column_width(headings, texts) * len(columns),
        },
        columns=["trial", *(name for name, _, _ in columns)],
        rows=[[t.number, *(values[rank] for _, values, _ in columns)] for rank, t in enumerate(done)],
    )  # fmt: skip


def short(name: str, names: Sequence[str]) -> str:
    """A key's last part, where no other key ends so; a key with its condition is shown whole."""
    if " [" in name:
        return name
    last = name.rpartition(".")[2]
    return last if sum(each.rpartition(".")[2] == last for each in names) <= 1 else name


def _lines(heading: str) -> list[str]:
    """A heading in lines that are broken at its spaces and underscores, where it is long."""
    if len(heading) <= LONGEST_LINE:
        return [heading]
    lines = [""]
    for piece in re.findall(r"[^ _]+[ _]?", heading):
        if lines[-1] and len(lines[-1]) + len(piece) > LONGEST_LINE:
            lines.append("")
        lines[-1] += piece
    return lines


def _column_width(headings: Sequence[Sequence[str]], ticks: Sequence[str]) -> int:
    """Pixels from one axis to the next, so that no heading and no tick reaches over its neighbour."""
    longest = max([len(line) + 1 for lines in headings for line in lines] + [len(text) + 2 for text in ticks])
    return max(96, 7 * longest)


def _scaled(values: Sequence[Any], *, log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights 0..1 of an axis' values, and its ticks; a trial that has no such parameter stands below the axis."""
    present = [value for value in values if value is not None]
    missing = [] if len(present) == len(values) else [(-0.14, "not used")]
    if present and is_numeric(present) and len(set(present)) > 1:
        turn = math.log if log and min(present) > 0 else float
        low, high = turn(min(present)), turn(max(present))
        place = {value: (turn(value) - low) / (high - low) for value in sorted(set(present))}
        shown = list(place) if len(place) <= 5 else [min(present), max(present)]
        ticks = _apart([(place[value], f"{value:.3g}") for value in shown])
        return [-0.14 if value is None else place[value] for value in values], ticks + missing
    names = sorted({shown_value(value) for value in present})
    rungs = {name: (index + 0.5) / len(names) for index, name in enumerate(names)}
    ticks = _apart([(y, label(name)) for name, y in rungs.items()])
    return [-0.14 if v is None else rungs[shown_value(v)] for v in values], ticks + missing


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks from the lowest on that do not lie over the one before; the highest always."""
    kept: list[tuple[float, str]] = []
    for tick in ticks:
        if not kept or tick[0] - kept[-1][0] >= CLOSEST:
            kept.append(tick)
        elif tick is ticks[-1] and len(kept) > 1:
            kept[-1] = tick
    return kept
