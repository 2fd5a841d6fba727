"""What of a machine moves the bits of a training, besides the config: equal facts, equal weights."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "optuna")


def facts() -> dict[str, str]:
    """The versions, and a hash of the processor's name and abilities."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))} or lines)
    return {name: version(name) for name in PACKAGES} | {
        "system": f"{platform.system()}-{platform.machine()}",
        "processor": hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16],
    }
