"""Who runs which trial: claims that no two workers share, leases that end with their process, trials put back.

A worker holds a file lock as long as it lives, and its trials name that lock. A trial that is RUNNING under a lock that
nobody holds belongs to a dead worker: it goes back to WAITING, with its parameters, and whoever asks next takes it up
from its last checkpoint.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from da6401.sweep.pool import slot
from da6401.sweep.space import Space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
OWNER, ATTEMPTS, REASON = "owner", "attempts", "reason"  # user attributes of a trial


class Worker:
    """This process as a worker of a study; the lease ends with the process, however it ends."""

    def __init__(self, study: optuna.Study, folder: Path, *, retries: int) -> None:
        self.study = study
        self.folder = folder / ".workers"
        self.retries = retries
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{slot()}-{uuid.uuid4().hex}"  # the report's timeline reads the slot
        self.lease = FileLock(self.folder / f"{self.name}.lock")
        self.lease.acquire()
        self.turn = FileLock(self.folder / "turn.lock")

    def close(self) -> None:
        """Give the lease back; a trial still claimed is put back."""
        with self.turn:
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.user_attrs.get(OWNER) == self.name:
                    self._set(trial, ATTEMPTS, int(trial.user_attrs.get(ATTEMPTS, 1)) - 1)  # stopped, not killed
                    self._put_back(trial)
        self.lease.release()
        (self.folder / f"{self.name}.lock").unlink(missing_ok=True)

    def claim(self, space: Space, total: int) -> tuple[optuna.Trial, list[str]] | None:
        """The next trial, this worker's from now on, and its overrides; None where all are finished or being run."""
        with self.turn:  # parameters are chosen inside the turn: whoever dies later leaves a trial that is whole
            self._recover()
            taken = self.study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
            if len(taken) >= total:
                return None
            trial = self.study.ask()
            trial.set_user_attr(OWNER, self.name)
            trial.set_user_attr(ATTEMPTS, int(trial.user_attrs.get(ATTEMPTS, 0)) + 1)
            return trial, space.suggest(trial)

    def others_running(self) -> bool:
        """Whether a trial is being run by a worker that lives."""
        with self.turn:
            self._recover()
            return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _recover(self) -> None:
        """Put back the trials of dead workers; one that killed its worker too often is failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(OWNER)
            if owner == self.name or (owner is not None and self._lives(str(owner))):
                continue
            attempts = int(trial.user_attrs.get(ATTEMPTS, 1))
            if attempts > self.retries:
                self._set(trial, REASON, f"killed {attempts} times")
                self.study.tell(trial.number, state=TrialState.FAIL)
            else:
                self._put_back(trial)

    def _put_back(self, trial: FrozenTrial) -> None:
        self.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)

    def _set(self, trial: FrozenTrial, name: str, value: str | int) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _lives(self, owner: str) -> bool:
        lock = FileLock(self.folder / f"{owner}.lock", blocking=False)
        try:
            with lock:
                pass
        except Timeout:
            return True
        (self.folder / f"{owner}.lock").unlink(missing_ok=True)
        return False
