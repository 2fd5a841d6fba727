"""Checkpoints as a sweep goes: the best trials keep theirs, within the room that there is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from da6401.config.schema import SweepConfig
from da6401.sweep.claims import FINISHED
from da6401.sweep.summary import best_trials, run_folder

CHECKPOINTS = "checkpoints"


def prune_checkpoints(study: optuna.Study, trials: Sequence[FrozenTrial], folder: Path, settings: SweepConfig) -> None:
    """Remove the checkpoints of finished trials beyond the best k, and beyond the room; the best trials' never."""
    keep = {trial.number for trial in best_trials(study, trials)}
    finished = [trial for trial in trials if trial.state in FINISHED]
    room = settings.checkpoint_gb * 1e9
    used = 0
    for rank, trial in enumerate(_ranked(study, finished)):
        checkpoints = run_folder(folder, trial.number) / CHECKPOINTS
        if not checkpoints.is_dir():
            continue
        size = sum(file.stat().st_size for file in checkpoints.iterdir())
        beyond = rank >= settings.keep_checkpoints or trial.state is not TrialState.COMPLETE
        if trial.number not in keep and (beyond or (room and used + size > room)):
            shutil.rmtree(checkpoints, ignore_errors=True)
        else:
            used += size


def _ranked(study: optuna.Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Completed trials by their first value, best first; the others last."""
    sign = -1 if study.directions[0] is optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(trials, key=lambda t: (t.state is not TrialState.COMPLETE, sign * t.values[0] if t.values else 0.0))
