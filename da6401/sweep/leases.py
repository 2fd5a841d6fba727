"""Which worker runs which trial: a worker leases a trial, and the lease ends when the worker dies.

A study's total is its trials 0 to n_trials - 1. A worker claims a trial by changing its state from WAITING to RUNNING,
which every storage allows one caller only; a new trial is created as WAITING. So at most n_trials are running or
finished, however many machines work on the study.

A live worker holds a file lock. Where machines share the study, it also writes a heartbeat into its trial. A RUNNING
trial whose worker has lost its lock, or has written no heartbeat for `sweep.lease_seconds`, is requeued: it becomes
WAITING again, keeps its parameters, and the next worker resumes it from its last checkpoint, or restarts it where the
run folder is on another machine's disk. A worker that was only suspended sees that its trial has another owner, and
stops running it.
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
from da6401.study.retrying_storage import outages, short_wait
from da6401.study.trial_store import TrialStore
from da6401.sweep.worker_pool import slot
from da6401.training.machine_failures import machine_problem

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
OWNER, ATTEMPTS, REASON, HEARTBEAT = "owner", "attempts", "reason", "heartbeat"  # user attributes of a trial
SKIPPED = "skipped"  # a trial that was not trained since it would have repeated another
RESUMABLE = "resumable"  # a failed trial that could resume if the images were put back: its checkpoints are kept
REQUEUED = "put_back"  # the last worker that could not run the trial, and why
NOBODY = ""  # the owner of a requeued trial
NEW = create_trial(state=TrialState.WAITING, user_attrs={ATTEMPTS: 1})
WORKERS = ".workers"  # in a sweep's folder: the locks of its live workers
BEATS = 4  # heartbeats per lease


class Worker:
    """This process as a worker of a study; its leases end with it, however it ends.

    Args:
        folder: the sweep's folder.
        retries: how often a trial is requeued after its worker died.
        lease_seconds: a worker of another machine without a heartbeat for so long counts as dead; 0 where all workers
            are on this machine.
    """

    def __init__(self, study: optuna.Study, folder: Path, *, retries: int, lease_seconds: float) -> None:
        self.study = study
        self.trials = TrialStore(study)
        self.folder = folder / WORKERS
        self.retries = retries
        self.lease_seconds = lease_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        key = f"{_machine()}{uuid.uuid4().hex}"
        # The part before the last dash is for people: the report's timeline has a row for each.
        self.name = f"{platform.node()}/{slot()}-{key}" if lease_seconds else f"{slot()}-{key}"
        self.lock = FileLock(self.folder / f"{key}.lock")
        self.lock.acquire()
        self.turn = FileLock(self.folder / "turn.lock")
        self.running: int | None = None  # the number of the trial that this worker runs
        self.seen: dict[int, tuple[object, float]] = {}  # of others' trials: the last heartbeat, and when it changed
        self.outages = 0
        self.closed = threading.Event()
        if lease_seconds:
            threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Release the lock and requeue the claimed trial, without counting this as one of its attempts."""
        self.closed.set()
        try:
            with short_wait(self.trials.storage), self.turn:  # after a signal the process has seconds left
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    if trial.user_attrs.get(OWNER) == self.name:
                        self._set(trial, ATTEMPTS, int(trial.user_attrs.get(ATTEMPTS, 1)) - 1)
                        self._requeue(trial)
        except Exception as error:
            if not isinstance(error, UserError) and machine_problem(error) is None:
                raise
            log.warning("%s. Its trial is requeued when the lease ends.", str(error).rstrip("."))
        finally:
            self.lock.release()
            Path(self.lock.lock_file).unlink(missing_ok=True)

    def claim(self, total: int) -> FrozenTrial | None:
        """The next trial, as it was before it became this worker's; None where all are finished or being run."""
        self.running = None
        with self.turn:  # among the workers of this machine; the storage decides between machines
            trials = self._requeue_orphans()
            for trial in trials[:total]:
                if trial.state is TrialState.WAITING and self._take(trial):
                    return trial
            count = len(trials)
            while count < total:
                new = self.trials.create(NEW)
                count = new.number + 1
                if count <= total and self._take(new):  # beyond the total it waits for a larger total
                    return new
            return None

    def owns(self, trial: FrozenTrial) -> bool:
        """Whether this worker still owns a trial that it claimed; on one machine its lock is enough."""
        return self.lock.is_locked and (not self.lease_seconds or owner_of(self.trials, trial.number) == self.name)

    def requeue(self, trial: FrozenTrial) -> None:
        """Let the next worker have a trial."""
        self.running = None
        self._requeue(trial)

    def leave_to_others(self, trial: FrozenTrial, problem: str) -> MachineError:
        """Requeue a trial that this machine cannot run; returns the error with which this worker is to end.

        This counts as an attempt: a trial without attempts left fails, so that no trial goes from machine to machine
        for ever.
        """
        try:
            attempts = int(self.trials.read(trial.number).user_attrs.get(ATTEMPTS, 1))
            if attempts > max(1, self.retries):
                self._set(trial, REASON, f"{problem} ({attempts} attempts)"[:400])
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                return MachineError(f"trial {trial.number} failed, and this worker ends: {problem}")
            self._set(trial, REQUEUED, f"{self.name.rpartition('-')[0]}: {problem}"[:400])
            self.requeue(trial)
        except Exception as error:  # the study's file may lie on the disk that is full
            if machine_problem(error) is None:
                raise
        return MachineError(f"trial {trial.number} is requeued, and this worker ends: {problem}")

    def others_running(self) -> bool:
        """Whether a live worker is running a trial."""
        with self.turn:
            return any(trial.state is TrialState.RUNNING for trial in self._requeue_orphans())

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            if not self.trials.set_state(trial.number, TrialState.RUNNING):
                return False
        except UpdateFinishedTrialError:  # another machine has taken and finished it
            return False
        self._set(trial, OWNER, self.name)
        before = trial.user_attrs.get(ATTEMPTS)
        attempts = int(before or 0) + 1 if OWNER in trial.user_attrs else 1  # NEW says 1, and has no owner
        if attempts != before:
            self._set(trial, ATTEMPTS, attempts)
        self.running = trial.number
        return True

    def _requeue_orphans(self) -> list[FrozenTrial]:
        """Requeue the trials of dead workers, or fail those without attempts left; returns all trials afterwards."""
        if outages(self.trials.storage) != self.outages:  # no heartbeat could be written meanwhile
            self.seen.clear()
            self.outages = outages(self.trials.storage)
        trials, changed = self.study.get_trials(deepcopy=False), False
        for trial in trials:
            if trial.state is not TrialState.RUNNING:
                continue
            owner = str(trial.user_attrs.get(OWNER, NOBODY))
            if owner == self.name or self._lives(owner, trial) or owner_of(self.trials, trial.number) != owner:
                continue
            changed = True
            attempts = int(trial.user_attrs.get(ATTEMPTS, 1))
            if attempts > self.retries:
                self._set(trial, REASON, f"killed {attempts} times")
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                self._requeue(trial)
        return self.study.get_trials(deepcopy=False) if changed else trials

    def _requeue(self, trial: FrozenTrial) -> None:
        try:
            self._set(trial, OWNER, NOBODY)
            self.trials.set_state(trial.number, TrialState.WAITING)
        except UpdateFinishedTrialError:  # its owner was alive, and has finished it
            pass

    def _set(self, trial: FrozenTrial, name: str, value: str | int) -> None:
        self.trials.set_user_attr(trial.number, name, value)

    def _lives(self, owner: str, trial: FrozenTrial) -> bool:
        """Whether a trial's owner is alive: by its lock on this machine, else by its heartbeat."""
        key = owner.rpartition("-")[2]
        lock = self.folder / f"{key}.lock"
        if key.startswith(_machine()) and lock.exists():
            try:
                with FileLock(lock, blocking=False):
                    pass
            except Timeout:
                return True
            lock.unlink(missing_ok=True)
            return False
        if not self.lease_seconds:
            return False
        # By this machine's clock and the heartbeats that it saw: clocks of two machines can differ.
        beat = (owner, trial.user_attrs.get(HEARTBEAT), trial.user_attrs.get(ATTEMPTS))
        now = time.monotonic()
        last, since = self.seen.get(trial.number, (None, now))
        if beat != last:
            since = now
            self.seen[trial.number] = (beat, since)
        return now - since <= self.lease_seconds

    def _beat(self) -> None:
        """The heartbeat thread: writes a new number into the running trial."""
        count = 0
        while not self.closed.wait(self.lease_seconds / BEATS):
            number, count = self.running, count + 1
            if number is None:
                continue
            try:
                self.trials.set_user_attr(number, HEARTBEAT, count)
            except UpdateFinishedTrialError:  # it has just ended
                continue
            except UserError:  # the storage is away: the main thread, which waits for it too, reports that
                return


def ended_here(study: optuna.Study) -> bool:
    """Whether this machine ran the trial that finished last, and so does what one machine of many has to do."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    last = max(finished, key=lambda trial: (trial.datetime_complete, trial.number), default=None)
    return last is None or str(last.user_attrs.get(OWNER, NOBODY)).rpartition("-")[2].startswith(_machine())


def owner_of(trials: TrialStore, number: int) -> str | None:
    """The name of the worker that owns a running trial; None where the trial is not running."""
    trial = trials.read(number)
    return str(trial.user_attrs.get(OWNER, NOBODY)) if trial.state is TrialState.RUNNING else None


def _machine() -> str:
    """Eight digits that identify this machine since its last boot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip()[:8] if boot.exists() else f"{uuid.getnode() & 0xFFFFFFFF:08x}"
