"""`da6401 report outputs`: all runs and sweeps below a folder in one table, the one that was trained last first."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from da6401.errors import RunError
from da6401.metrics.intervals import wilson
from da6401.redact import duration, safe
from da6401.report.blocks import Link, section, table, text
from da6401.report.chosen_run import chosen_run
from da6401.report.run_record import read_cached
from da6401.runs.named_folders import held_in, trained_at
from da6401.runs.run_folder import (
    CONFIG,
    SUMMARY,
    VALIDATION_CSV,
    RunResult,
    holds_run,
    read_json,
    read_result,
    read_yaml,
)
from da6401.runs.trial_folders import found_runs

PAGE = "report.html"  # of a run or a sweep, in its folder
COLUMNS = (
    *("what", "", "last trained", "model", "status", "validation accuracy", "95% interval", "test accuracy"),
    *("time", "parameters", "multiply-accumulates"),
)


def index_sections(folder: Path) -> list[dict[str, Any]]:
    """The table of what a folder holds; what cannot be read is a row that says so."""
    inside = held_in(folder)
    rows = [_row(each, folder) for each in inside]
    runs = sum(row[1] == "run" for row in rows)
    sweeps = len(rows) - runs
    words = f"{sweeps} {'sweep' if sweeps == 1 else 'sweeps'} and {runs} {'run' if runs == 1 else 'runs'}; a sweep's "
    words += "numbers are those of the run that it stands for."
    without = [each for each in inside if not (each / PAGE).is_file()]
    missing = []
    if without:
        them = "One has" if len(without) == 1 else f"{len(without)} have"
        missing = [text(f"{them} no page yet, and a link to the folder: da6401 report FOLDER writes it, as in")]
        missing += [{"kind": "command", "text": f"da6401 report {shlex.quote(str(without[0]))}"}]
    listed = table("The one that was trained last first", COLUMNS, rows)
    return [section("Runs and sweeps", text(words), listed, *missing)]


def _row(each: Path, above: Path) -> list[Any]:
    name = str(each.relative_to(above))
    kind = "run" if holds_run(each) else "sweep"
    time = datetime.fromtimestamp(trained_at(each)).astimezone().strftime("%Y-%m-%d %H:%M")
    path = f"./{name}/{PAGE}" if (each / PAGE).is_file() else f"./{name}/"
    href = quote(os.fsencode(path), safe="/.")  # the bytes, since a name may be no UTF-8
    try:
        own = _run(each) if kind == "run" else _sweep(each)
    except RunError as error:
        own = [None, f"cannot be read: {safe(error)}", *[None] * 6]
    return [Link(safe(name), href), kind, time, *own]


def _sweep(sweep: Path) -> list[Any]:
    """Its cells from model to multiply-accumulates."""
    summary: Mapping[str, Any] = read_cached(sweep / SUMMARY, read_json) or {}
    counts = summary.get("trials")
    states = [f"{count} {name}" for name, count in counts.items() if count] if isinstance(counts, Mapping) else []
    seconds = summary.get("seconds")
    if not isinstance(seconds, (int, float)):
        found = [result for run in found_runs(sweep) if (result := read_cached(run / "result.json", _result))]
        seconds, states = sum(result.seconds for result in found), [f"{len(found)} ended, the sweep has not"]
    try:
        run = chosen_run(sweep).folder
    except RunError:
        return [None, ", ".join(states) or "no trial yet", None, None, None, duration(seconds), None, None]
    model, _, *reached, _, parameters, macs = _run(run)
    return [model, ", ".join(states), *reached, duration(seconds), parameters, macs]


def _run(run: Path) -> list[Any]:
    """Its cells from model to multiply-accumulates."""
    config = read_cached(run / CONFIG, read_yaml) or {}
    model = config.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    result = read_cached(run / "result.json", _result)
    if result is None:
        return [name, "unfinished", *[None] * 6]
    interval = None
    if result.val_accuracy is not None and (count := read_cached(run / VALIDATION_CSV, _images)):
        low, high = wilson(result.val_accuracy, count)
        interval = f"{low:.3f} to {high:.3f}"
    return [
        name, result.status, result.val_accuracy, interval, result.test_accuracy, duration(result.seconds),
        result.parameters, result.macs,
    ]  # fmt: skip


def _result(path: Path) -> RunResult:
    return read_result(path.parent)


def _images(path: Path) -> int:
    """The images of a file of predictions, which has a line each."""
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1
