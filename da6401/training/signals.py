"""What asks a run, or a sweep's worker, to come to its end: a signal, or a limit of time. Heard between two steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from da6401.errors import InterruptedRun, TrialTimeoutError

# Ctrl-C; what ends a process; what SLURM may send ahead of an end (--signal=USR1@120).
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GRACE = 8.0  # seconds after a signal in which the step, the checkpoint and the tracker may come to their end


class TimeLimit:
    """A time that a run may take, from its first step on: what comes before it (imports, reading data) is not counted.

    Args:
        hung: called from another thread, ``patience`` seconds after the limit, where nobody has looked at it by then.
    """

    def __init__(self, seconds: float, reason: str, *, hung: Callable[[str], None], patience: float) -> None:
        self.seconds = seconds
        self.reason = reason
        self.began: float | None = None
        self._watchdog = threading.Timer(seconds + patience, hung, [f"{reason}, and hung"])
        self._watchdog.daemon = True

    def start(self) -> None:
        """Start the clock, unless it runs."""
        if self.began is None:
            self.began = time.monotonic()
            self._watchdog.start()

    def check(self) -> None:
        """Raises TrialTimeoutError after the limit."""
        if self.began is not None and time.monotonic() - self.began > self.seconds:
            raise TrialTimeoutError(self.reason)

    def cancel(self) -> None:
        """Nobody need look any more."""
        self._watchdog.cancel()


@dataclass
class StopFlag:
    """What the training loop looks at before every step: the first of STOP_SIGNALS, and the limit of the run's time."""

    signum: int | None = None
    limit: TimeLimit | None = None

    def step_begins(self) -> None:
        """The first call starts the limit's clock; raises as ``check``."""
        if self.limit is not None:
            self.limit.start()
        self.check()

    def check(self) -> None:
        """At a place where the run can end.

        Raises:
            InterruptedRun: a signal came. TrialTimeoutError: the limit is over.
        """
        if self.signum is not None:
            raise InterruptedRun(self.signum)
        if self.limit is not None:
            self.limit.check()


@contextmanager
def stop_on_signals(limit: TimeLimit | None = None) -> Iterator[StopFlag]:
    """Turn the first signal into a flag, so that a checkpoint can be written; a second one ends the process.

    Whatever still runs ``GRACE`` seconds after the first one is given up with InterruptedRun: the checkpoint before it
    is whole. A signal is never lost: one that nobody in the block has heeded is passed on at its end to whoever had it
    before (a sweep, around its trial), and where that is nobody the block ends with InterruptedRun.

    Raises:
        InterruptedRun: a signal came, and the block came to its end all the same, or did not within ``GRACE`` seconds.
    """
    flag, ending = StopFlag(limit=limit), False
    previous: dict[int, Any] = {}

    def restore() -> None:
        nonlocal ending
        ending = True
        if signal.SIGALRM in previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        flag.signum = signum
        if ending:  # the handlers are on their way back to their owners
            return
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        clock = signal.signal(signal.SIGALRM, on_alarm)
        if clock is not on_alarm:
            previous[signal.SIGALRM] = clock
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        assert flag.signum is not None, "the clock is set by a signal"
        raise InterruptedRun(flag.signum)

    try:
        for signum in STOP_SIGNALS:
            previous[signum] = signal.signal(signum, on_signal)
    except ValueError:  # not the main thread, as in a notebook's executor: signals stay with their owner
        pass
    try:
        yield flag
    finally:
        restore()
        owned = flag.signum is not None and _has_owner(flag.signum)
        if flag.signum is not None and owned:
            signal.raise_signal(flag.signum)
    if flag.signum is not None and not owned:
        raise InterruptedRun(flag.signum)


def _has_owner(signum: int) -> bool:
    """Whether a signal has a handler of somebody's own, and not what Python starts with."""
    handler = signal.getsignal(signum)
    return callable(handler) and handler is not signal.default_int_handler
