"""A sweep: workers claim trials, run them and tell how they ended, until the study's total; then the summary.

One worker is this process, and its trials share the images in memory. Several are processes of the same command.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from da6401.config.schema import SweepConfig, TrackingConfig
from da6401.errors import BusyError, InterruptedRun, PrunedError, RunError, TakenOverError, UserError
from da6401.rundir import RunResult, read_result
from da6401.stopping import stop_on_signals
from da6401.storage import is_shared, open_storage
from da6401.sweep import pool
from da6401.sweep.claims import FINISHED, REASON, Worker, ended_here
from da6401.sweep.confirm import Confirmed, confirm
from da6401.sweep.disk import Checkpoints
from da6401.sweep.launch import Launch, launch_with
from da6401.sweep.limits import start_over, time_limit
from da6401.sweep.param_writes import written_together
from da6401.sweep.pruners import build_pruner
from da6401.sweep.space import Space, parse_space
from da6401.sweep.study import (
    best_of_study,
    build_sampler,
    enqueue_first,
    hold_space,
    open_study,
    reseed,
    storage_of,
    total_trials,
)
from da6401.sweep.summary import best_trials, progress_line, run_folder, write_summary
from da6401.sweep.trial import handed_over
from da6401.tracking import track_sweep

if TYPE_CHECKING:
    from da6401.sweep.plugin import StudySweeper

log = logging.getLogger(__name__)

QUIET = "hydra.job_logging.handlers.console.level"  # a trial's epochs go to its train.log, not to the terminal
POLL_SECONDS = 0.5


@dataclass
class Sweep:
    """All that a worker needs to work on a study."""

    study: optuna.Study
    space: Space
    folder: Path
    storage: str  # its address
    total: int
    seed: int  # of the sampler
    pruner: dict[str, Any]
    settings: SweepConfig
    max_failures: float
    checkpoints: Checkpoints
    launch: Launch
    started: float

    @property
    def lease_seconds(self) -> float:
        """How long a worker of another machine may be silent; 0 where the study is this machine's alone."""
        return self.settings.lease_seconds if is_shared(self.storage) else 0.0


