"""Charts as plain dictionaries for Plotly: traces, layout, one sentence that says what is to be seen, and the data.

Colours are names such as "@accent", which the page resolves in its light or dark palette. Every text that comes from
outside passes ``label``: Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from da6401.redact import printable

Chart = dict[str, Any]
LONGEST = 40  # characters of a label
MOST_OUTSIDE = 1 / 3  # of the values: where more are bad, they are part of the picture
WORTH_A_CUT = 1.5  # times the range without the worst values, from which on they are marked at the edge


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


def shown_value(value: object) -> str:
    """A parameter's value as it is written in a configuration."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Focus:
    """The part of an axis that shows the better values at full size; worse ones are marked at its edge.

    One diverged trial would otherwise press all the others into a line.
    """

    low: float
    high: float
    edge: float  # where a value is marked that is outside, or that there is none of
    maximise: bool
    is_cut: bool  # whether any value is outside

    @classmethod
    def on(cls, values: Sequence[float], *, maximise: bool) -> Focus:
        """The range of these values; at most three times as wide as that of their better half."""
        if not values:
            return cls(0.0, 1.0, -0.08, maximise, False)
        ordered = sorted(values, reverse=maximise)
        best, worst, middle = ordered[0], ordered[-1], ordered[(len(ordered) - 1) // 2]
        limit = best - 3 * (best - middle)
        inside = [value for value in ordered if (value >= limit if maximise else value <= limit)]
        last = inside[-1]
        is_worth_it = last != best and abs(best - worst) > WORTH_A_CUT * abs(best - last)
        is_cut = is_worth_it and len(ordered) - len(inside) <= MOST_OUTSIDE * len(ordered)
        last = last if is_cut else worst
        edge = last - 0.08 * ((best - last) or (1.0 if maximise else -1.0))
        return cls(min(best, last), max(best, last), edge, maximise, is_cut)

    @property
    def side(self) -> str:
        return "bottom" if self.maximise else "top"

    @property
    def symbol(self) -> str:
        """Of a value outside."""
        return "arrow-down" if self.maximise else "arrow-up"

    @property
    def axis(self) -> dict[str, Any]:
        """What an axis needs so that it ends at the edge; {} where nothing is outside."""
        if not self.is_cut:
            return {}
        best = self.high if self.maximise else self.low
        return {"range": sorted([self.edge - 0.04 * (best - self.edge), best + 0.06 * (best - self.edge)])}

    def holds(self, value: float) -> bool:
        return not self.is_cut or self.low <= value <= self.high

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        return value if self.holds(value) else self.edge

    def sentence(self, values: Iterable[float | None]) -> str:
        """What is marked at the edge, to follow another sentence; "" where nothing is."""
        outside = [value for value in values if value is not None and not self.holds(value)]
        if not outside:
            return ""
        worst = number(min(outside) if self.maximise else max(outside))
        reach = f"down to {worst}" if self.maximise else f"up to {worst}"
        verb = "trial lies" if len(outside) == 1 else "trials lie"
        return f" The axis shows the better part: {len(outside)} {verb} outside, at the {self.side} ({reach})."


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
