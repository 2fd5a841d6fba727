"""Ends a trial after sweep.trial_minutes, and a sweep after sweep.minutes, also where code hangs outside Python."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.errors import OutOfTimeError
from da6401.study.clock import Clock
from da6401.sweep import worker_pool
from da6401.training.signals import TimeLimit, limit_runs

GRACE_SECONDS = 30.0  # after sweep.trial_minutes, until a process that has not checked it is killed
LANDING_SECONDS = 4.0  # before the end of sweep.minutes: for a run's last checkpoint and the summary
MOST_LANDING = 0.2  # of sweep.minutes, on a busy machine


def landing_seconds(clock: Clock) -> float:
    """Seconds to keep for the end: LANDING_SECONDS, and as many times that as the machine has more work than cores."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return min(LANDING_SECONDS * max(1.0, busy), max(LANDING_SECONDS, MOST_LANDING * clock.limit))


@contextmanager
def time_limit(minutes: float, hung: Callable[[str], None]) -> Iterator[None]:
    """Limit the trial that runs in the block to so many minutes from its first step on; 0 is no limit.

    The trial ends between two steps, never within an import or the composition of a configuration.

    Args:
        hung: called in another thread with the reason where the trial does not reach such a place; ends the process.
    """
    if not minutes:
        yield
        return
    reason = f"took longer than sweep.trial_minutes={minutes:g}"
    with limit_runs(TimeLimit(60 * minutes, reason, hung=hung, patience=GRACE_SECONDS)):
        yield


@contextmanager
def deadline(clock: Clock, *, reserve: float = 0.0) -> Iterator[None]:
    """End the runs in the block with OutOfTimeError before the clock's time is over, imports and data included.

    Args:
        reserve: seconds that are wanted for what comes after the block.
    """
    if clock.limit == math.inf:
        yield
        return
    seconds = max(0.0, clock.left - reserve - landing_seconds(clock))
    limit = TimeLimit(seconds, _over(clock), hung=lambda reason: None, patience=0, error=OutOfTimeError)
    limit.start()
    with limit_runs(limit):
        yield


@contextmanager
def end_at(clock: Clock, end: Callable[[str], None]) -> Iterator[None]:
    """Call ``end`` in another thread where the clock's time is over and the block, which hangs, has not ended.

    Only one of both goes on: a block that ends meanwhile waits for ``end``, which ends the process. A command that is
    given when the time is over already has a little of it for the summary.
    """
    if clock.limit == math.inf:
        yield
        return
    first = threading.Lock()

    def hangs() -> None:
        if first.acquire(blocking=False):
            end(f"{_over(clock)}, and the last step has not ended")

    watchdog = threading.Timer(clock.left if clock.left > 0 else LANDING_SECONDS, hangs)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        if not first.acquire(blocking=False):
            watchdog.join()


def _over(clock: Clock) -> str:
    return f"sweep.minutes={clock.limit / 60:g} are over"


def start_over(folder: Path) -> None:
    """End this process, whatever hangs in it, and continue the sweep: the leader restarts a worker.

    A sweep of one process restarts its command. One that no command has started (a notebook) ends.
    """
    words = sys.orig_argv
    if not worker_pool.is_worker() and "train" in words and {"-m", "--multirun"} & set(words[words.index("train") :]):
        os.execv(
            sys.executable, [*words, *worker_pool.same_study(folder)]
        )  # this releases the locks: the trial is requeued
    os.kill(os.getpid(), signal.SIGKILL)
