"""compare: several runs side by side: the keys that differ, what they reached, and their curves. Torch stays out."""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from da6401.config.metrics import names_of
from da6401.errors import RunError
from da6401.redact import safe
from da6401.runs.looks import comparison_warnings, read_looks
from da6401.runs.run_folder import (
    CONFIG,
    METRICS,
    RECEIPT,
    RESULT,
    flat,
    read_json,
    read_metrics,
    read_result,
    read_yaml,
)

RECORDED = ("data_fingerprint", "device", "device_name", "threads", "git_commit", "git_dirty", "packages", "python")
REACHED = (
    *("status", "val_accuracy", "val_loss", "best_epoch", "epochs_run", "test_accuracy", "test_loss"),
    "test_looks",  # how often the test split was looked at
    *("parameters", "macs", "seconds"),
)
CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*%#"
CURVE_WIDTH = 50  # characters of a curve; longer runs are thinned out
PIPE_WIDTH = 160  # characters of a table through a pipe
LONGEST = 40  # characters of a value in a table


def compare_runs(folders: Sequence[Path]) -> int:
    """Print what differs between runs; unfinished ones are shown as far as they came.

    Raises:
        RunError: fewer than two, more than there are letters, or a folder without a readable run.
    """
    if not 2 <= len(folders) <= len(string.ascii_uppercase):
        raise RunError(f"compare takes 2 to {len(string.ascii_uppercase)} run folders, not {len(folders)}")
    labels = string.ascii_uppercase[: len(folders)]
    settings = [_settings(folder) for folder in folders]
    reached = [_reached(folder) for folder in folders]
    curves = [read_metrics(folder) if (folder / METRICS).exists() else [] for folder in folders]
    console = Console() if Console().is_terminal else Console(width=PIPE_WIDTH)
    for label, folder in zip(labels, folders, strict=True):
        console.print(f"{label}  {escape(safe(folder))}", soft_wrap=True, highlight=False)

    names = dict.fromkeys(name for each in settings for name in each)
    unlike = [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]
    if unlike:
        console.print(_table("keys that differ", labels, {name: [s.get(name) for s in settings] for name in unlike}))
    else:
        console.print("\nno key differs: config, data, code, versions and device are the same")
    console.print(_table("reached", labels, {name: [each.get(name) for each in reached] for name in REACHED}))
    for told in comparison_warnings(folders):
        console.print(escape(told), soft_wrap=True, highlight=False)
    for name in CURVES:
        console.print(_curves(name, labels, [[line[name] for line in lines if name in line] for lines in curves]))
    return 0


def sparkline(values: Sequence[float], *, low: float, high: float, marks: str) -> str:
    """A curve in one line of text: each value as one of ``marks``, from low to high; thinned out to CURVE_WIDTH."""
    count = min(len(values), CURVE_WIDTH)
    # The last of each group of epochs, so that the curve ends where the run ended.
    chosen = [values[math.ceil((place + 1) * len(values) / count) - 1] for place in range(count)]
    span = (high - low) or 1.0
    return "".join(marks[min(len(marks) - 1, int((value - low) / span * len(marks)))] for value in chosen)


def _settings(folder: Path) -> dict[str, Any]:
    receipt = read_json(folder / RECEIPT) if (folder / RECEIPT).exists() else {}
    config = flat(read_yaml(folder / CONFIG))
    if "sweep.objectives" in config:  # older configs have them as one text
        config["sweep.objectives"] = names_of(config["sweep.objectives"])
    return config | flat({name: receipt.get(name) for name in RECORDED}, "receipt: ")


def _reached(folder: Path) -> dict[str, Any]:
    reached = vars(read_result(folder)) if (folder / RESULT).exists() else {"status": "unfinished"}
    return {**reached, "test_looks": len(read_looks(folder))}


def _table(title: str, labels: str, rows: Mapping[str, Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", *labels):
        table.add_column(heading, overflow="fold")
    for name, values in rows.items():
        table.add_row(*(escape(text) for text in (safe(name), *map(_cell, values))))
    return table


def _curves(name: str, labels: str, curves: Sequence[Sequence[float]]) -> Table:
    every = [value for values in curves for value in values]
    best = max if name.endswith("accuracy") else min
    marks = BLOCKS if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "epochs", "curve, one scale for all", "first", "last", "best", "in epoch"):
        table.add_column(heading, no_wrap=True)
    for label, values in zip(labels, curves, strict=True):
        if not values:
            table.add_row(label, "0", "-", "-", "-", "-", "-")
            continue
        top = best(values)
        line = sparkline(values, low=min(every), high=max(every), marks=marks)
        ends = (f"{values[0]:.4f}", f"{values[-1]:.4f}", f"{top:.4f}")
        table.add_row(label, str(len(values)), line, *ends, str(values.index(top) + 1))
    return table


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else safe(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
