"""The one run that stands for a sweep: what it hands over, else its confirmed winner, else its best trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from da6401.errors import RunError
from da6401.redact import safe
from da6401.report.collect import read_sweep
from da6401.report.sweep_record import SweepRecord
from da6401.runs.run_folder import ENSEMBLE, SUMMARY, holds_run, read_json
from da6401.runs.trial_folders import CONFIRMATIONS, DEEPEST, MODEL


@dataclass(frozen=True)
class ChosenRun:
    """A run folder, or the folder of the model that a sweep hands over."""

    folder: Path
    why: str  # "its confirmed winner"


def chosen_run(sweep: Path, storage: str | None = None) -> ChosenRun:
    """The run that a sweep stands for; while it goes on, the best of the trials that have ended.

    Args:
        storage: the study's database URL, where it is not in the folder.

    Raises:
        RunError: no trial was completed within the limits, its folder is not here, or the study cannot be read.
    """
    if (model := handed_over(sweep)) is not None:
        return ChosenRun(model, "the model that it hands over")
    summary = read_json(sweep / SUMMARY) if (sweep / SUMMARY).is_file() else {}
    winner = summary.get("winner")
    if isinstance(winner, str):
        parts = Path(winner).parts  # as the sweep saw it: the folder may have moved since
        inside = [sweep.joinpath(*parts[-length:]) for length in range(DEEPEST, 0, -1)]
        folder = next((run for run in inside if holds_run(run)), None)
        if folder is None:
            raise RunError(f"{sweep}: its winner, {safe(winner)}, is not in the folder; copy it there")
        return ChosenRun(folder, "its confirmed winner" if summary.get("confirmed") else "its best trial")
    record = read_sweep(sweep, storage)
    found = winner_of(record)
    if found is None:
        raise RunError(
            f"{sweep}: no trial was completed within the limits, so there is no best one; "
            f"da6401 report {sweep} shows the reasons"
        )
    return ChosenRun(found, f"the best of its {len(record.complete)} completed trials so far")


def handed_over(sweep: Path) -> Path | None:
    """The folder of the model that a race hands over; None of another sweep, and before a race has one."""
    return sweep / MODEL if (sweep / MODEL / ENSEMBLE).is_file() else None


def winner_of(sweep: SweepRecord) -> Path | None:
    """The winner's folder, if it is here: what is handed over, else the best confirmed run's, else the best trial's."""
    if (model := handed_over(sweep.folder)) is not None:
        return model
    confirmed = sweep.summary.get("confirmed") or []
    folders = [sweep.folder / CONFIRMATIONS / Path(confirmed[0]["run"]).name] if confirmed else []
    folders += [trial.run.folder for trial in sweep.best]
    return next((folder for folder in folders if folder.is_dir()), None)
