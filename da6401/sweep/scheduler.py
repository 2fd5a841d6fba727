"""A sweep: workers claim trials, run them and tell how they ended, until the study's total; then the summary.

One worker is this process, and its trials share the images in memory. Several are processes of the same command.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from da6401.config.schema import TrackingConfig
from da6401.errors import (
    AllFailedError,
    BusyError,
    ConfigError,
    InterruptedRun,
    MachineError,
    PrunedError,
    TakenOverError,
    UserError,
)
from da6401.runs.atomic_files import WriteError
from da6401.runs.run_folder import read_result
from da6401.runs.run_lock import used
from da6401.runs.trial_folders import FOLDER, check_name, folder_name, usual_name
from da6401.study.storage import is_shared
from da6401.sweep import worker_pool
from da6401.sweep.confirm import Confirmed, confirm
from da6401.sweep.ending import failure, machine_failure
from da6401.sweep.launch import Job
from da6401.sweep.leases import FINISHED, OWNER, REASON, SKIPPED, Worker, ended_here
from da6401.sweep.prepare import Sweep, plain, prepare
from da6401.sweep.rehearsal import rehearse
from da6401.sweep.retrying import retry_folder
from da6401.sweep.run_folders import make_room
from da6401.sweep.summary import parameters, progress_line, write_summary
from da6401.sweep.trial import ended_before, handed_over
from da6401.sweep.trial_timeout import start_over, time_limit
from da6401.training.machine_failures import machine_problem, memory_of_machine
from da6401.training.signals import stop_on_signals
from da6401.training.tracking import track_sweep

if TYPE_CHECKING:
    from da6401.sweep.plugin import StudySweeper

log = logging.getLogger(__name__)


POLL_SECONDS = 0.5


@worker_pool.one_clock()
def run_study(sweeper: StudySweeper, config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Bring the study to its total of trials, then write and print its summary.

    Raises:
        UserError: the storage cannot be opened, the space has changed, or too many trials failed, or all.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = prepare(sweeper, config, launcher, arguments)
    if sweep.settings.dry_run:
        rehearse(sweep)
        return
    if worker_pool.is_worker():
        _work(sweep)
        return
    existing = len(sweep.study.get_trials(deepcopy=False, states=FINISHED))
    if existing:
        log.info("study %s goes on: %d of %d trials are finished", sweep.study.study_name, existing, sweep.total)
    settings, confirmed, last = sweep.settings, list[Confirmed](), False
    problem: UserError | None = None
    try:
        if sweeper.workers is not None:
            slots = worker_pool.slots_of(config.hydra.launcher, sweeper.n_jobs)
            worker_pool.launch_workers(sweeper.workers, arguments, folder=sweep.folder, slots=slots)
        elif sweeper.n_jobs > 1:
            worker_pool.run_workers(sweep.folder, slots=sweeper.n_jobs, gpus=settings.gpus, retries=settings.retries)
        else:
            _work(sweep)
        # Of many machines, that of the last trial confirms; all being finished before, whoever asks once more.
        last = existing >= sweep.total or not is_shared(sweep.storage) or ended_here(sweep.study)
        if last:
            confirmed = confirm(sweep.study, sweep.space, sweep.folder, settings, sweep.launch)
    except UserError as error:  # a worker's; what its trials say of it comes last
        problem = error
    finally:
        seconds = time.perf_counter() - sweep.started
        try:
            write_summary(sweep.study, sweep.folder, settings, seconds=seconds, confirmed=confirmed)
        except WriteError as error:  # what ended the sweep before has the first word
            problem = problem or error
    if not isinstance(problem, MachineError):
        problem = failure(sweep.study.get_trials(deepcopy=False), most=sweep.max_failures) or problem
    if last:
        track_sweep(TrackingConfig(**plain(config.tracking)), study=sweep.study.study_name, folder=sweep.folder)
    if problem is not None:
        raise problem


def _work(sweep: Sweep) -> None:
    """Claim, launch, tell, until there is nothing left for this worker.

    Raises:
        MachineError: this machine cannot go on; the trial that showed it is put back.
    """
    importlib.import_module("da6401.training.run")  # with torch: seconds that are no trial's
    worker = Worker(sweep.study, sweep.folder, retries=sweep.settings.retries, lease_seconds=sweep.lease_seconds)
    try:
        with stop_on_signals() as stop:
            while not _is_enough(sweep):
                if stop.signum is not None:
                    raise InterruptedRun(stop.signum)
                claimed = worker.claim(sweep.total)
                if claimed is not None:
                    _run_trial(sweep, worker, claimed)
                elif worker.others_running():
                    time.sleep(POLL_SECONDS)  # a worker that dies leaves its trial to this one
                else:
                    return
    except Exception as error:  # of the study's storage, too: a disk is full there
        problem = machine_problem(error, memory_bytes=memory_of_machine())
        if problem is None or isinstance(error, UserError):
            raise
        raise MachineError(f"this worker ends: {problem}") from error
    finally:
        worker.close()


def _run_trial(sweep: Sweep, worker: Worker, claimed: FrozenTrial) -> None:
    suggested = _suggest(sweep, worker, claimed)
    if suggested is None:
        return
    trial, overrides = suggested
    job = Job(tuple(overrides), trial.number, _folder(sweep, claimed, overrides))
    run, problem = sweep.folder / job.folder, None
    try:
        ended = _room_for(sweep, job) or ended_before(run, sweep.objective)
        if ended is None:
            log.info("trial %d starts, %d of %d: %s", trial.number, trial.number + 1, sweep.total, parameters(trial))
            ended = _launch(sweep, worker, trial, job)
            problem = machine_failure(ended, trial.params)
    except TakenOverError as error:
        log.warning("trial %d was %s, which took this one for dead", trial.number, error)
        return
    if isinstance(ended._return_value, BusyError):
        log.warning("trial %d: its worker was taken for dead, and still holds its folder: it is put back", trial.number)
        worker.put_back(claimed)
        time.sleep(sweep.lease_seconds or POLL_SECONDS)
        return
    if not worker.owns(claimed):
        log.warning("trial %d belongs to another worker by now: what it gave here is left out", trial.number)
        return
    if problem is not None:
        raise worker.give_up(claimed, problem) from ended._return_value
    _tell(sweep, trial, ended, run)
    trials = sweep.study.get_trials(deepcopy=False)
    sweep.checkpoints.prune(trials)
    log.info(progress_line(sweep.objective, trials, trial.number, sweep.total, started=sweep.started,
                           hours=sweep.settings.max_hours))  # fmt: skip
    many = failure(trials, most=sweep.max_failures)
    if many is not None and not isinstance(many, AllFailedError):  # those to come may do better
        raise many


def _suggest(sweep: Sweep, worker: Worker, claimed: FrozenTrial) -> tuple[optuna.Trial, list[str]] | None:
    """The claimed trial with its parameters, and its overrides; None where it would repeat another, which is told."""
    # In a space that can be exhausted no two workers of this machine draw at the same moment.
    with worker.turn if sweep.space.is_finite else contextlib.nullcontext():
        found = sweep.suggester.point(claimed)
    reason = "the search space is exhausted"
    if found is not None:
        trial, point = found
        repeated = sweep.suggester.repeats(claimed.number, point) if is_shared(sweep.storage) else None
        if repeated is None:
            return trial, sweep.space.overrides(point)
        reason = f"repeats trial {repeated}, which another machine drew at the same moment"
    for name, value in ((SKIPPED, True), (REASON, reason)):
        sweep.study._storage.set_trial_user_attr(claimed._trial_id, name, value)
    sweep.study.tell(claimed.number, state=TrialState.FAIL, skip_if_finished=True)
    log.info("trial %d: %s", claimed.number, reason)
    return None


def _folder(sweep: Sweep, claimed: FrozenTrial, overrides: list[str]) -> str:
    """The folder of a trial's run: the one that it has begun in, or what the command says, which is kept with it.

    Raises:
        UserError: it cannot be there, or is another trial's.
    """
    name, storage = claimed.user_attrs.get(FOLDER), sweep.study._storage
    if name or (OWNER in claimed.user_attrs and FOLDER not in claimed.user_attrs):
        return folder_name(claimed)
    name = sweep.jobs.folder(overrides, claimed.number)
    name = retry_folder(name, claimed, sweep.study.get_trials(deepcopy=False))
    if name != usual_name(claimed.number):
        check_name(name, claimed.number, ())
        storage.set_trial_user_attr(claimed._trial_id, FOLDER, name)  # first: of two workers one sees the other's
        try:
            check_name(name, claimed.number, sweep.study.get_trials(deepcopy=False))
        except UserError:
            storage.set_trial_user_attr(claimed._trial_id, FOLDER, None)
            raise
    return name


def _launch(sweep: Sweep, worker: Worker, trial: optuna.Trial, job: Job) -> JobReturn:
    name = sweep.study.study_name

    def hung(reason: str) -> None:
        log.error("trial %d %s: this process ends, and the sweep goes on", trial.number, reason)
        trial.set_user_attr(REASON, reason)
        sweep.study.tell(trial, state=TrialState.FAIL)
        start_over(sweep.folder)

    with (
        handed_over(storage=sweep.storage, study=name, trial=trial._trial_id, owner=worker.name, pruner=sweep.pruner),
        time_limit(sweep.settings.trial_minutes, hung),
    ):
        return sweep.launch([job])[0]


def _room_for(sweep: Sweep, job: Job) -> JobReturn | None:
    """Let a run of another configuration leave the trial's folder; how the trial ends where that one goes on there."""
    run = sweep.folder / job.folder
    if not used(run):
        return None
    ended = JobReturn()
    try:
        make_room(run, sweep.jobs.tree(job.overrides, job.number, job.folder), sweep=sweep.folder)
    except BusyError as error:
        ended.status, ended.return_value = JobStatus.FAILED, error
        return ended
    except ConfigError:  # the trial's values do not fit together, as it will say itself
        pass
    return None


