"""A whole sweep: its workers run the trials up to the study's total; then come the confirmation and the summary.

One worker is this process, and its trials share the images in memory. Several are processes of the same command.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna

from da6401.config.compose import plain_tree
from da6401.config.schema import TrackingConfig
from da6401.errors import MachineError, UserError
from da6401.runs.atomic_files import WriteError
from da6401.study.storage import is_shared
from da6401.sweep import worker_pool
from da6401.sweep.confirm import Confirmed, confirm
from da6401.sweep.dry_run import print_dry_run
from da6401.sweep.end_of_time import end_here, not_in_time
from da6401.sweep.failures import sweep_failure
from da6401.sweep.hand_over import hand_over, keep_best
from da6401.sweep.leases import FINISHED, ended_here
from da6401.sweep.model_folder import HandedOver
from da6401.sweep.prepare import Sweep, prepare
from da6401.sweep.run_trials import run_trials, trained_so_far
from da6401.sweep.summary import write_summary
from da6401.sweep.trial_timeout import deadline, end_at, landing_seconds
from da6401.training.tracking import track_sweep

if TYPE_CHECKING:
    from da6401.sweep.plugin import Setup, StudySweeper

log = logging.getLogger(__name__)


@worker_pool.one_clock()
def run_study(sweeper: StudySweeper, given: Setup, arguments: Sequence[str]) -> None:
    """Bring the study to its total of trials, then write and print its summary.

    Raises:
        UserError: the storage cannot be opened, the space has changed, or too many trials failed, or all.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = prepare(sweeper, given, arguments)
    if sweep.settings.dry_run:
        print_dry_run(sweep)
        return
    if worker_pool.is_worker():
        with end_at(sweep.clock, functools.partial(end_here, sweep)):
            run_trials(sweep)
        return
    finished = len(sweep.study.get_trials(deepcopy=False, states=FINISHED))
    if finished:
        log.info("study %s continues: %d of %d trials are finished", sweep.study.study_name, finished, sweep.total)
    confirmed, handed, is_last = list[Confirmed](), None, False
    problem: UserError | None = None
    try:
        with sweep.clock.saving(sweep.study), end_at(sweep.clock, functools.partial(end_here, sweep)):
            _run_workers(sweeper, given, sweep, arguments)
            # Of many machines, the one that ran the last trial confirms; once all were finished before, any that asks.
            is_last = finished >= sweep.total or not is_shared(sweep.storage) or ended_here(sweep.study)
            if sweep.race is not None:
                handed = _hand_over(sweep)
            elif is_last:
                left = sweep.clock.left - landing_seconds(sweep.clock)
                with deadline(sweep.clock):
                    confirmed = confirm(
                        sweep.study, sweep.space, sweep.folder, sweep.settings, sweep.run_jobs, seconds=left
                    )
    except UserError as error:  # a worker's; it is raised after the summary
        problem = error
    finally:
        seconds = sweep.clock.spent if sweep.settings.minutes else time.perf_counter() - sweep.started
        try:
            if sweep.race is not None and handed is None:  # a signal, or a worker's error
                handed = keep_best(sweep.folder, trained_so_far(sweep), seconds=seconds)
            write_summary(
                sweep.study, sweep.folder, sweep.settings, seconds=seconds, confirmed=confirmed, handed=handed
            )
        except WriteError as error:  # an earlier error comes first
            problem = problem or error
    if not isinstance(problem, MachineError):
        problem = sweep_failure(sweep.study.get_trials(deepcopy=False), most=sweep.max_failures) or problem
    problem = problem or not_in_time(sweep)
    if is_last:
        track_sweep(
            TrackingConfig(**plain_tree(given.config.tracking)), study=sweep.study.study_name, folder=sweep.folder
        )
    if problem is not None:
        raise problem


def _hand_over(sweep: Sweep) -> HandedOver | None:
    """The race's model, from as many networks as the time left allows."""
    assert sweep.race is not None, "only a race hands a model over"
    trained = trained_so_far(sweep)
    if keep_best(sweep.folder, trained, seconds=sweep.clock.spent) is None:
        return None
    members = sweep.race.affordable_members()
    return hand_over(sweep.folder, trained, members=members, seconds=sweep.clock.spent)


def _run_workers(sweeper: StudySweeper, given: Setup, sweep: Sweep, arguments: Sequence[str]) -> None:
    """Run the trials in workers of a launcher, in worker processes, or in this process."""
    if given.workers is not None:
        slots = worker_pool.slots_of(given.config.hydra.launcher, sweeper.keys.n_jobs)
        worker_pool.launch_workers(given.workers, arguments, folder=sweep.folder, slots=slots)
    elif sweeper.keys.n_jobs > 1:
        settings = sweep.settings
        worker_pool.run_workers(sweep.folder, slots=sweeper.keys.n_jobs, gpus=settings.gpus, retries=settings.retries)
    else:
        run_trials(sweep)
