"""The whole report as plain values: parts of sections of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from da6401 import __version__
from da6401.redact import safe
from da6401.report import run_figures
from da6401.report.blocks import section, table, text
from da6401.report.chosen_run import winner_of
from da6401.report.collect import read_sweep, reads_as_sweep
from da6401.report.index import index_sections
from da6401.report.run_record import RunRecord, read_run
from da6401.report.run_sections import run_sections
from da6401.report.sweep_record import SweepRecord
from da6401.report.sweep_sections import sweep_sections
from da6401.runs.looks import comparison_warnings
from da6401.runs.named_folders import held_in, is_one
from da6401.runs.run_folder import NO_EFFECT_ON_WEIGHTS, differences


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
        parts.append({"id": "compared", "title": "Side by side", "sections": _comparison(read)})
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


def _comparison(read: Sequence[RunRecord | SweepRecord]) -> list[dict[str, Any]]:
    runs: dict[str, RunRecord] = {}
    rows: list[list[Any]] = []
    for each in read:
        winner = winner_of(each) if isinstance(each, SweepRecord) else each.folder
        if winner is None:
            rows.append([safe(each.folder), None, "no completed trial", *[None] * 7])
            continue
        run = read_run(winner, predictions=True) if isinstance(each, SweepRecord) else each
        runs[str(each.folder)] = run
        result = run.result
        rows.append([
            safe(each.folder), len(each.trials) if isinstance(each, SweepRecord) else 1, run.status,
            run.config.get("model", {}).get("name"), result and result.val_accuracy, result and result.test_accuracy,
            len(run.looks), result and result.parameters, result and result.macs, result and round(result.seconds, 1),
        ])  # fmt: skip
    columns = ["folder", "trials", "status", "model", "validation accuracy", "test accuracy", "test looks",
               "parameters", "multiply-accumulates", "seconds"]  # fmt: skip
    found = differences(*(run.config for run in runs.values()))
    differing = [row for row in found if not NO_EFFECT_ON_WEIGHTS.fullmatch(row[0])]
    warnings = [text(each, "warning") for each in comparison_warnings([run.folder for run in runs.values()])]
    return [
        section("Result", *warnings, table("Runs, and the winners of sweeps", columns, rows)),
        section("Curves", run_figures.together(runs)) if runs else section("Curves", text("None yet.")),
        section(
            "Differences",
            table("Keys of the config that differ", ["key", *runs], differing)
            if differing
            else text("No key of their configs differs."),
        ),
    ]
