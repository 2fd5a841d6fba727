"""What a verb's words name: a run, a sweep, a study's name, or `latest`; what was chosen is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

from da6401.redact import safe
from da6401.report.chosen_run import chosen_run
from da6401.runs.named_folders import LATEST, folder_of
from da6401.runs.run_folder import holds_run


def run_named(word: Path) -> Path:
    """The run folder that a word names; of a sweep the run that it stands for.

    Raises:
        RunError: as ``folder_of`` and ``chosen_run``.
    """
    folder = folder_of(word)
    if holds_run(folder):
        if str(word) == LATEST:
            print(f"da6401: {LATEST}: run {safe(folder)}", file=sys.stderr)
        return folder
    chosen = chosen_run(folder)
    name = f"{LATEST}: sweep {folder.name}" if str(word) == LATEST else f"sweep {folder.name}"
    print(f"da6401: {safe(name)}: {chosen.why}, {safe(chosen.folder)}", file=sys.stderr)
    return chosen.folder
