"""Ask, launch, tell: the study's loop from its first open trial to its total."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from da6401.errors import ConfigError, UserError
from da6401.sweep.space import Space, parse_space
from da6401.sweep.summary import parameters, write_summary

if TYPE_CHECKING:
    from da6401.sweep.plugin import StudySweeper

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
QUIET = "hydra.job_logging.handlers.console.level"  # a trial's epochs go to its train.log, not to the terminal


def run_study(sweeper: StudySweeper, config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Bring the study to its total of trials, then write and print its summary.

    Raises:
        UserError: the storage cannot be opened, or the trials handed over together failed beyond max_failure_rate.
    """
    started = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(str(config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(choices, dict)
    space = parse_space(sweeper.params, sweeper.conditional, arguments, choices={str(k): v for k, v in choices.items()})
    study = _open_study(sweeper, folder)
    _close_lost_trials(study)
    existing = len(study.trials)
    # The seed moves with the trials that are there: a study that goes on must not suggest the same points again.
    study.sampler = _sampler(sweeper.sampler, space, seed=int(config.seed) + existing)
    extend = _custom_search_space(sweeper.custom_search_space)
    quiet = [f"{QUIET}=WARNING"] if OmegaConf.select(config, QUIET) is not None else []
    if existing:
        log.info("study %s goes on: %d of %d trials are there", study.study_name, existing, sweeper.n_trials)

    total = sweeper.n_trials
    if isinstance(study.sampler, optuna.samplers.GridSampler):
        total = min(total, math.prod(len(values) for values in space.grid().values()))
    while (left := total - sum(trial.state in FINISHED for trial in study.trials)) > 0:
        trials = [study.ask() for _ in range(min(left, sweeper.n_jobs))]
        try:
            overrides = [space.suggest(trial) for trial in trials]
            for trial, own in zip(trials, overrides, strict=True):
                if extend is not None:
                    before = set(trial.params)
                    extend(config, trial)
                    own += [f"{name}={value}" for name, value in trial.params.items() if name not in before]
                own += quiet
            returns = launcher.launch(overrides, initial_job_idx=trials[0].number)
        except BaseException:
            for trial in trials:  # a stop by the user: what was asked for and did not run is not left running
                study.tell(trial, state=TrialState.FAIL)
            raise
        failures = [
            failure
            for trial, ended in zip(trials, returns, strict=True)
            if (failure := _tell(study, trial, ended, sweeper.directions)) is not None
        ]
        for trial in trials:
            log.info(_progress_line(study, trial.number, total))
        if len(failures) / len(trials) > sweeper.max_failure_rate:
            write_summary(study, folder, seconds=time.perf_counter() - started)
            raise UserError(
                f"{len(failures)} of {len(trials)} trials failed, more than max_failure_rate: {failures[0]}"
            )
    write_summary(study, folder, seconds=time.perf_counter() - started)


def _open_study(sweeper: StudySweeper, folder: Path) -> optuna.Study:
    storage = sweeper.storage or f"sqlite:///{folder / 'study.db'}"
    try:
        study = optuna.create_study(
            study_name=sweeper.study_name,
            storage=storage,
            directions=cast(Any, sweeper.directions),
            load_if_exists=True,
        )
    except Exception as error:  # a database's own errors have no common base, and each means the same here
        reason = str(error).partition("\n")[0]
        raise UserError(f"hydra.sweeper.storage: the study cannot be opened ({reason}); check the address") from error
    have = [direction.name.lower() for direction in study.directions]
    if have != sweeper.directions:
        raise ConfigError([f"hydra.sweeper.direction={sweeper.directions}: the study {study.study_name} has {have}"])
    return study


def _close_lost_trials(study: optuna.Study) -> None:
    """Trials that a killed sweep left RUNNING are failed, so that none is waited for."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study._storage.set_trial_user_attr(trial._trial_id, "reason", "the sweep was killed while it ran")
        study.tell(trial.number, state=TrialState.FAIL)


def _sampler(config: DictConfig, space: Space, *, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of `hydra/sweeper/sampler`; without a seed of its own it gets this one."""
    node = OmegaConf.to_container(config, resolve=True)
    assert isinstance(node, dict)
    if node.get("seed") is None:
        node["seed"] = seed
    built = instantiate(node, _execution_whitelist_=("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*"))
    if isinstance(built, functools.partial):  # the grid sampler waits for its grid
        built = built(space.grid())
    return cast(optuna.samplers.BaseSampler, built)


def _custom_search_space(name: str | None) -> Callable[[DictConfig, optuna.Trial], None] | None:
    if name is None:
        return None
    return cast(Callable[[DictConfig, optuna.Trial], None], instantiate({"_target_": name, "_partial_": True}))


def _tell(study: optuna.Study, trial: optuna.Trial, ended: JobReturn, directions: Sequence[str]) -> str | None:
    """Tell the study how a trial ended; the reason where it failed, None where it did not."""
    if ended.status is JobStatus.COMPLETED:
        value = ended.return_value
        values = [float(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
        if len(values) == len(directions) and all(math.isfinite(item) for item in values):
            try:
                study.tell(trial, values)
            except RuntimeError as stop:
                if "Study.stop" not in str(stop):  # the grid sampler's way to say, after telling, that all is done
                    raise
            return None
        reason = f"the objective is {value!r}; {len(directions)} finite numbers are expected"
    else:
        error = ended._return_value
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    trial.set_user_attr("reason", reason)
    study.tell(trial, state=TrialState.FAIL)
    return reason


def _progress_line(study: optuna.Study, number: int, total: int) -> str:
    trial = study.trials[number]
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    if trial.state is TrialState.COMPLETE:
        outcome = "  ".join(f"{value:.4f}" for value in trial.values)
    else:
        outcome = f"{trial.state.name.lower()}: {trial.user_attrs.get('reason', '')}"
    best = ""
    if len(study.directions) == 1 and any(t.state is TrialState.COMPLETE for t in study.trials):
        best = f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    return f"trial {number + 1}/{total}  {outcome}{best}  {seconds:.1f} s  {parameters(trial)}"
