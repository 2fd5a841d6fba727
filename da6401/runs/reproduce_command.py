"""The command that makes a run again, as the summary of a sweep and the pages print it."""

from __future__ import annotations

import shlex
from pathlib import Path

from da6401.errors import RunError
from da6401.runs.run_folder import RECEIPT, read_json


def reproduce_command(folder: Path) -> str:
    """`da6401 reproduce RUN`, with the names of the plugin files that its receipt records."""
    words = ["da6401", "reproduce", str(folder)]
    for name in _plugin_files(folder):
        words += ["--plugin", name]
    return shlex.join(words)


def _plugin_files(folder: Path) -> list[str]:
    """[] also where the receipt, which may be a stranger's, cannot be read."""
    try:
        recorded = read_json(folder / RECEIPT).get("plugins")
    except RunError:
        return []
    entries = recorded if isinstance(recorded, list) else []
    names = [each.get("file") for each in entries if isinstance(each, dict)]
    return [name for name in names if isinstance(name, str) and name.isprintable()]
