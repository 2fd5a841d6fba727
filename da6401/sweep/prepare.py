"""Opens a sweep: its study, its search space, its sampler and pruner, the total of its trials."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from da6401.config.compose import plain_tree
from da6401.config.schema import SweepConfig
from da6401.config.search_path import group_options, network_of
from da6401.config.search_space import SearchSpace
from da6401.config.sweep_space import Search, sweep_space
from da6401.config.validate import config_from_tree
from da6401.errors import ConfigError
from da6401.study.clock import Clock
from da6401.study.objective import Objective
from da6401.study.storage import copy_to_memory, is_shared, open_storage
from da6401.sweep import worker_pool
from da6401.sweep.checkpoint_retention import Checkpoints
from da6401.sweep.failures import RETRY_OF, retried, retry_failed
from da6401.sweep.jobs import JobComposer, RunJobs, job_runner
from da6401.sweep.open_study import (
    FIRST_SECONDS,
    HAS_FIRST,
    best_of_study,
    enqueue_first,
    is_begun,
    lacks_first,
    open_study,
    storage_of,
)
from da6401.sweep.preflight import check_inputs
from da6401.sweep.pruners import build_pruner
from da6401.sweep.race_trials import RaceTrials
from da6401.sweep.same_plugins import check_same_plugins
from da6401.sweep.same_space import check_same_folds, check_same_space, names_in, stored_distributions
from da6401.sweep.samplers import build_sampler, takes_in_order
from da6401.sweep.suggest import COUNTED, Suggester, total_trials
from da6401.sweep.sweep_folder import check_owner
from da6401.sweep.trial import forget_study

if TYPE_CHECKING:
    from da6401.sweep.plugin import Setup, StudySweeper

log = logging.getLogger(__name__)

DEFAULT_TRIALS = 20  # where the sampler does not take the points in order


@dataclass
class Sweep:
    """All that a worker needs to work on a study."""

    study: optuna.Study
    space: SearchSpace
    suggester: Suggester
    folder: Path
    storage: str  # its address
    total: int
    pruner: dict[str, Any]
    settings: SweepConfig
    max_failures: float
    checkpoints: Checkpoints
    composer: JobComposer
    run_jobs: RunJobs
    started: float  # by time.perf_counter()
    clock: Clock
    race: RaceTrials | None  # adds the trials one by one; else there are `total`

    @property
    def objective(self) -> Objective:
        """What is optimised."""
        return Objective.of(self.settings)

    @property
    def lease_seconds(self) -> float:
        """How long a worker of another machine may send no heartbeat; 0 where only this machine uses the study."""
        return self.settings.lease_seconds if is_shared(self.storage) else 0.0


def prepare(sweeper: StudySweeper, given: Setup, arguments: Sequence[str]) -> Sweep:
    """Open the study, check that it fits the command, and build what its workers need.

    Raises:
        UserError: the storage cannot be opened, the space has changed, or the sampler refuses its keys.
    """
    config, keys = given.config, sweeper.keys
    folder, leads = Path(str(config.hydra.sweep.dir)), not worker_pool.is_worker()
    space = _space(sweeper, given, arguments)
    settings = config_from_tree({"sweep": plain_tree(config.sweep)}).sweep
    composer = JobComposer(given.context, config)
    named = str(config.hydra.runtime.choices["hydra/sweeper/sampler"])
    extend = _custom_search_space(keys.custom_search_space)
    in_order = takes_in_order(named, space, extended=extend is not None)
    seed = sweeper.sampler.get("seed")
    seed = int((config.seed or 0) if seed is None else seed)
    sampler = build_sampler(named, plain_tree(sweeper.sampler), seed=seed)
    pruner = plain_tree(sweeper.pruner)
    if given.workers is None and worker_pool.CHECKED not in os.environ:  # on the machine that trains
        check_inputs(space, composer, fetch=not settings.dry_run)

    alone = keys.n_jobs == 1 and given.task is not None
    address = storage_of(keys.storage, folder, alone=alone)
    name = keys.study_name or folder.name
    forget_study()
    if settings.dry_run:
        storage = copy_to_memory(address, [name, settings.warm_start])
    else:
        folder.mkdir(parents=True, exist_ok=True)
        storage = open_storage(address, minutes=settings.storage_minutes)
    # Before the study is created: a command that is refused here leaves none.
    is_new = leads and not is_begun(name, storage)
    warm = best_of_study(settings.warm_start, folder, storage) if is_new and settings.warm_start else []
    study, created = open_study(name=name, storage=storage, objective=Objective.of(settings))
    space = space.named_as(names_in(study))
    check_same_plugins(study)
    if leads:  # a worker has the leader's command with other overrides
        check_owner(folder, name, write=not settings.dry_run)
        check_same_folds(study, settings.folds)
        check_same_space(study, space, composer, extend=settings.on_space_change == "extend")
    study.sampler = sampler
    # TPE ranks hyperband's brackets apart.
    study.pruner = build_pruner(pruner, steps=settings.folds or int(config.trainer.epochs))
    is_race = settings.strategy == "race"
    if is_new and (created or lacks_first(study, seconds=0 if settings.dry_run else FIRST_SECONDS)):
        if not is_race:
            enqueue_first(study, space, warm, in_order=in_order)
        study.set_user_attr(HAS_FIRST, True)
    if leads and settings.retry_failed:
        retry_failed(study)
    trials = study.get_trials(deepcopy=False)
    stored = stored_distributions(trials, space)
    suggester = Suggester(study, space, extend and functools.partial(extend, config), in_order, seed, stored)
    total = len(trials) if is_race else _total(suggester, trials, keys.n_trials)
    clock = worker_pool.clock_of(study, settings.minutes)
    race = RaceTrials(study, space, composer, folder, clock, seed, settings.members) if is_race else None
    if race is not None and leads and not settings.dry_run:
        race.check_images()
    return Sweep(
        study=study, space=space, suggester=suggester, folder=folder, storage=address, total=total, pruner=pruner,
        settings=settings, max_failures=math.inf if is_race else keys.max_failure_rate * total, composer=composer,
        checkpoints=Checkpoints(folder, settings), run_jobs=job_runner(given.launcher, composer, given.task),
        started=worker_pool.began(), clock=clock, race=race,
    )  # fmt: skip


def _space(sweeper: StudySweeper, given: Setup, arguments: Sequence[str]) -> SearchSpace:
    """The search space; its problems here are those that only a composed job shows: the command line was checked."""
    loader, problems = given.context.config_loader, list[str]()
    space = sweep_space(
        given.config, Search(sweeper.params, sweeper.conditional, sweeper.first), arguments, group_options(loader),
        problems, functools.partial(network_of, loader, given.config),
    )  # fmt: skip
    if problems:
        raise ConfigError(problems)
    if space.replaced and not worker_pool.is_worker():
        fixed = ", ".join(f"{key}={space.fixed[key]}" for key in space.replaced)
        log.info("not searched, since the command line gives one value: %s", fixed)
    return space


def _total(suggester: Suggester, trials: Sequence[FrozenTrial], n_trials: int | None) -> int:
    """The study's total of trials; logged where it is not the number that was asked for."""
    space, retries = suggester.space, len(retried(trials))
    last = max((trial.number for trial in trials if RETRY_OF in trial.user_attrs), default=-1)
    trials = [trial for trial in trials if RETRY_OF not in trial.user_attrs]
    wanted = n_trials or (COUNTED if suggester.in_order else DEFAULT_TRIALS)
    total = wanted if suggester.extend else total_trials(space, trials, wanted)
    points = space.count(COUNTED)
    if worker_pool.is_worker():
        pass  # its leader has logged it
    elif not space.parameters and not suggester.extend:
        log.info("no key is searched: one trial")
    elif total < wanted and n_trials is not None:
        log.info(
            "the search space has %d configurations, and each is trained once: n_trials=%d is more", points, n_trials
        )
    elif suggester.in_order:
        log.info("%d of %d configurations, one after the other", total, points)
    return max(total + retries, last + 1)  # a worker takes no trial beyond the total


def _custom_search_space(name: str | None) -> Callable[[DictConfig, optuna.Trial], None] | None:
    if name is None:
        return None
    return cast(Callable[[DictConfig, optuna.Trial], None], instantiate({"_target_": name, "_partial_": True}))
