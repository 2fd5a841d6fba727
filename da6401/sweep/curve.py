"""A sweep's trials grouped by the values of one key: a table, and a plot with error bars."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from da6401.errors import RunError
from da6401.runs.atomic_files import write_atomic, write_text
from da6401.runs.run_folder import CONFIG, RunResult, flat, read_result, read_yaml
from da6401.runs.trial_folders import found_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CSV, PNG = "curve.csv", "curve.png"
# Field of result.json, what it is called with its unit, and how a number of it is printed.
MEASURES = (
    ("val_accuracy", "validation accuracy (0 to 1)", "{:.4f}"),
    ("trainable_parameters", "trainable parameters", "{:,.0f}"),
    ("seconds", "time of a run (s)", "{:.1f}"),
    ("peak_memory_mb", "peak memory (MB)", "{:.0f}"),
)


@dataclass(frozen=True)
class Point:
    """The completed trials that have one value of the key."""

    value: Any
    results: tuple[RunResult, ...]

    def numbers(self, name: str) -> list[float]:
        """A measure of each trial."""
        return [float(getattr(result, name)) for result in self.results]

    def mean(self, name: str) -> float:
        """The mean of a measure over the trials."""
        return statistics.fmean(self.numbers(name))

    def deviation(self, name: str) -> float | None:
        """The sample standard deviation (n - 1); None for one trial."""
        return statistics.stdev(self.numbers(name)) if len(self.results) > 1 else None


def write_curve(folder: Path, key: str) -> Table | str:
    """Write curve.csv and curve.png into a sweep's folder, and return the same as a table to print.

    Every completed trial counts: the deviation includes the effect of all other searched keys. Where no completed trial
    has the key, nothing is written, and the text to print says so.
    """
    points = read_points(folder, key)
    if not points:
        return f"sweep.plot_by: no completed trial has the key {escape(key)}"
    write_text(folder / CSV, _csv(points, key))
    write_atomic(folder / PNG, lambda file: draw(points, key).savefig(file, format="png"))
    return _table(points, key)


def read_points(folder: Path, key: str) -> list[Point]:
    """The points of the curve in the order of the key's values, from the trials' config.yaml and result.json."""
    found: dict[str, tuple[Any, list[RunResult]]] = {}
    for run in found_runs(folder):
        try:
            config, result = flat(read_yaml(run / CONFIG)), read_result(run)
        except RunError:  # unfinished or never begun; the table of trials shows it
            continue
        if key in config and result.status == "completed":
            found.setdefault(repr(config[key]), (config[key], []))[1].append(result)
    points = [Point(value, tuple(results)) for value, results in found.values()]
    if all(_is_number(point.value) for point in points):
        return sorted(points, key=lambda point: point.value)
    return sorted(points, key=lambda point: str(point.value))


def draw(points: Sequence[Point], key: str) -> Figure:
    """One panel for each measure: mean, standard deviation and single trials at each value of the key."""
    from matplotlib.figure import Figure  # takes half a second
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    counts = sorted({len(point.results) for point in points})
    trials = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    figure.suptitle(f"{key}: mean, standard deviation and single trials ({trials} for each value)")
    numeric = all(_is_number(point.value) for point in points)
    places = [point.value if numeric else float(place) for place, point in enumerate(points)]
    for axes, (name, label, _) in zip(figure.subplots(2, 2).flat, MEASURES, strict=True):
        _panel(axes, points, places, name, line=numeric)
        axes.set_xlabel(key)
        axes.set_ylabel(label)
        if not numeric:
            axes.set_xticks(places, [str(point.value) for point in points])
        elif all(isinstance(point.value, int) for point in points):
            axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True))
    return figure


def _panel(axes: Axes, points: Sequence[Point], places: Sequence[float], name: str, *, line: bool) -> None:
    from matplotlib.ticker import EngFormatter, StrMethodFormatter

    for place, point in zip(places, points, strict=True):
        axes.plot([place] * len(point.results), point.numbers(name), "o", color="0.6", markersize=3, zorder=1)
    means = [point.mean(name) for point in points]
    deviations = [math.nan if (each := point.deviation(name)) is None else each for point in points]
    axes.errorbar(places, means, yerr=deviations, fmt="o-" if line else "o", markersize=5, capsize=4, zorder=2)
    axes.grid(alpha=0.3)
    if name != "val_accuracy":  # amounts are compared from zero
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        large = name == "trainable_parameters"
        axes.yaxis.set_major_formatter(EngFormatter(sep="") if large else StrMethodFormatter("{x:,.6g}"))


def _table(points: Sequence[Point], key: str) -> Table:
    table = Table(title=f"by {escape(key)}: mean +- standard deviation", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in (key, "n", *(label for _, label, _ in MEASURES)):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for point in points:
        cells = [escape(str(point.value)), str(len(point.results))]
        for name, _, form in MEASURES:
            deviation = point.deviation(name)
            cells.append(form.format(point.mean(name)) + (f" +- {form.format(deviation)}" if deviation else ""))
        table.add_row(*cells)
    return table


def _csv(points: Sequence[Point], key: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key, "n", *(f"{name}_{what}" for name, _, _ in MEASURES for what in ("mean", "std"))])
    for point in points:
        numbers = [number for name, _, _ in MEASURES for number in (point.mean(name), point.deviation(name))]
        writer.writerow(
            [str(point.value), len(point.results), *("" if number is None else number for number in numbers)]
        )
    return text.getvalue()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
