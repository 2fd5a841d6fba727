"""The time that a trial may take, also where its code hangs outside Python and hears no signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from da6401.sweep import pool

GRACE_SECONDS = 30.0  # between the exception and the end of a process that has not heard it


class TrialTimeoutError(Exception):
    """A trial took longer than sweep.trial_minutes."""


@contextmanager
def time_limit(minutes: float, hung: Callable[[str], None]) -> Iterator[None]:
    """Raise TrialTimeoutError in the block after so many minutes; 0 is no limit. For the main thread of a process.

    Args:
        hung: called from another thread with the reason where the exception was not heard either; it ends the process.
    """
    if not minutes:
        yield
        return
    reason = f"took longer than sweep.trial_minutes={minutes:g}"

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        raise TrialTimeoutError(reason)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    watchdog = threading.Timer(60 * minutes + GRACE_SECONDS, hung, [f"{reason}, and hung"])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def start_over(folder: Path) -> None:
    """End this process, whatever hangs in it, so that the sweep goes on: a worker is started again by its leader.

    A sweep of one process becomes the same command anew. One that was not started by a command (a notebook) ends.
    """
    words = sys.orig_argv
    if not pool.is_worker() and "train" in words and {"-m", "--multirun"} & set(words[words.index("train") :]):
        os.execv(sys.executable, [*words, *pool.same_study(folder)])  # locks are closed with it: they go back
    os.kill(os.getpid(), signal.SIGKILL)
