"""The end of sweep.minutes: what a process does in which something hangs, and the error where no trial has finished."""

from __future__ import annotations

import logging
import math
import os
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from da6401.errors import AllFailedError, RunError
from da6401.redact import duration, safe
from da6401.runs.run_folder import CONFIG, read_metrics, read_yaml
from da6401.runs.trial_folders import MODEL, trial_folder
from da6401.study.roles import EPOCHS
from da6401.sweep import worker_pool
from da6401.sweep.hand_over import keep_best
from da6401.sweep.model_folder import HandedOver
from da6401.sweep.race_costs import START_SECONDS
from da6401.sweep.run_trials import trained_so_far
from da6401.sweep.summary import write_summary
from da6401.sweep.trial_timeout import landing_seconds

if TYPE_CHECKING:
    from da6401.sweep.prepare import Sweep

log = logging.getLogger(__name__)

KEEP_SECONDS = 2.0  # for the model, where something hangs and the time is over
ROOM_FOR_ERROR = 1.25  # of what is still to be trained: a busy machine becomes slower


def end_here(sweep: Sweep, reason: str) -> None:
    """End this process at the end of sweep.minutes, whatever hangs in it; the leader writes model and summary before.

    The exit code is 1 if no trial has finished.
    """
    log.error("%s: this process ends", reason)
    problem = None if worker_pool.is_worker() else not_in_time(sweep)
    if not worker_pool.is_worker():
        handed = _keep_in_time(sweep)
        write_summary(sweep.study, sweep.folder, sweep.settings, seconds=sweep.clock.spent, confirmed=(), handed=handed)
        if problem is not None:
            log.error("%s", problem)
    logging.shutdown()
    os._exit(0 if problem is None else problem.exit_code)


def _keep_in_time(sweep: Sweep) -> HandedOver | None:
    """As ``keep_best`` of a race, which may hang, too."""
    kept: list[HandedOver | None] = []
    if sweep.race is not None:
        thread = threading.Thread(
            target=lambda: kept.append(keep_best(sweep.folder, trained_so_far(sweep), seconds=sweep.clock.spent)),
            daemon=True,
        )
        thread.start()
        thread.join(KEEP_SECONDS)
    return kept[0] if kept else None


def not_in_time(sweep: Sweep) -> AllFailedError | None:
    """The error of a sweep whose minutes were over before a trial finished: how many would do."""
    trials = sweep.study.get_trials(deepcopy=False)
    if sweep.clock.limit == math.inf or any(trial.state.is_finished() for trial in trials):
        return None
    begun = max(((trial, *progress(sweep, trial)) for trial in trials), key=lambda each: each[1], default=None)
    trial, done, wanted, seconds = begun or (None, 0, 0, 0.0)
    needed = max(sweep.clock.limit, sweep.clock.spent)
    least = sweep.race.least_seconds if sweep.race is not None else None
    needed += _seconds_to_start(sweep, trials)
    if trial is not None and done:
        reserve = landing_seconds(sweep.clock) if sweep.race is None else sweep.race.reserve
        needed += ROOM_FOR_ERROR * (wanted - done) * seconds + reserve
        each = duration(seconds) if seconds >= 1 else f"{seconds:.2g} s"
        told = f"trial {trial.number} did {done} of its {wanted} epochs, {each} each"
    else:
        needed += least if least is not None else needed
        told = "none has done an epoch"
    name = safe(sweep.study.study_name)
    there = f"; {safe(sweep.folder / MODEL)} is its best network so far" if (sweep.folder / MODEL).is_dir() else ""
    return AllFailedError(
        f"sweep.minutes={sweep.clock.limit / 60:g} are over, and no trial has finished: {told}{there}. With "
        f"study={name} and sweep.minutes={math.ceil(10 * needed / 60) / 10:g} (tune: --minutes) the same command goes "
        "on from there"
    )


def _seconds_to_start(sweep: Sweep, trials: Sequence[FrozenTrial]) -> float:
    """What the same command takes until a trial trains again: as long as this one took, and the trial's own start."""
    began = datetime.now() - timedelta(seconds=time.perf_counter() - sweep.started)
    starts = [trial.datetime_start for trial in trials if trial.datetime_start and trial.datetime_start > began]
    return START_SECONDS + (min(starts) - began).total_seconds() if starts else 0.0


def progress(sweep: Sweep, trial: FrozenTrial) -> tuple[int, int, float]:
    """Of an unfinished trial: the epochs that were done and that are wanted, and the seconds of one."""
    run = trial_folder(sweep.folder, trial)
    try:
        lines, trainer = read_metrics(run), read_yaml(run / CONFIG).get("trainer", {})
        wanted = int(trial.user_attrs.get(EPOCHS, trainer.get("epochs", 0)))
        return len(lines), wanted, statistics.fmean(line["seconds"] for line in lines)
    except (RunError, KeyError, TypeError, ValueError, AttributeError):  # it has not begun
        return 0, 0, 0.0
