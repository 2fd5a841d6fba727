"""Deletes checkpoints during a sweep: only the best trials keep theirs (sweep.keep_checkpoints, checkpoint_gb)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from da6401.config.schema import SweepConfig
from da6401.runs.trial_folders import fold_folders, trial_folder
from da6401.study.objective import Objective
from da6401.study.roles import CANDIDATE
from da6401.sweep.leases import FINISHED, RESUMABLE

CHECKPOINTS = "checkpoints"


class Checkpoints:
    """The checkpoints of a sweep's trials.

    Args:
        folder: the sweep's.
    """

    def __init__(self, folder: Path, settings: SweepConfig) -> None:
        self.folder = folder
        self.objective = Objective.of(settings)
        self.keep = settings.keep_checkpoints
        self.members = settings.members if settings.strategy == "race" else 0
        self.room = settings.checkpoint_gb * 1e9
        self.deleted: set[int] = set()  # numbers of finished trials without checkpoints

    def prune(self, trials: Sequence[FrozenTrial]) -> None:
        """Delete those of finished trials that are not among the best k or exceed the room; never the best trial's.

        A race also keeps those of the best training of each candidate that its model may be made of. Those of a trial
        that failed only because its images changed while it was stopped stay, too.
        """
        candidates = self.objective.candidates(trials)
        best = {trial.number for each in self.objective.best_of(candidates) for trial in each.trials}
        finished = [trial for trial in trials if trial.state in FINISHED and RESUMABLE not in trial.user_attrs]
        used, seen = 0, set[object]()
        for rank, trial in enumerate(self.objective.ranked(finished, candidates)):
            candidate = trial.user_attrs.get(CANDIDATE)
            is_member = candidate not in seen and len(seen) < self.members
            seen.add(candidate)
            if trial.number in self.deleted:
                continue
            run = trial_folder(self.folder, trial)
            folders = [each / CHECKPOINTS for each in (run, *fold_folders(run))]
            size = sum(map(size_of, folders))
            beyond = (rank >= self.keep and not is_member) or trial.state is not TrialState.COMPLETE
            if trial.number not in best and (beyond or (self.room and used + size > self.room)):
                for each in folders:
                    shutil.rmtree(each, ignore_errors=True)
            else:
                used += size
            if not any(each.is_dir() for each in folders):
                self.deleted.add(trial.number)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; a file that another worker deletes meanwhile counts 0."""
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in folder.iterdir():
            with suppress(FileNotFoundError):
                total += file.stat().st_size
    return total
