"""`da6401 reproduce`: a saved config trained again in a new folder, and what agrees and what differs."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from da6401.commands.data_of_run import data_of_run
from da6401.commands.side_by_side import RECORDED, side_by_side
from da6401.config.compose import saved_config
from da6401.config.quoting import from_shell
from da6401.config.validate import tree_of
from da6401.errors import RunError
from da6401.machine.terminal import table_console
from da6401.plugins.needed import plugins_of
from da6401.redact import safe
from da6401.report.run_record import RunRecord, read_run
from da6401.runs.members import read_members
from da6401.runs.run_folder import AVERAGE, BEST, CONFIG, LAST, NO_EFFECT_ON_WEIGHTS, differences
from da6401.runs.trial_folders import fold_folders
from da6401.training.checkpoint import load_checkpoint, model_state, weights_sha256
from da6401.training.run import run

NOT_REPRODUCED = 4
# Where files are and what is tracked: keys without effect on the weights, besides those of NO_EFFECT_ON_WEIGHTS.
PLACES = re.compile(r"data\.(root|cache\w*)|tracking\..*")
Epoch = Mapping[str, float]
TIMINGS = frozenset({"seconds", "images_per_second"})  # of a line of metrics: these differ from run to run


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
        0 where every metric of every epoch is identical, NOT_REPRODUCED where one is not. 0 where an override adds the
        validation images to the training: then nothing is compared.

    Raises:
        UserError: the folder, an override or the data cannot be used; DivergedError as the run.
    """
    members = read_members(folder)
    if members is not None:  # a race's model: each network of it
        return max(reproduce_run(folder.parent / name, overrides) for name in members.runs)
    if folds := fold_folders(folder):  # a trial of several trainings: each of them
        return max(reproduce_run(fold, overrides) for fold in folds)
    with plugins_of(folder):
        return _reproduced(folder, overrides)


def _reproduced(folder: Path, overrides: Sequence[str]) -> int:
    before = saved_config(folder / CONFIG)
    cfg = saved_config(folder / CONFIG, from_shell(overrides))
    then = read_run(folder)  # before the training: a damaged folder costs no hours
    hashes_then = weight_hashes(then)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    on_all = cfg.trainer.train_on == "all" != before.trainer.train_on
    beside = os.access(folder.parent, os.W_OK) and not on_all  # else a sweep would count it among its trials
    parent = folder.parent if beside else Path("outputs", "runs")
    name = folder.name or folder.resolve().name
    again = parent / f"{name}-{'all' if on_all else 'again'}-{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    with data_of_run(folder, before.data, else_try="add data.root=PATH"):
        run(cfg, again)
    if on_all:  # other images: nothing to compare
        print(f"test it: {shlex.join(['da6401', 'evaluate', str(again)])}")
        return 0
    now = read_run(again)
    ended = then.result is not None and then.result.status in ("completed", "diverged")

    changes = differences(tree_of(before), tree_of(cfg))
    settings = [Row(f"config {key}", old, new) for key, old, new in changes] or [Row("config", "as saved", "as saved")]
    settings += list(recorded_rows(then.receipt, now.receipt))
    metrics = list(metric_rows(then.epochs, now.epochs, ended=ended))
    weights = [Row(what, hashes_then.get(what), sha256) for what, sha256 in weight_hashes(now).items()]
    rows = ([row.what, _verdict(row), row.then, row.now] for row in (*settings, *metrics, *weights))
    console = table_console()
    console.print(f"then: {escape(safe(folder))}\nnow:  {escape(safe(again))}", soft_wrap=True, highlight=False)
    console.print(side_by_side(("what", "", "then", "now"), rows))
    if changes:
        console.print(f"changed as asked: {escape(safe(', '.join(key for key, _, _ in changes)))}", soft_wrap=True)
    if not ended:
        print(f"the earlier run did not end: its {len(then.epochs)} finished epochs are compared")
    if then.epochs and all(row.agrees for row in metrics):
        print(f"reproduced: identical metrics in all {len(then.epochs)} epochs")
        return 0
    changed = [key for key, _, _ in changes if not (NO_EFFECT_ON_WEIGHTS.fullmatch(key) or PLACES.fullmatch(key))]
    suspects = [f"config {key}" for key in changed]
    suspects += [row.what for row in settings if not (row.agrees or row.what.startswith("config"))]
    if not then.epochs:
        suspects = ["the earlier run has no finished epoch to compare with"]
    cause = ", ".join(suspects[:3]) or "nothing that was recorded; is trainer.deterministic off?"
    print(f"not reproduced; the likely cause: {safe(cause)}")
    return NOT_REPRODUCED


def weight_hashes(record: RunRecord) -> dict[str, str | None]:
    """The sha256 of the last epoch's, of the best and of the averaged weights, from result.json or the checkpoints."""
    result = record.result
    averaged = _hash_of(record.folder / AVERAGE)
    return {
        "weights, last (sha256)": (result and result.weights_sha256) or _hash_of(record.folder / LAST),
        "weights, best (sha256)": (result and result.best_weights_sha256) or _hash_of(record.folder / BEST),
        **({"weights, averaged (sha256)": averaged} if averaged else {}),
    }


def _hash_of(checkpoint: Path) -> str | None:
    try:
        return weights_sha256(model_state(load_checkpoint(checkpoint)))
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


def metric_rows(then: Sequence[Epoch], now: Sequence[Epoch], *, ended: bool) -> Iterator[Row]:
    """Each metric: in the first epoch in which it differs, else in the last. A missing epoch differs.

    Args:
        ended: ``then`` is a whole run; otherwise only its own epochs are compared.
    """
    count = max(len(then), len(now)) if ended else len(then)
    names = dict.fromkeys(name for line in [*then, *now] for name in line if name not in TIMINGS)
    for name in names:
        pairs = [(_at(then, index, name), _at(now, index, name)) for index in range(count)]
        if pairs:
            unlike = [index for index, (old, new) in enumerate(pairs) if old != new]
            index = unlike[0] if unlike else count - 1
            if name == "epoch" and not unlike:
                continue
            yield Row(f"{name}, epoch {index + 1}", *pairs[index])


def _at(lines: Sequence[Epoch], index: int, name: str) -> float | None:
    value = lines[index].get(name, math.nan) if index < len(lines) else math.nan
    return None if math.isnan(value) else value


def _verdict(row: Row) -> str:
    if row.then is None and not (row.agrees and row.what.startswith("code")):
        return "not recorded"
    return "agrees" if row.agrees else "DIFFERS"
