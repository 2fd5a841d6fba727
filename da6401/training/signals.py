"""What stops a run, or a sweep's worker: a signal or a time limit. Both are checked between two steps."""

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

# Ctrl-C; the usual request to end; what SLURM may send before the time limit (--signal=USR1@120).
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GRACE = 8.0  # seconds after a signal for the step, the checkpoint and the tracker to finish


class TimeLimit:
    """The time that a run may take from ``start`` on: its first step, unless that is called earlier.

    Args:
        error: what ends the run, made from the reason.
        hung: called from another thread, ``patience`` seconds after the limit, unless the limit was cancelled before.
    """

    def __init__(
        self, seconds: float, reason: str, *, hung: Callable[[str], None], patience: float,
        error: Callable[[str], BaseException] = TrialTimeoutError,
    ) -> None:  # fmt: skip
        self.seconds = seconds
        self.reason = reason
        self.error = error
        self.began: float | None = None
        self._watchdog = threading.Timer(seconds + patience, hung, [f"{reason}, and hung"])
        self._watchdog.daemon = True

    def start(self) -> None:
        """Start the clock; further calls do nothing."""
        if self.began is None:
            self.began = time.monotonic()
            self._watchdog.start()

    def check(self) -> None:
        """Raises ``error`` after the limit."""
        if self.began is not None and time.monotonic() - self.began > self.seconds:
            raise self.error(self.reason)

    def cancel(self) -> None:
        """Stop the watchdog: the run has ended."""
        self._watchdog.cancel()


_limits: list[TimeLimit] = []  # of the runs of this process


def running_limits() -> tuple[TimeLimit, ...]:
    """The limits of a run that starts now."""
    return tuple(_limits)


@contextmanager
def limit_runs(limit: TimeLimit) -> Iterator[None]:
    """Limit every run that starts in the block."""
    _limits.append(limit)
    try:
        yield
    finally:
        limit.cancel()
        _limits.remove(limit)


@dataclass
class StopFlag:
    """What the training loop checks before every step: the last of STOP_SIGNALS that came, and the time limits."""

    signum: int | None = None
    limits: tuple[TimeLimit, ...] = ()

    def step_begins(self) -> None:
        """The first call starts the limits' clocks; raises as ``check``."""
        for limit in self.limits:
            limit.start()
        self.check()

    def check(self) -> None:
        """Raise where the run must end; call it where it can.

        Raises:
            InterruptedRun: a signal came. TrialTimeoutError, OutOfTimeError: a time limit is over.
        """
        if self.signum is not None:
            raise InterruptedRun(self.signum)
        for limit in self.limits:
            limit.check()


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn the first signal into a flag, so that a checkpoint can be written; a second one ends the process.

    ``GRACE`` seconds after the first one InterruptedRun is raised wherever the block is; the checkpoint before it is
    complete. A signal is never lost: at the end of the block it is raised again for the handler that was there before
    (that of a sweep, around its trial), or as InterruptedRun where there was none.

    Raises:
        InterruptedRun: a signal came, and the block ended all the same, or did not end within ``GRACE`` seconds.
    """
    flag, ending = StopFlag(limits=running_limits()), False
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
        if ending:  # the old handlers are being restored
            return
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        before = signal.signal(signal.SIGALRM, on_alarm)
        if before is not on_alarm:
            previous[signal.SIGALRM] = before
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        assert flag.signum is not None, "the timer is set by a signal"
        raise InterruptedRun(flag.signum)

    try:
        for signum in STOP_SIGNALS:
            previous[signum] = signal.signal(signum, on_signal)
    except ValueError:  # not the main thread, as in a notebook's executor: signals keep their handlers
        pass
    try:
        yield flag
    finally:
        restore()
        handled = flag.signum is not None and _has_handler(flag.signum)
        if flag.signum is not None and handled:
            signal.raise_signal(flag.signum)
    if flag.signum is not None and not handled:
        raise InterruptedRun(flag.signum)


def _has_handler(signum: int) -> bool:
    """Whether a signal has a handler other than the one that Python starts with."""
    handler = signal.getsignal(signum)
    return callable(handler) and handler is not signal.default_int_handler
