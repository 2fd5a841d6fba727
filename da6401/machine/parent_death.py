"""Linux's way to end a process when its parent dies, however that ends."""

from __future__ import annotations

import ctypes
import signal
import sys

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PARENT_DEATH = 1  # prctl: set the signal that a process gets when its parent dies


def end_with_parent() -> None:
    """In a new process, before it runs its program: get SIGTERM when the process that started it dies."""
    if LIBC is not None:
        LIBC.prctl(PARENT_DEATH, signal.SIGTERM)
