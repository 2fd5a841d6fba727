"""File descriptors that live as long as an object."""

from __future__ import annotations

import os
import weakref


def close_with(owner: object, descriptor: int) -> None:
    """Close a descriptor when its owner is gone; where that is only at the process's end, the system closes it.

    A ``__del__`` would close it again for a copy of the owner, and run when Python has already emptied ``os``.
    """
    weakref.finalize(owner, os.close, descriptor).atexit = False