def run_study(sweeper: StudySweeper, config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Bring the study to its total of trials, then write and print its summary.

    Raises:
        UserError: the storage cannot be opened, the space has changed, or more trials failed than max_failure_rate.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = _prepare(sweeper, config, launcher, arguments)
    if sweep.settings.dry_run:
        _dry_run(sweep)
        return
    if pool.is_worker():
        _work(sweep)
        return
    existing = len(sweep.study.get_trials(deepcopy=False, states=FINISHED))
    if existing:
        log.info("study %s goes on: %d of %d trials are finished", sweep.study.study_name, existing, sweep.total)
    settings, confirmed = sweep.settings, list[Confirmed]()
    try:
        if not isinstance(launcher, BasicLauncher):
            pool.launch_workers(launcher, folder=sweep.folder, slots=sweeper.n_jobs)
        elif sweeper.n_jobs > 1:
            pool.run_workers(sweep.folder, slots=sweeper.n_jobs, gpus=settings.gpus, retries=settings.retries)
        else:
            _work(sweep)
        # Of many machines, that of the last trial confirms; all being finished before, whoever asks once more.
        last = existing >= sweep.total or not is_shared(sweep.storage) or ended_here(sweep.study)
        if last:
            confirmed = confirm(sweep.study, sweep.space, sweep.folder, settings, sweep.launch)
    finally:
        seconds = time.perf_counter() - sweep.started
        write_summary(sweep.study, sweep.folder, seconds=seconds, confirmed=confirmed, curve=settings.curve)
    if last:
        track_sweep(TrackingConfig(**_plain(config.tracking)), study=sweep.study.study_name, folder=sweep.folder)


def _prepare(sweeper: StudySweeper, config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> Sweep:
    folder = Path(str(config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    choices = {str(group): option for group, option in OmegaConf.to_container(config.hydra.runtime.choices).items()}  # type: ignore[union-attr]
    space = parse_space(sweeper.params, sweeper.conditional, arguments, choices=choices)
    settings = SweepConfig(**_plain(config.sweep))
    alone = sweeper.n_jobs == 1 and isinstance(launcher, BasicLauncher)
    address = storage_of(sweeper.storage, folder, alone=alone)
    storage = open_storage(address, minutes=settings.storage_minutes)
    study, created = open_study(name=sweeper.study_name or folder.name, storage=storage, directions=sweeper.directions)
    is_new = created or not (is_shared(address) or study.get_trials(deepcopy=False))
    if not pool.is_worker():  # a worker has the leader's command, and overrides of its own
        hold_space(study, space, extend=str(config.resume) == "extend")
    seed = sweeper.sampler.get("seed")
    seed = int((config.seed or 0) if seed is None else seed)  # ${hydra:job.num} is of a trial, and no seed here
    study.sampler = build_sampler(sweeper.sampler, space, seed=seed)
    pruner = _plain(sweeper.pruner)
    study.pruner = build_pruner(pruner, epochs=int(config.trainer.epochs))  # TPE ranks hyperband's brackets apart
    if is_new and not pool.is_worker() and not isinstance(study.sampler, optuna.samplers.GridSampler):
        warm = best_of_study(str(config.warm_start), folder) if config.warm_start else []
        defaults = {
            name: OmegaConf.select(config, name) for branch in space.branches for name in branch.space
        } | choices
        enqueue_first(study, space, defaults, warm)
    extend = _custom_search_space(sweeper.custom_search_space)
    if extend is not None:
        space = dataclasses.replace(space, extend=functools.partial(extend, config))
    quiet = [f"{QUIET}=WARNING"] if OmegaConf.select(config, QUIET) is not None else []
    run_one = launch_with(launcher)

    def launch(overrides: list[str], number: int) -> JobReturn:
        return run_one([*overrides, *quiet], number)

    total = total_trials(study, space, sweeper.n_trials)
    return Sweep(
        study, space, folder, address, total, seed, pruner, settings, sweeper.max_failure_rate * total,
        Checkpoints(folder, settings), launch, time.perf_counter(),
    )  # fmt: skip


def _work(sweep: Sweep) -> None:
    """Claim, launch, tell, until there is nothing left for this worker."""
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
    finally:
        worker.close()


def _run_trial(sweep: Sweep, worker: Worker, claimed: FrozenTrial) -> None:
    trial, overrides = _suggest(sweep, claimed)
    try:
        ended = _finished_before(sweep, trial.number) or _launch(sweep, worker, trial, overrides)
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
    _tell(sweep, trial, ended)
    trials = sweep.study.get_trials(deepcopy=False)
    sweep.checkpoints.prune(sweep.study, trials)
    log.info(progress_line(sweep.study, trials, trial.number, sweep.total, started=sweep.started))
    failed = sum(each.state is TrialState.FAIL for each in trials)
    if failed > sweep.max_failures:
        reason = trials[trial.number].user_attrs.get(REASON, "")
        raise UserError(f"{failed} trials failed, more than hydra.sweeper.max_failure_rate allows: {reason}")


def _suggest(sweep: Sweep, claimed: FrozenTrial) -> tuple[optuna.Trial, list[str]]:
    """The claimed trial with its parameters, and its overrides. What Study.ask does, for a trial that is there."""
    sweep.study._thread_local.cached_all_trials = None  # the sampler looks at what others have finished meanwhile
    reseed(sweep.study.sampler, seed=sweep.seed, number=claimed.number)
    trial = optuna.Trial(sweep.study, claimed._trial_id)
    with written_together(trial):
        return trial, sweep.space.suggest(trial)


def _launch(sweep: Sweep, worker: Worker, trial: optuna.Trial, overrides: list[str]) -> JobReturn:
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
        return sweep.launch(overrides, trial.number)


def _finished_before(sweep: Sweep, number: int) -> JobReturn | None:
    """The end of a trial whose worker died between finishing the run and telling the study."""
    try:
        result = read_result(run_folder(sweep.folder, number))
    except RunError:
        return None
    if result.status == "completed" and sweep.settings.objectives == "val_accuracy":
        ended = JobReturn()
        ended.status, ended.return_value = JobStatus.COMPLETED, result.val_accuracy
        return ended
    if result.status in ("pruned", "diverged", "failed"):
        ended = JobReturn()
        error = PrunedError(result.reason) if result.status == "pruned" else RunError(result.reason)
        ended.status, ended.return_value = JobStatus.FAILED, error
        return ended
    return None


def _tell(sweep: Sweep, trial: optuna.Trial, ended: JobReturn) -> None:
    """Tell the study how a trial ended, with the reason where it failed."""
    error = ended._return_value
    if ended.status is JobStatus.COMPLETED:
        values = [float(item) for item in (error if isinstance(error, (list, tuple)) else [error])]
        if len(values) == len(sweep.study.directions) and all(math.isfinite(value) for value in values):
            result = read_result(run_folder(sweep.folder, trial.number))
            for name, excess in _excess(sweep.settings, result).items():
                trial.set_constraint(name, excess)
            try:
                sweep.study.tell(trial, values, skip_if_finished=True)  # a call whose answer was lost is made twice
            except RuntimeError as stop:
                if "Study.stop" not in str(stop):  # the grid sampler's way to say, after telling, that all is done
                    raise
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


def _excess(settings: SweepConfig, result: RunResult) -> dict[str, float]:
    """By how much the run is over each hard limit that is set; at most 0 where it keeps it."""
    limits = {"parameters": settings.max_parameters, "macs": settings.max_macs}
    return {name: float(getattr(result, name) - limit) for name, limit in limits.items() if limit}


def _is_enough(sweep: Sweep) -> bool:
    """Whether a limit of time or patience says that no trial is to be started."""
    settings = sweep.settings
    if settings.max_hours and time.perf_counter() - sweep.started > 3600 * settings.max_hours:
        log.info("sweep.max_hours=%g is over: no further trial", settings.max_hours)
        return True
    if settings.patience and len(sweep.study.directions) == 1:
        trials = sweep.study.get_trials(deepcopy=False, states=FINISHED)
        after = [sum(trial.number > best.number for trial in trials) for best in best_trials(sweep.study, trials)]
        if after and after[0] >= settings.patience:
            log.info("sweep.patience=%d trials without a better one: no further trial", settings.patience)
            return True
    return False


def _dry_run(sweep: Sweep) -> None:
    """Print the first configurations and the expected time."""
    rehearsal = optuna.create_study(sampler=sweep.study.sampler, directions=sweep.study.directions)
    for number in range(min(5, sweep.total)):
        print(f"trial {number}: {' '.join(sweep.space.suggest(rehearsal.ask()))}")
    done = sweep.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seconds = [trial.duration.total_seconds() for trial in done if trial.duration]
    if seconds:
        left = sweep.total - len(sweep.study.get_trials(deepcopy=False, states=FINISHED))
        minutes = left * sum(seconds) / len(seconds) / 60
        print(f"{left} trials are left, about {minutes:.1f} minutes by those that are done")
    else:
        print(f"{sweep.total} trials; the time of one is known after the first")


def _plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def _custom_search_space(name: str | None) -> Callable[[DictConfig, optuna.Trial], None] | None:
    if name is None:
        return None
    return cast(Callable[[DictConfig, optuna.Trial], None], instantiate({"_target_": name, "_partial_": True}))
