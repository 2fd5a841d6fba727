"""The CPU cores that this process may use (in a container less than the machine has), and the machine's memory."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")  # where Linux shows the limits of control groups
OWN_GROUPS = Path("/proc/self/cgroup")  # which of them this process is in


def available_cores() -> int:
    """The cores that this process may run on, 1 or more; a container's limit of 1.5 cores is 2.

    The least of the machine's cores, the process's affinity (taskset, SLURM, cpusets) and the limit on its CPU time
    (docker --cpus, Kubernetes limits): more threads than that only wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit(CGROUPS, OWN_GROUPS)
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def memory_of_machine() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_limit(groups: Path, own_groups: Path) -> float | None:
    """The CPU time that the control groups of this process allow, in cores; None where nothing limits it.

    The limits of the groups above count as well, so the least of all is taken. In a container the group that
    ``own_groups`` names may not be visible; its limit is then that of the mounted tree's root.

    Args:
        groups: the mounted tree, of version 1, 2 or both.
        own_groups: lines of ``number:controllers:path``.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # no Linux
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = Path(path.lstrip("/"))
        for top in (groups / "unified", groups) if not controllers else (groups / controllers, groups / "cpu"):
            limits += [limit for folder in (place, *place.parents) if (limit := _limit(top / folder)) is not None]
    return min(limits, default=None)


def _limit(group: Path) -> float | None:
    """The limit of one control group: version 2 has it in cpu.max, version 1 in two files."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        microseconds = int((group / "cpu.cfs_quota_us").read_text())
        return microseconds / int((group / "cpu.cfs_period_us").read_text()) if microseconds > 0 else None
    return None
