"""Charts as plain dictionaries for Plotly: traces, layout, one sentence that says what is to be seen, and the data.

Colours are names such as "@accent", which the page resolves in its light or dark palette. Every text that comes from
outside passes ``label``: Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from da6401.redact import printable

Chart = dict[str, Any]
LONGEST = 40  # characters of a label


def label(text: object) -> str:
    """A text as Plotly shows it literally, at most LONGEST characters of it."""
    plain = printable(str(text)).replace("\n", " ")
    return html.escape(plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…", quote=False)


def number(value: float | None) -> str:
    """A number for people: four digits that count, thousands apart."""
    if value is None:
        return "–"
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def chart(
    title: str,
    summary: str,
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> Chart:
    """A chart as the page draws it.

    Args:
        layout: Plotly's. With a width (px) the chart scrolls where the page is narrower.
        columns, rows: its data as a table.
    """
    return {
        "kind": "chart", "title": title, "summary": summary, "traces": list(traces), "layout": dict(layout),
        "columns": list(columns), "rows": [list(row) for row in rows],
    }  # fmt: skip


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def epochs(curves: Iterable[Sequence[object]]) -> dict[str, Any]:
    """The axis of epochs; there is none between two of them."""
    return axis("epoch", **({"dtick": 1} if max(map(len, curves), default=0) <= 10 else {}))


def bars(title: str, summary: str, keys: Sequence[str], series: Mapping[str, Sequence[float]], *, unit: str) -> Chart:
    """Horizontal bars, one group a key."""
    colours = ("@accent", "@muted")
    traces = [
        {
            "type": "bar", "orientation": "h", "name": each, "y": [label(key) for key in keys], "x": list(values),
            "marker": {"color": colour}, "hovertemplate": "%{y}: %{x:.3f}<extra>" + each + "</extra>",
        }
        for (each, values), colour in zip(series.items(), colours, strict=False)
    ]  # fmt: skip
    return chart(
        title, summary, traces,
        {"xaxis": axis(unit, zeroline=True), "showlegend": len(series) > 1,
         "yaxis": {"type": "category", "autorange": "reversed"},
         "height": 130 + (22 + 10 * len(series)) * len(keys)},
        columns=["parameter", *series], rows=zip(keys, *series.values(), strict=True),
    )  # fmt: skip
