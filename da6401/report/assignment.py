"""`da6401 report --assignment`: one page in the order of the assignment's questions, from what the folders hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from da6401.errors import UserError
from da6401.redact import safe
from da6401.registry import BACKBONES, LIBRARIES
from da6401.report.assignment_part import Part
from da6401.report.assignment_pretrained import pretrained_sections
from da6401.report.assignment_scratch import scratch_sections
from da6401.report.blocks import command, facts, section, table
from da6401.report.chosen_run import winner_of
from da6401.report.collect import read_sweep, reads_as_sweep
from da6401.report.contents import made
from da6401.report.run_record import RunRecord, read_run
from da6401.report.sweep_record import SweepRecord

ASSIGNMENT_PAGE = "assignment.html"  # in the first of the folders
SCRATCH, PRETRAINED = "Part A", "Part B"
RECEIPT = (
    *("command", "git_commit", "git_dirty", "data_fingerprint", "seed", "device_name", "python", "packages", "plugins"),
)


def assignment_data(folders: Sequence[Path], storage: str | None) -> dict[str, Any]:
    """The page as plain values.

    Args:
        folders: a sweep or a run of each part in any order, or one alone; a sweep over both parts answers both.

    Raises:
        UserError: none or more than two, or two of the same part.
        RunError: a folder that is neither a run's nor a sweep's, or is damaged.
    """
    if not 1 <= len(folders) <= 2:
        raise UserError(f"report --assignment takes one sweep of each part, so one or two folders, not {len(folders)}")
    read = [
        read_sweep(folder, storage) if reads_as_sweep(folder, storage) else read_run(folder, predictions=True)
        for folder in folders
    ]
    scratch, pretrained = _parts(read)
    parts = [
        {"id": "a", "title": f"{SCRATCH}: a network trained from scratch", "sections": scratch_sections(scratch)},
        {"id": "b", "title": f"{PRETRAINED}: a pretrained network",
         "sections": pretrained_sections(pretrained, scratch)},
        {"id": "record", "title": "How the numbers were made", "sections": _record([scratch, pretrained])},
    ]  # fmt: skip
    names = ", ".join(folder.absolute().name for folder in folders)
    return {"title": f"DA6401 assignment: {names}", "parts": parts, "made": made()}


def _parts(read: Sequence[RunRecord | SweepRecord]) -> tuple[Part | None, Part | None]:
    """What answers Part A, and what answers Part B; None where nothing does.

    Raises:
        UserError: both are of the same part.
    """
    kinds = [_kinds(each) or ({SCRATCH} if index == 0 else {PRETRAINED}) for index, each in enumerate(read)]
    # What belongs to one part alone is taken before a sweep over both.
    order = sorted(range(len(read)), key=lambda index: len(kinds[index]))
    chosen = {kind: next((index for index in order if kind in kinds[index]), None) for kind in (SCRATCH, PRETRAINED)}
    left = [read[index].folder for index in range(len(read)) if index not in chosen.values()]
    if left:
        shared = " and ".join(sorted(kinds[0] & kinds[-1]))
        raise UserError(
            f"{safe(read[0].folder)} and {safe(read[-1].folder)} both answer {shared}; name one sweep or run of each "
            f"part: {SCRATCH} has model=cnn, {PRETRAINED} a pretrained backbone"
        )
    found = [None if index is None else _part(read[index], kind) for kind, index in chosen.items()]
    return found[0], found[1]


def _kinds(each: RunRecord | SweepRecord) -> set[str]:
    """The parts of its runs; empty where their folders are on another machine."""
    runs = [trial.run for trial in each.trials] if isinstance(each, SweepRecord) else [each]
    return {kind for run in runs if (kind := _kind(run))}


def _kind(run: RunRecord) -> str | None:
    model = run.config.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if name is None:
        return None
    return PRETRAINED if name in BACKBONES or name in LIBRARIES else SCRATCH


def _part(each: RunRecord | SweepRecord, kind: str) -> Part:
    if isinstance(each, RunRecord):
        return Part(None, each)
    winner = winner_of(each)
    trials = [trial for trial in each.trials if _kind(trial.run) in (kind, None)]
    if len(trials) < len(each.trials):
        numbers = {trial.number for trial in trials}
        frozen = [trial for trial in each.frozen if trial.number in numbers]
        # What sweep.json says of the winner may be of the other part.
        each = dataclasses.replace(each, trials=trials, frozen=frozen, summary={"study": each.name})
    # The winner of a sweep over both parts is of one of them; the other part has its best trial.
    folders = [winner, *(trial.run.folder for trial in each.best)]
    runs = (read_run(folder, predictions=True) for folder in folders if folder is not None and folder.is_dir())
    run = next((run for run in runs if _kind(run) in (kind, None)), None)
    return Part(each, run, is_winner=run is not None and run.folder == winner)


def _record(parts: Sequence[Part | None]) -> list[dict[str, Any]]:
    """The command of each part, its code and its versions, and the command that makes its best run again."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if part is None or part.run is None:
            continue
        rows = [[name, part.run.receipt[name]] for name in RECEIPT if part.run.receipt.get(name) is not None]
        blocks += [
            facts(("Best run", part.run.folder, part.word)),
            table(f"Receipt of {safe(part.run.folder)}", ["entry", "value"], rows),
            command(part.run.folder),
        ]
    return [section("Receipts", *blocks)]
