"""Who runs which trial: claims that no two workers share, leases that end with their worker, trials put back.

A study's total is its trials 0 to n_trials - 1. A trial is claimed by taking it from WAITING to RUNNING, which every
storage does for one caller alone; a trial that is new is made as WAITING first. So there are never more than n_trials
running and finished, however many machines work on the study.

A worker holds a file lock as long as it lives, and where machines share the study its trials also bear a heartbeat. A
trial that is RUNNING under a lock that nobody holds, or whose heart has stood still for `sweep.lease_seconds`, belongs
to a dead worker: it goes back to WAITING, with its parameters, and whoever asks next takes it up from its last
checkpoint, or anew where the run folder is on another machine's disk. A worker that was only asleep finds out that its
trial has another owner, and lets go of it.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
import uuid
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.errors import MachineError, UserError
from da6401.study.storage import hurried, outages
from da6401.sweep.worker_pool import slot
from da6401.training.machine_failures import machine_problem, memory_of_machine

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
OWNER, ATTEMPTS, REASON, HEARTBEAT = "owner", "attempts", "reason", "heartbeat"  # user attributes of a trial
SKIPPED = "skipped"  # of one that was not trained: it would have repeated another
PUT_BACK = "put_back"  # another: who left the trial last, and why that machine cannot run it
NOBODY = ""  # the owner of a trial that was put back
NEW = create_trial(state=TrialState.WAITING, user_attrs={ATTEMPTS: 1})
WORKERS = ".workers"  # in a sweep's folder: the locks of those that live
BEATS = 4  # heartbeats in a lease


class Worker:
    """This process as a worker of a study; its leases end with it, however it ends.

    Args:
        folder: the sweep's folder.
        retries: how often a trial whose worker died is taken up again.
        lease_seconds: the silence after which a worker of another machine is taken for dead; 0 where all workers are
            on this machine.
    """

    def __init__(self, study: optuna.Study, folder: Path, *, retries: int, lease_seconds: float) -> None:
        self.study = study
        self.folder = folder / WORKERS
        self.retries = retries
        self.lease_seconds = lease_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        key = f"{_machine()}{uuid.uuid4().hex}"
        # What stands before the last dash is for people: the report's timeline has a row for each.
        self.name = f"{platform.node()}/{slot()}-{key}" if lease_seconds else f"{slot()}-{key}"
        self.lease = FileLock(self.folder / f"{key}.lock")
        self.lease.acquire()
        self.turn = FileLock(self.folder / "turn.lock")
        self.running: int | None = None  # the id of the trial that this worker runs
        self.seen: dict[int, tuple[object, float]] = {}  # of others' trials: the last heartbeat, and when it was new
        self.outages = 0
        self.closed = threading.Event()
        if lease_seconds:
            threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Give the lease back; a trial still claimed is put back, and this stop is none of its attempts."""
        self.closed.set()
        try:
            with hurried(self.study._storage), self.turn:  # a signal may be why: the process has seconds left
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    if trial.user_attrs.get(OWNER) == self.name:
                        self._set(trial, ATTEMPTS, int(trial.user_attrs.get(ATTEMPTS, 1)) - 1)
                        self._put_back(trial)
        except Exception as error:
            if not isinstance(error, UserError) and machine_problem(error, memory_bytes=memory_of_machine()) is None:
                raise
            log.warning("%s. Its trial goes back when the lease is over.", str(error).rstrip("."))
        finally:
            self.lease.release()
            Path(self.lease.lock_file).unlink(missing_ok=True)

    def claim(self, total: int) -> FrozenTrial | None:
        """The next trial, as it was before it became this worker's; None where all are finished or being run."""
        self.running = None
        with self.turn:  # for the workers of this machine: those of others meet in the storage
            trials = self._recover()
            for trial in trials[:total]:
                if trial.state is TrialState.WAITING and self._take(trial):
                    return trial
            count, storage = len(trials), self.study._storage
            while count < total:
                new = storage.get_trial(storage.create_new_trial(self.study._study_id, NEW))
                count = new.number + 1
                if count <= total and self._take(new):  # beyond the total it waits for a larger one
                    return new
            return None

    def owns(self, trial: FrozenTrial) -> bool:
        """Whether a trial that this worker claimed is its own still; on one machine its lock says so."""
        return self.lease.is_locked and (not self.lease_seconds or owner_of(self.study, trial._trial_id) == self.name)

    def put_back(self, trial: FrozenTrial) -> None:
        """Leave a trial to whoever asks next."""
        self.running = None
        self._put_back(trial)

    def give_up(self, trial: FrozenTrial, problem: str) -> MachineError:
        """Leave a trial that this machine cannot run to others; the error in which this worker then ends.

        It counts as an attempt, so that a trial does not go round machines for ever: one that ran out of them fails.
        """
        ended = f"trial {trial.number} is put back, and this worker ends: {problem}"
        try:
            attempts = int(self.study._storage.get_trial(trial._trial_id).user_attrs.get(ATTEMPTS, 1))
            if attempts > max(1, self.retries):
                self._set(trial, REASON, f"{problem} ({attempts} attempts)"[:400])
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                return MachineError(f"trial {trial.number} failed, and this worker ends: {problem}")
            self._set(trial, PUT_BACK, f"{self.name.rpartition('-')[0]}: {problem}"[:400])
            self.put_back(trial)
        except Exception as error:  # the study's file may lie on the disk that is full
            if machine_problem(error, memory_bytes=memory_of_machine()) is None:
                raise
        return MachineError(ended)

    def others_running(self) -> bool:
        """Whether a trial is being run by a worker that lives."""
        with self.turn:
            return any(trial.state is TrialState.RUNNING for trial in self._recover())

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            if not self.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                return False
        except UpdateFinishedTrialError:  # another machine has taken and finished it
            return False
        self._set(trial, OWNER, self.name)
        before = trial.user_attrs.get(ATTEMPTS)
        attempts = int(before or 0) + 1 if OWNER in trial.user_attrs else 1  # a new one says 1, and is nobody's yet
        if attempts != before:
            self._set(trial, ATTEMPTS, attempts)
        self.running = trial._trial_id
        return True

    def _recover(self) -> list[FrozenTrial]:
        """Put back the trials of dead workers; one that lost its worker too often is failed. All trials afterwards."""
        if outages(self.study._storage) != self.outages:  # nobody could be heard meanwhile
            self.seen.clear()
            self.outages = outages(self.study._storage)
        trials, changed = self.study.get_trials(deepcopy=False), False
        for trial in trials:
            if trial.state is not TrialState.RUNNING:
                continue
            owner = str(trial.user_attrs.get(OWNER, NOBODY))
            if owner == self.name or self._lives(owner, trial):
                continue
            if owner_of(self.study, trial._trial_id) != owner:
                continue
            changed = True
            attempts = int(trial.user_attrs.get(ATTEMPTS, 1))
            if attempts > self.retries:
                self._set(trial, REASON, f"killed {attempts} times")
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                self._put_back(trial)
        return self.study.get_trials(deepcopy=False) if changed else trials

    def _put_back(self, trial: FrozenTrial) -> None:
        try:
            self._set(trial, OWNER, NOBODY)
            self.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)
        except UpdateFinishedTrialError:  # its owner was alive after all, and has finished it
            pass

    def _set(self, trial: FrozenTrial, name: str, value: str | int) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _lives(self, owner: str, trial: FrozenTrial) -> bool:
        """Whether a trial's owner lives: by its lock where it is on this machine, else by its heartbeat."""
        key = owner.rpartition("-")[2]
        lease = self.folder / f"{key}.lock"
        if key.startswith(_machine()) and lease.exists():
            try:
                with FileLock(lease, blocking=False):
                    pass
            except Timeout:
                return True
            lease.unlink(missing_ok=True)
            return False
        if not self.lease_seconds:
            return False
        # By this machine's clock and the heartbeats that it saw: the clocks of two machines need not agree.
        beat = (owner, trial.user_attrs.get(HEARTBEAT), trial.user_attrs.get(ATTEMPTS))
        now = time.monotonic()
        last, since = self.seen.get(trial.number, (None, now))
        if beat != last:
            since = now
            self.seen[trial.number] = (beat, since)
        return now - since <= self.lease_seconds

    def _beat(self) -> None:
        """On a thread: let the trial that runs say that its worker lives."""
        count = 0
        while not self.closed.wait(self.lease_seconds / BEATS):
            trial_id, count = self.running, count + 1
            if trial_id is None:
                continue
            try:
                self.study._storage.set_trial_user_attr(trial_id, HEARTBEAT, count)
            except UpdateFinishedTrialError:  # it has just ended
                continue
            except UserError:  # the storage stays away: whoever waits for it on the main thread says so
                return


def ended_here(study: optuna.Study) -> bool:
    """Whether the trial that finished last was run on this machine: so that one of many does what is done once."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    last = max(finished, key=lambda trial: (trial.datetime_complete, trial.number), default=None)
    return last is None or str(last.user_attrs.get(OWNER, NOBODY)).rpartition("-")[2].startswith(_machine())


def owner_of(study: optuna.Study, trial_id: int) -> str | None:
    """The name of the worker that a running trial belongs to; None where the trial does not run."""
    trial = study._storage.get_trial(trial_id)
    return str(trial.user_attrs.get(OWNER, NOBODY)) if trial.state is TrialState.RUNNING else None


def _machine() -> str:
    """Eight digits that tell this machine, since it was started, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip()[:8] if boot.exists() else f"{uuid.getnode() & 0xFFFFFFFF:08x}"
