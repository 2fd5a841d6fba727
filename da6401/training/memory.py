"""The peak memory of a run."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # what Linux's clear_refs takes for it


class PeakMemory:
    """From its creation on: what torch has allocated on a CUDA device, or else the process's resident memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with suppress(OSError):  # no Linux, or not allowed: the peak is then that of the process's whole life
            (PROCESS / "clear_refs").write_text(RESET_PEAK)

    def megabytes(self) -> float:
        """The peak so far, in MB of 10**6 bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())
        except OSError:
            found = None
        if found:
            return int(found[1]) * 1024 / 1e6
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
