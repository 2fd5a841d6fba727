"""Signals that ask a run, or a sweep's worker, to come to its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from da6401.errors import InterruptedRun

# Ctrl-C; what ends a process; what SLURM may send ahead of an end (--signal=USR1@120).
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GRACE = 8.0  # seconds after a signal in which the step, the checkpoint and the tracker may come to their end


@dataclass
class StopFlag:
    """Set by the first of STOP_SIGNALS; the training loop looks at it after every step."""

    signum: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn the first signal into a flag, so that a checkpoint can be written; a second one ends the process.

    Whatever still runs ``GRACE`` seconds after the first one is given up with InterruptedRun: the checkpoint before it
    is whole.
    """
    flag = StopFlag()
    previous: dict[int, Any] = {}

    def restore() -> None:
        if signal.SIGALRM in previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        flag.signum = signum
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)  # until now the clock is a sweep's to use
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
