"""The whole report as plain values: parts of sections of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from da6401 import __version__
from da6401.report.chosen_run import winner_of
from da6401.report.collect import read_sweep, reads_as_sweep
from da6401.report.compared import compared_sections
from da6401.report.index import index_sections
from da6401.report.run_record import RunRecord, read_run
from da6401.report.run_sections import run_sections
from da6401.report.sweep_record import SweepRecord
from da6401.report.sweep_sections import sweep_sections
from da6401.runs.named_folders import held_in, is_one


def report_data(folders: Sequence[Path], storage: str | None) -> dict[str, Any]:
    """The whole report; of one folder that is no run's and no sweep's, the index of those below it.

    Raises:
        RunError: a folder that is neither a run's nor a sweep's, or is damaged.
    """
    if len(folders) == 1 and storage is None and not is_one(folders[0]) and held_in(folders[0]):
        parts = [{"id": "index", "title": "", "sections": index_sections(folders[0])}]
        return {"title": f"Runs and sweeps in {folders[0].absolute().name}", "parts": parts, "made": made()}
    read = [
        read_sweep(folder, storage) if reads_as_sweep(folder, storage) else read_run(folder, predictions=True)
        for folder in folders
    ]
    titles = [_title(each) for each in read]
    parts = []
    if len(read) > 1:
        parts.append({"id": "compared", "title": "Side by side", "sections": compared_sections(read)})
    for index, (each, title) in enumerate(zip(read, titles, strict=True)):
        own = {"id": f"part{index}", "title": title if len(read) > 1 else ""}
        if isinstance(each, RunRecord):
            parts.append({**own, "sections": run_sections(each)})
            continue
        parts.append({**own, "sections": sweep_sections(each)})
        winner = winner_of(each)
        if winner is not None:
            parts.append({"id": f"part{index}winner", "title": f"The winner: {winner.name}",
                          "sections": run_sections(read_run(winner, predictions=True))})  # fmt: skip
    names = ", ".join(folder.absolute().name for folder in folders)
    title = titles[0] if len(read) == 1 else f"Compared: {names}"
    return {"title": title, "parts": parts, "made": made()}


def made() -> str:
    """When a page was made, and by which version."""
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}, da6401 {__version__}"


def _title(read: RunRecord | SweepRecord) -> str:
    return f"Sweep {read.name}" if isinstance(read, SweepRecord) else f"Run {read.folder.absolute().name}"