def _tell(sweep: Sweep, trial: optuna.Trial, ended: JobReturn, run: Path) -> None:
    """Tell the study how a trial ended, with the reason where it failed."""
    error = ended._return_value
    if ended.status is JobStatus.COMPLETED:
        given = error if isinstance(error, (list, tuple)) else [error]
        values = [float(item) for item in given if isinstance(item, (int, float))]
        if len(values) == len(sweep.study.directions) and all(math.isfinite(value) for value in values):
            result = read_result(run)
            for name, excess in sweep.objective.excess(result).items():
                trial.set_constraint(name, excess)
            sweep.study.tell(trial, values, skip_if_finished=True)  # a call whose answer was lost is made twice
            return
        trial.set_user_attr(REASON, f"the objective is {error!r}; {len(sweep.study.directions)} numbers are expected")
    elif isinstance(error, PrunedError):
        sweep.study.tell(trial, state=TrialState.PRUNED)
        return
    else:
        trial.set_user_attr(REASON, f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
        if isinstance(error, BaseException) and not isinstance(error, UserError):
            trial.set_user_attr("traceback", "".join(traceback.format_exception(error))[-4000:])
    sweep.study.tell(trial, state=TrialState.FAIL)


def _is_enough(sweep: Sweep) -> bool:
    """Whether a limit of time or patience says that no trial is to be started."""
    settings = sweep.settings
    if settings.max_hours and time.perf_counter() - sweep.started > 3600 * settings.max_hours:
        log.info("sweep.max_hours=%g is over: no further trial", settings.max_hours)
        return True
    if settings.patience:
        trials = sweep.study.get_trials(deepcopy=False, states=FINISHED)
        # The first trial of the youngest of the best: a repetition with another seed is no better one.
        best = max((each.trials[0].number for each in sweep.objective.best(trials)), default=None)
        if best is not None and sum(trial.number > best for trial in trials) >= settings.patience:
            log.info("sweep.patience=%d trials without a better one: no further trial", settings.patience)
            return True
    return False
