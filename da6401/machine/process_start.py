"""When this process began."""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_start() -> float:
    """Seconds since 1970, from Linux's /proc; elsewhere now, less the processor time of this process."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (up - int(after_name[19]) / os.sysconf("SC_CLK_TCK"))  # the 22nd field of the line
    except (OSError, ValueError, IndexError):
        return time.time() - time.process_time()
