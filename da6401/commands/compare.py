"""`da6401 compare`: the keys in which runs differ, their results and their curves. It imports no torch."""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from da6401.commands.side_by_side import RECORDED, side_by_side
from da6401.config.metrics import names_of
from da6401.errors import RunError
from da6401.machine.terminal import table_console
from da6401.metrics.intervals import wilson
from da6401.redact import safe
from da6401.report.paired_lines import paired_lines
from da6401.report.run_record import RunRecord, read_run
from da6401.runs.looks import comparison_warnings
from da6401.runs.run_folder import CONFIG, differences, flat, read_yaml

INTERVAL = "95% interval"
REACHED = (
    *("status", "val_accuracy", f"val_accuracy: {INTERVAL}", "val_loss", "best_epoch", "epochs_run"),
    *("test_accuracy", f"test_accuracy: {INTERVAL}", "test_loss"),
    "test_looks",  # how often the test split was looked at
    *("parameters", "macs", "seconds"),
)
CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*%#"
CURVE_WIDTH = 50  # characters of a curve; longer runs are thinned out
BESIDE_CURVE = 56  # characters of the columns beside it


def compare_runs(folders: Sequence[Path]) -> int:
    """Print what differs between runs; of unfinished ones, what there is so far.

    Raises:
        RunError: fewer than two, more than there are letters, or a folder without a readable run.
    """
    if not 2 <= len(folders) <= len(string.ascii_uppercase):
        raise RunError(f"compare takes 2 to {len(string.ascii_uppercase)} run folders, not {len(folders)}")
    labels = string.ascii_uppercase[: len(folders)]
    _refuse_one_twice(folders)
    runs = [read_run(folder, predictions=True) for folder in folders]
    differing = differences(*map(_settings, runs))
    console = table_console()
    for label, folder in zip(labels, folders, strict=True):
        console.print(f"{label}  {escape(safe(folder))}", soft_wrap=True, highlight=False)

    headings = ("", *labels)
    if differing:
        console.print(side_by_side(headings, map(_rounded, differing), title="keys that differ"))
    else:
        console.print("\nno key differs: config, data, code, versions and device are the same")
    reached = [_reached(run) for run in runs]
    rows = [[name, *(each.get(name) for each in reached)] for name in REACHED]
    known = [_rounded(row) for row in rows if any(value is not None for value in row[1:])]
    console.print(side_by_side(headings, known, title="reached"))
    for line in paired_lines(labels, runs):
        console.print(escape(line), soft_wrap=True, highlight=False)
    for warning in comparison_warnings(folders):
        console.print(escape(warning), soft_wrap=True, highlight=False)
    for name in CURVES:
        curves = [[line[name] for line in run.epochs if name in line] for run in runs]
        if any(curves):
            console.print(_curves(name, labels, curves, width=min(CURVE_WIDTH, console.width - BESIDE_CURVE)))
    return 0


def _refuse_one_twice(folders: Sequence[Path]) -> None:
    """Two words may name one run, such as a study and `latest`: nothing would differ, and that would be no result."""
    places: dict[Path, int] = {}
    for index, folder in enumerate(folders):
        first = places.setdefault(folder.resolve(), index)
        if first != index:
            raise RunError(
                f"compare: names {first + 1} and {index + 1} are the same run, {safe(folder)}; name two different ones"
            )


def sparkline(values: Sequence[float], *, low: float, high: float, marks: str, width: int = CURVE_WIDTH) -> str:
    """A curve in one line of text: each value as one of ``marks``, from low to high; thinned out to the width."""
    count = max(1, min(len(values), width))
    # The last of each group of epochs, so that the curve ends where the run ended.
    chosen = [values[math.ceil((place + 1) * len(values) / count) - 1] for place in range(count)]
    span = (high - low) or 1.0
    return "".join(marks[min(len(marks) - 1, int((value - low) / span * len(marks)))] for value in chosen)


def _reached(run: RunRecord) -> dict[str, Any]:
    result = run.result
    found = {**(vars(result) if result else {}), "status": run.status, "test_looks": len(run.looks)}
    shares = {"validation": result.val_accuracy, "test": result.test_accuracy} if result else {}
    for split, value in shares.items():
        if value is not None and (answers := run.predictions.get(split)):
            low, high = wilson(value, len(answers.labels_N))
            found[f"{'val' if split == 'validation' else split}_accuracy: {INTERVAL}"] = f"{low:.3f} to {high:.3f}"
    return found


def _settings(run: RunRecord) -> dict[str, Any]:
    config = flat(run.config or read_yaml(run.folder / CONFIG))  # which raises: there is none
    if "sweep.objectives" in config:  # older configs have them as one text
        config["sweep.objectives"] = names_of(config["sweep.objectives"])
    recorded = {name: run.receipt.get(name) for name in RECORDED if name != "seed"}  # that is in the config
    return config | flat(recorded, "receipt: ")


def _rounded(row: Sequence[Any]) -> list[Any]:
    return [f"{value:.6g}" if isinstance(value, float) else value for value in row]


def _curves(name: str, labels: str, curves: Sequence[Sequence[float]], *, width: int) -> Table:
    every = [value for values in curves for value in values]
    best = max if name.endswith("accuracy") else min
    marks = BLOCKS if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN
    rows = []
    for label, values in zip(labels, curves, strict=True):
        if not values:
            rows.append([label, 0, *[None] * 5])
            continue
        top = best(values)
        line = sparkline(values, low=min(every), high=max(every), marks=marks, width=width)
        ends = (f"{value:.4f}" for value in (values[0], values[-1], top))
        rows.append([label, len(values), line, *ends, values.index(top) + 1])
    headings = ("", "epochs", "curve, one scale" if width > 15 else "curve", "first", "last", "best", "in epoch")
    return side_by_side(headings, rows, title=name, no_wrap=True)
