"""reproduce: a saved config trained again in a new folder, and what agrees and what differs."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from da6401.config.compose import saved_config
from da6401.config.quoting import quoted
from da6401.config.validate import tree_of
from da6401.errors import RunError
from da6401.redact import safe
from da6401.runs.run_folder import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    NO_EFFECT_ON_WEIGHTS,
    RECEIPT,
    RESULT,
    RunResult,
    differences,
    read_json,
    read_metrics,
    read_result,
)
from da6401.training.checkpoint import load_checkpoint, model_state, weights_sha256
from da6401.training.run import run

NOT_REPRODUCED = 4
# Where things lie and what is watched: keys that move no bit, besides those of NO_EFFECT_ON_WEIGHTS.
PLACES = re.compile(r"data\.(root|cache\w*)|tracking\..*")
# What of a receipt can move the metrics, the likeliest first, and what it is called.
RECORDED = {
    "data_fingerprint": "data fingerprint",
    "seed": "seed",
    "device": "device",
    "device_name": "device's name",
    "threads": "threads",
    "git_commit": "code: commit",
    "git_dirty": "code: dirty diff",
    "packages": "packages",
    "torch_build": "torch's build",
    "python": "python",
}
TIMINGS = frozenset({"seconds", "images_per_second"})  # of a line of metrics: these differ from run to run
PIPE_WIDTH = 160  # characters of a table through a pipe
LONGEST = 60  # characters of a value in the table


@dataclass(frozen=True)
class Record:
    """What a run folder says of its run; of a stranger's or unfinished folder, what is there."""

    receipt: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    result: RunResult | None
    weights: str | None  # sha256 after the last epoch
    best: str | None  # sha256 of best.pt's weights

    @property
    def complete(self) -> bool:
        """Whether the run came to the end that its config asks for."""
        return self.result is not None and self.result.status in ("completed", "diverged")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    then: Any
    now: Any

    @property
    def agrees(self) -> bool:
        return bool(self.then == self.now)


def reproduce_run(folder: Path, overrides: Sequence[str]) -> int:
    """Train a saved configuration again in a new folder and say what agrees and what differs.

    Returns:
        0 where every metric of every epoch is identical, NOT_REPRODUCED where one is not.

    Raises:
        UserError: the folder, an override or the data cannot be used; DivergedError as the run.
    """
    before = saved_config(folder / CONFIG)
    cfg = saved_config(folder / CONFIG, quoted(overrides))
    then = read_record(folder)  # before the training: a damaged folder costs no hours
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parent = folder.parent if os.access(folder.parent, os.W_OK) else Path("outputs", "runs")
    name = folder.name or folder.resolve().name
    again = parent / f"{name}-again-{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    run(cfg, again)
    now = read_record(again)

    changes = differences(tree_of(before), tree_of(cfg))
    settings = [Row(f"config {key}", old, new) for key, old, new in changes] or [Row("config", "as saved", "as saved")]
    settings += list(recorded_rows(then.receipt, now.receipt))
    metrics = list(metric_rows(then, now))
    console = Console() if Console().is_terminal else Console(width=PIPE_WIDTH)
    console.print(f"then: {escape(safe(folder))}\nnow:  {escape(safe(again))}", soft_wrap=True, highlight=False)
    console.print(_table([*settings, *metrics, *weight_rows(then, now)]))
    moved = [key for key, _, _ in changes if not (NO_EFFECT_ON_WEIGHTS.fullmatch(key) or PLACES.fullmatch(key))]
    if changes:
        console.print(f"changed as asked: {escape(safe(', '.join(key for key, _, _ in changes)))}", soft_wrap=True)
    if not then.complete:
        print(f"the run of then did not end: its {len(then.metrics)} finished epochs are compared")
    if then.metrics and all(row.agrees for row in metrics):
        print(f"reproduced: identical metrics in all {len(then.metrics)} epochs")
        return 0
    suspects = [f"config {key}" for key in moved]
    suspects += [row.what for row in settings if not (row.agrees or row.what.startswith("config"))]
    if not then.metrics:
        suspects = ["the run of then has no finished epoch to compare with"]
    cause = ", ".join(suspects[:3]) or "nothing that was recorded; is trainer.deterministic off?"
    print(f"not reproduced; the likely cause: {safe(cause)}")
    return NOT_REPRODUCED


def read_record(folder: Path) -> Record:
    """The receipt, the metrics, the result and the hashes of the weights, where they are there.

    Raises:
        RunError: one of them is damaged.
    """
    result = read_result(folder) if (folder / RESULT).exists() else None
    return Record(
        receipt=read_json(folder / RECEIPT) if (folder / RECEIPT).exists() else {},
        metrics=read_metrics(folder) if (folder / METRICS).exists() else [],
        result=result,
        weights=(result and result.weights_sha256) or _weights_of(folder / LAST),
        best=(result and result.best_weights_sha256) or _weights_of(folder / BEST),
    )


def _weights_of(path: Path) -> str | None:
    try:
        return weights_sha256(model_state(load_checkpoint(path)))
    except RunError:
        return None  # a sweep may have removed it, and result.json is the place where its hash should be


def recorded_rows(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Row]:
    """What the two receipts say, package by package where those differ."""
    for key, what in RECORDED.items():
        old, new = then.get(key), now.get(key)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            yield Row(what, old, new)
        elif old == new:
            yield Row(what, f"{len(old)} as now", f"{len(new)} as now")
        else:
            yield from (Row(f"{what}.{name}", a, b) for name, a, b in differences(old, new))


def metric_rows(then: Record, now: Record) -> Iterator[Row]:
    """Each metric: in the first epoch in which it differs, else in the last. A missing epoch differs."""
    count = max(len(then.metrics), len(now.metrics)) if then.complete else len(then.metrics)
    names = dict.fromkeys(name for line in [*then.metrics, *now.metrics] for name in line if name not in TIMINGS)
    for name in names:
        pairs = [(_at(then.metrics, index, name), _at(now.metrics, index, name)) for index in range(count)]
        if pairs:
            unlike = [index for index, (old, new) in enumerate(pairs) if old != new]
            index = unlike[0] if unlike else count - 1
            if name == "epoch" and not unlike:
                continue
            yield Row(f"{name}, epoch {index + 1}", *pairs[index])


def _at(lines: Sequence[Mapping[str, float]], index: int, name: str) -> float | None:
    value = lines[index].get(name, math.nan) if index < len(lines) else math.nan
    return None if math.isnan(value) else value


def weight_rows(then: Record, now: Record) -> Iterator[Row]:
    """The hashes of the weights, after the last epoch and in best.pt."""
    yield Row("weights, last (sha256)", then.weights, now.weights)
    yield Row("weights, best (sha256)", then.best, now.best)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("what", "", "then", "now"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        verdict = "agrees" if row.agrees else "not recorded" if row.then is None else "DIFFERS"
        if row.agrees and row.then is None:
            verdict = "agrees" if row.what.startswith("code") else "not recorded"
        table.add_row(*(escape(_cell(text)) for text in (row.what, verdict, row.then, row.now)))
    return table


def _cell(value: Any) -> str:
    text = "-" if value is None else safe(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return text[:16]
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
