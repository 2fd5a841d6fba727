"""What a notebook shows of a run or a sweep: small, without styles or scripts of its own, everything escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from da6401.redact import safe

WIDTH, HEIGHT = 380, 130  # px of the plotting area
LEFT, TOP, RIGHT, BOTTOM = 52, 12, 96, 34  # px around it, for the labels
COLOURS = ("#888888", "#2f7ed8")  # readable on white and on black


def number(value: object) -> str:
    """A cell: floats with four significant digits, nothing for None and NaN, anything else as it is."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def card(title: str, content: str) -> str:
    """HTML under a title; the content is HTML already."""
    return f"<div><strong>{_text(title)}</strong>{content}</div>"


def table(rows: Iterable[Iterable[object]], headings: Sequence[object] = ()) -> str:
    """An HTML table of any values."""

    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{line(headings, 'th')}</thead>" if headings else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def chart(curves: Mapping[str, Sequence[float]], *, scattered: Sequence[str], what: str, over: str) -> str:
    """An SVG of at most two series over 1, 2, ..., each named at its end; empty where there are no two places.

    Args:
        scattered: the series whose values are points, without a line between them.
        what: the name of the values. over: of the places.
    """
    count = max(map(len, curves.values()))
    if count < 2:
        return ""
    values = [value for series in curves.values() for value in series]
    low, high, bottom = min(values), max(values), TOP + HEIGHT
    parts, names = [], []
    for (name, series), colour in zip(curves.items(), COLOURS, strict=False):
        points = [
            (LEFT + WIDTH * index / (count - 1), TOP + HEIGHT * (high - value) / ((high - low) or 1.0))
            for index, value in enumerate(series)
        ]
        if name in scattered:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        else:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        names.append((points[-1][1] + 4, name, colour))
    free = -math.inf
    for y, name, colour in sorted(names):  # one below the other where they would cover each other
        free = max(y, free + 14)
        parts.append(_label(LEFT + WIDTH + 8, free, name, "start", colour))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{LEFT + WIDTH}" fill="none" stroke="currentColor" opacity="0.4"/>')
    parts += [_label(LEFT - 6, y, number(value), "end") for y, value in ((TOP + 4, high), (bottom, low))]
    parts += [_label(LEFT + shift, bottom + 16, text, "middle") for shift, text in ((0, "1"), (WIDTH, str(count)))]
    parts.append(_label(LEFT + WIDTH / 2, bottom + 28, f"{what} over {over}", "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{TOP + HEIGHT + BOTTOM}" '
        f'font-size="12" role="img" aria-label="{_text(f"{what} over {over}")}">{"".join(parts)}</svg>'
    )


def _label(x: float, y: float, text: str, anchor: str, colour: str = "currentColor") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{_text(text)}</text>'


def _text(value: object) -> str:
    return escape(safe(value))
