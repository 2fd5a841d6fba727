"""What a notebook shows of a run or a sweep: a title, a table and a small picture, everything escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from da6401.redact import safe

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#888888", "#2f7ed8")  # readable on white and on black
DPI = 144  # of the picture, which is shown at 72: sharp on a dense screen


def number(value: object) -> str:
    """A cell: floats with four significant digits, nothing for None and NaN, anything else as it is."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def card(title: str, *content: str) -> str:
    """HTML under a title; the content is HTML already."""
    return f"<div><strong>{escape(safe(title))}</strong>{''.join(content)}</div>"


def table(frame: pd.DataFrame, *, header: bool = True) -> str:
    """An HTML table of any values, with the frame's index as its first column."""
    return frame.map(lambda value: safe(number(value))).rename(columns=safe).to_html(header=header, border=0)


def chart(curves: Mapping[str, Sequence[float]], *, points: Sequence[str], what: str, over: str) -> str:
    """An HTML image of at most two series over 1, 2, ...; empty where there are no two places.

    Args:
        points: the series whose values are points, without a line between them.
        what: the name of the values. over: of the places.
    """
    if max(map(len, curves.values())) < 2:
        return ""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    grey = {f"{part}color": COLOURS[0] for part in ("axes.edge", "axes.label", "xtick.", "ytick.")}
    with style.context(["default", {**grey, "font.size": 12, "text.parse_math": False}]):
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = figure.subplots()
        for (name, series), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(range(1, len(series) + 1), series, "o" if name in points else "-", color=colour, label=name)
        axes.set(xlabel=over, ylabel=what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor="linecolor")
        axes.spines[["top", "right"]].set_visible(False)
        png = io.BytesIO()
        figure.savefig(png, dpi=DPI, transparent=True)
    source = base64.b64encode(png.getvalue()).decode("ascii")
    alt = escape(safe(f"{what} over {over}: {', '.join(curves)}"))
    return f'<img src="data:image/png;base64,{source}" width="{72 * 7.2:.0f}" alt="{alt}"/>'
