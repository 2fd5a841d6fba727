"""Ends a trial after sweep.trial_minutes, also where its code hangs outside Python and handles no signal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.sweep import worker_pool
from da6401.training.signals import TimeLimit

GRACE_SECONDS = 30.0  # after the limit, until a process that has not checked it is killed

_running: TimeLimit | None = None  # of this process's trial


@contextmanager
def time_limit(minutes: float, hung: Callable[[str], None]) -> Iterator[None]:
    """Limit the trial that runs in the block to so many minutes from its first step on; 0 is no limit.

    The trial ends between two steps, never within an import or the composition of a configuration.

    Args:
        hung: called in another thread with the reason where the trial does not reach such a place; ends the process.
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
    """The limit of this process's trial."""
    return _running


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
