"""The time that a trial may take, also where its code hangs outside Python and hears nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.sweep import worker_pool
from da6401.training.signals import TimeLimit

GRACE_SECONDS = 30.0  # between the limit and the end of a process in which nobody has looked at it

_running: TimeLimit | None = None  # of the trial that this process runs


@contextmanager
def time_limit(minutes: float, hung: Callable[[str], None]) -> Iterator[None]:
    """Within the block the trial that is run has so many minutes from its first step on; 0 is no limit.

    It ends between two steps, and never within an import or the composition of a configuration.

    Args:
        hung: called from another thread with the reason where the trial does not come to such a place; it ends the
            process.
    """
    global _running
    if not minutes:
        yield
        return
    reason = f"took longer than sweep.trial_minutes={minutes:g}"
    _running = TimeLimit(60 * minutes, reason, hung=hung, patience=GRACE_SECONDS)
    try:
        yield
    finally:
        _running.cancel()
        _running = None


def running_limit() -> TimeLimit | None:
    """The limit of the trial that this process runs."""
    return _running


def start_over(folder: Path) -> None:
    """End this process, whatever hangs in it, so that the sweep goes on: a worker is started again by its leader.

    A sweep of one process becomes the same command anew. One that was not started by a command (a notebook) ends.
    """
    words = sys.orig_argv
    if not worker_pool.is_worker() and "train" in words and {"-m", "--multirun"} & set(words[words.index("train") :]):
        os.execv(sys.executable, [*words, *worker_pool.same_study(folder)])  # locks are closed with it: they go back
    os.kill(os.getpid(), signal.SIGKILL)
