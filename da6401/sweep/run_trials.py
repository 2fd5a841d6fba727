"""One worker of a sweep: it claims a trial, gives it values and a folder, runs it and reports how it ended; then again.

The worker ends when the study has its total of trials, a limit is reached, or this machine cannot go on.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import time
import traceback
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from da6401.errors import (
    AllFailedError,
    BusyError,
    ChangedDataError,
    ConfigError,
    InterruptedRun,
    MachineError,
    OutOfTimeError,
    PrunedError,
    TakenOverError,
    UserError,
)
from da6401.redact import duration
from da6401.runs.run_folder import holds_run, read_result
from da6401.runs.trial_folders import trial_folder
from da6401.study.roles import EPOCHS, PHASE, PLANNED
from da6401.study.storage import is_shared
from da6401.sweep.confirm import seconds_to_confirm
from da6401.sweep.failures import machine_failure, sweep_failure
from da6401.sweep.hand_over import keep_best, trained_runs
from da6401.sweep.jobs import Ended, Job
from da6401.sweep.leases import FINISHED, REASON, RESUMABLE, SKIPPED, Worker
from da6401.sweep.model_folder import Trained
from da6401.sweep.prepare import Sweep
from da6401.sweep.race_trials import epochs_of
from da6401.sweep.summary import progress_line
from da6401.sweep.sweep_folder import choose_folder, move_other_run
from da6401.sweep.tables import parameters
from da6401.sweep.trial import earlier_end, trial_in_environment
from da6401.sweep.trial_timeout import deadline, landing_seconds, start_over, time_limit
from da6401.training.machine_failures import machine_problem
from da6401.training.signals import stop_on_signals

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


def run_trials(sweep: Sweep) -> None:
    """Run trials until none is left for this worker.

    Raises:
        MachineError: this machine cannot go on; its trial is requeued.
    """
    importlib.import_module("da6401.training.run")  # with torch: seconds that no trial should be charged
    worker = Worker(sweep.study, sweep.folder, retries=sweep.settings.retries, lease_seconds=sweep.lease_seconds)
    try:
        with stop_on_signals() as stop:
            while not _limit_reached(sweep):
                if stop.signum is not None:
                    raise InterruptedRun(stop.signum)
                if sweep.race is not None:
                    with worker.turn:
                        sweep.total = sweep.race.extend()
                claimed = worker.claim(sweep.total)
                if claimed is not None:
                    _run_trial(sweep, worker, claimed)
                elif worker.others_running():
                    time.sleep(POLL_SECONDS)  # a worker that dies leaves its trial to this one
                else:
                    return
    except OutOfTimeError as error:  # the trial is requeued, for a command that gives more minutes
        log.info("%s: its last trial is interrupted, and no further one starts", error)
    except Exception as error:  # also of the study's storage, whose disk may be full
        problem = machine_problem(error)
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
    overrides = [*overrides, *epochs_of(claimed)]
    job = Job(tuple(overrides), trial.number, choose_folder(sweep.study, sweep.composer, claimed, overrides))
    run, problem = sweep.folder / job.folder, None
    try:
        _make_room(sweep, job)
        ended = earlier_end(run, sweep.objective)
        if ended is None:
            log.info("trial %d starts, %s: %s", trial.number, _which(sweep, claimed), parameters(trial))
            ended = _launch(sweep, worker, trial, job)
            problem = machine_failure(ended.error, trial.params)
    except TakenOverError as error:
        log.warning("trial %d was %s, since this worker seemed dead", trial.number, error)
        return
    except BusyError as error:
        ended = Ended(error=error)
    if isinstance(ended.error, BusyError):
        log.warning("trial %d: the previous worker still holds the folder; the trial is requeued", trial.number)
        worker.requeue(claimed)
        time.sleep(sweep.lease_seconds or POLL_SECONDS)
        return
    if not worker.owns(claimed):
        log.warning("trial %d now belongs to another worker: its result here is discarded", trial.number)
        return
    if problem is not None:
        raise worker.leave_to_others(claimed, problem) from ended.error
    _report_end(sweep, trial, ended, run)
    trials = sweep.study.get_trials(deepcopy=False)
    sweep.checkpoints.prune(trials)
    if sweep.race is not None:
        keep_best(sweep.folder, trained_so_far(sweep), seconds=sweep.clock.spent)
    log.info(progress_line(sweep.objective, trials, trial.number, sweep.total, started=sweep.started,
                           hours=sweep.settings.max_hours))  # fmt: skip
    failure = sweep_failure(trials, most=sweep.max_failures)
    if failure is not None and not isinstance(failure, AllFailedError):  # later trials may succeed
        raise failure


def trained_so_far(sweep: Sweep) -> list[Trained]:
    """The trainings of a sweep, finished or not, best first."""
    trials = sweep.study.get_trials(deepcopy=False)
    return trained_runs([trial_folder(sweep.folder, trial) for trial in trials], sweep.objective)


def _which(sweep: Sweep, claimed: FrozenTrial) -> str:
    if sweep.race is None:
        return f"{claimed.number + 1} of {sweep.total}"
    attributes = claimed.user_attrs
    if PHASE not in attributes:  # of an older version, which repeated a failed trial without them
        return "again"
    kind = "to judge it" if attributes[PHASE] == "judge" else "a long training"
    left = duration(max(0.0, sweep.clock.left))
    return f"{kind}, {attributes[EPOCHS]} epochs, about {duration(attributes[PLANNED])} of {left} left"


def _suggest(sweep: Sweep, worker: Worker, claimed: FrozenTrial) -> tuple[optuna.Trial, list[str]] | None:
    """The claimed trial with its parameters, and its overrides; None where it would repeat another, and so fails."""
    # In a finite space no two workers of this machine draw at the same moment.
    with worker.turn if sweep.space.is_finite else contextlib.nullcontext():
        found = sweep.suggester.point(claimed)
    reason = "the search space is exhausted"
    if found is not None:
        trial, point = found
        once = is_shared(sweep.storage) and sweep.race is None
        repeated = sweep.suggester.repeats(claimed.number, point) if once else None
        if repeated is None:
            return trial, sweep.space.overrides(point)
        reason = f"repeats trial {repeated}, which another machine drew at the same moment"
    for name, value in ((SKIPPED, True), (REASON, reason)):
        worker.trials.set_user_attr(claimed.number, name, value)
    sweep.study.tell(claimed.number, state=TrialState.FAIL, skip_if_finished=True)
    log.info("trial %d: %s", claimed.number, reason)
    return None


def _make_room(sweep: Sweep, job: Job) -> None:
    """Move a run of another configuration out of the trial's folder.

    Raises:
        BusyError: another process runs in the folder.
    """
    if holds_run(sweep.folder / job.folder):
        with contextlib.suppress(ConfigError):  # values that do not fit together: the trial itself reports them
            move_other_run(sweep.folder / job.folder, sweep.composer.tree(job), sweep=sweep.folder)


def _launch(sweep: Sweep, worker: Worker, trial: optuna.Trial, job: Job) -> Ended:
    name = sweep.study.study_name

    def hung(reason: str) -> None:
        log.error("trial %d %s: this process ends, and the sweep continues", trial.number, reason)
        trial.set_user_attr(REASON, reason)
        sweep.study.tell(trial, state=TrialState.FAIL)
        start_over(sweep.folder)

    with (
        trial_in_environment(
            storage=sweep.storage, study=name, trial=trial.number, owner=worker.name, pruner=sweep.pruner
        ),
        time_limit(sweep.settings.trial_minutes, hung),
        deadline(sweep.clock, reserve=seconds_to_confirm(sweep.study, sweep.settings)),
    ):
        return sweep.run_jobs([job])[0]


def _report_end(sweep: Sweep, trial: optuna.Trial, ended: Ended, run: Path) -> None:
    """Record in the study how a trial ended, with the reason where it failed."""
    if ended.error is None:
        given = ended.value if isinstance(ended.value, (list, tuple)) else [ended.value]
        values = [float(item) for item in given if isinstance(item, (int, float))]
        if len(values) == len(sweep.study.directions) and all(map(math.isfinite, values)):
            for name, excess in sweep.objective.excess(read_result(run)).items():
                trial.set_constraint(name, excess)
            sweep.study.tell(trial, values, skip_if_finished=True)  # a call whose answer was lost is made twice
            return
        trial.set_user_attr(
            REASON, f"the objective is {ended.value!r}; {len(sweep.study.directions)} numbers are expected"
        )
    elif isinstance(ended.error, PrunedError):
        sweep.study.tell(trial, state=TrialState.PRUNED)
        return
    else:
        trial.set_user_attr(REASON, ended.reason[:400])
        if isinstance(ended.error, ChangedDataError):
            trial.set_user_attr(RESUMABLE, True)
        if not isinstance(ended.error, UserError):
            trial.set_user_attr("traceback", "".join(traceback.format_exception(ended.error))[-4000:])
    sweep.study.tell(trial, state=TrialState.FAIL)


def _limit_reached(sweep: Sweep) -> bool:
    """Whether sweep.minutes, sweep.max_hours or sweep.patience forbids another trial."""
    settings = sweep.settings
    if sweep.clock.left - seconds_to_confirm(sweep.study, settings) < landing_seconds(sweep.clock):
        log.info("sweep.minutes=%g are over: no further trial", settings.minutes)
        return True
    if settings.max_hours and time.perf_counter() - sweep.started > 3600 * settings.max_hours:
        log.info("sweep.max_hours=%g is over: no further trial", settings.max_hours)
        return True
    if settings.patience:
        trials = sweep.study.get_trials(deepcopy=False, states=FINISHED)
        # Of the best the latest, by its first trial: repeating a configuration with another seed does not improve it.
        best = max((each.trials[0].number for each in sweep.objective.best(trials)), default=None)
        if best is not None and sum(trial.number > best for trial in trials) >= settings.patience:
            log.info("sweep.patience=%d trials without a better one: no further trial", settings.patience)
            return True
    return False
