"""The job's side of a trial: reports its epochs to the study, and computes its objective.

The sweep passes the trial in an environment variable, which no run folder records: `reproduce` touches no study.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da6401.config.schema import RunConfig
from da6401.errors import PrunedError, RunError, TakenOverError, UserError
from da6401.runs.run_folder import CONFIG, RunResult, read_result, read_yaml
from da6401.runs.trial_folders import fold_folders
from da6401.study.objective import Objective
from da6401.sweep.jobs import Ended

if TYPE_CHECKING:
    import optuna

    from da6401.study.trial_store import TrialStore

VARIABLE = "DA6401_TRIAL"


@contextmanager
def trial_in_environment(
    *, storage: str, study: str, trial: int, owner: str, pruner: Mapping[str, Any]
) -> Iterator[None]:
    """Pass a trial to the job that the block launches, through the environment."""
    address = {"storage": storage, "study": study, "trial": trial, "owner": owner, "pruner": dict(pruner)}
    os.environ[VARIABLE] = json.dumps(address)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


class TrialWatcher:
    """Reports each epoch's objective to the study and asks its pruner.

    Args:
        objective: the study's; one that does not change with the epochs is not reported.
        steps: the trial's number of epochs, or of folds; after the last one it is complete and no longer pruned.
        owner: the trial's worker, where another machine can take the trial over; else None.
    """

    def __init__(
        self, study: optuna.Study, trials: TrialStore, number: int, *, objective: Objective, steps: int,
        owner: str | None,
    ) -> None:  # fmt: skip
        self.study = study
        self.trials = trials
        self.objective = objective
        self.number = number
        self.steps = steps
        self.owner = owner
        from optuna.pruners import NopPruner

        self.prunes = not isinstance(study.pruner, NopPruner)

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        """Report an epoch.

        Raises:
            PrunedError: the pruner stops the trial.
            TakenOverError: the trial has another owner now.
        """
        self.check_owner()
        value = self.objective.of_epoch(values)
        if value is not None:
            self._report(epoch, value, "epoch")

    def fold_done(self, fold: int, means: Sequence[float]) -> None:
        """Report the objective's means over the folds so far; raises as ``epoch_done``."""
        self.check_owner()
        metric = self.objective.alone
        if metric is not None and metric.by_epoch:
            self._report(fold, means[0], "fold")

    def check_owner(self) -> None:
        """Raise TakenOverError where the trial has another owner now."""
        if self.owner is None:
            return
        from da6401.sweep.leases import owner_of

        owner = owner_of(self.trials, self.number)
        if owner != self.owner:
            raise TakenOverError(owner)

    def _report(self, step: int, value: float, what: str) -> None:
        # Not through optuna.Trial: its constructor runs the sampler's hooks a second time.
        self.trials.storage.set_trial_intermediate_value(self.trials.id_of(self.number), step, value)
        can_prune = step < self.steps and self.prunes
        if can_prune and self.study.pruner.prune(self.study, self.trials.read(self.number)):
            raise PrunedError(f"pruned after {what} {step} with {self.objective.text([value])}")


class FoldWatcher:
    """Watches a fold's training, whose epochs are not reported: only that the trial is still this worker's."""

    def __init__(self, trial: TrialWatcher) -> None:
        self._trial = trial

    def epoch_done(self, epoch: int, values: Mapping[str, float]) -> None:
        """Raise TakenOverError where the trial has another owner now."""
        self._trial.check_owner()


def trial_watcher(cfg: RunConfig) -> TrialWatcher | None:
    """The watcher of this job's trial; None outside a sweep."""
    if VARIABLE not in os.environ:
        return None
    from da6401.study.storage import is_shared

    trial = json.loads(os.environ[VARIABLE])
    minutes = cfg.sweep.storage_minutes
    steps = cfg.sweep.folds or cfg.trainer.epochs
    study, trials = _study(trial["storage"], minutes, trial["study"], json.dumps(trial["pruner"]), steps)
    owner = trial["owner"] if is_shared(trial["storage"]) else None
    objective = Objective.of(cfg.sweep)
    return TrialWatcher(study, trials, trial["trial"], objective=objective, steps=steps, owner=owner)


@functools.lru_cache(maxsize=1)  # opening a database costs a tenth of a second, and a process runs many trials
def _study(address: str, minutes: float, name: str, pruner: str, steps: int) -> tuple[optuna.Study, TrialStore]:
    import optuna

    from da6401.study.storage import open_storage
    from da6401.study.trial_store import TrialStore
    from da6401.sweep.pruners import build_pruner

    storage = open_storage(address, minutes=minutes)
    study = optuna.load_study(study_name=name, storage=storage, pruner=build_pruner(json.loads(pruner), steps=steps))
    return study, TrialStore(study)


def forget_study() -> None:
    """Reopen the study for the next trial: its database may have been replaced."""
    _study.cache_clear()


def objective(cfg: RunConfig, result: RunResult, out: Path) -> float | tuple[float, ...] | None:
    """The value of `sweep.objectives` for a finished run, or one for each of several."""
    values = Objective.of(cfg.sweep).values(result, latency_ms=lambda: latency_ms(out))
    return values[0] if values is not None and len(values) == 1 else values


def latency_ms(run: Path) -> float:
    """Milliseconds for one image through a run's best model on the CPU, with its training's threads.

    The median of 20 after 5 to warm up; of a trial of several folds that of the first.

    Raises:
        RunError: the run's best checkpoint is not there, or damaged.
    """
    import torch

    from da6401.training.device import prepare, restore_torch_settings
    from da6401.training.trained_model import load_model

    model, cfg, _ = load_model(next(iter(fold_folders(run)), run))
    with restore_torch_settings(), torch.inference_mode():
        prepare(seed=cfg.seed, threads=cfg.trainer.threads, deterministic=cfg.trainer.deterministic)
        image = torch.rand(1, 3, cfg.data.image_size, cfg.data.image_size)
        seconds = []
        for _ in range(25):
            started = time.perf_counter()
            model(image)
            seconds.append(time.perf_counter() - started)
    return 1000 * sorted(seconds[5:])[10]


def earlier_end(run: Path, objective: Objective) -> Ended | None:
    """How a finished run ended that its worker could not report to the study; None where the run is not finished."""
    try:
        result = read_result(run)
        pruned_for = Objective.of_config(read_yaml(run / CONFIG)).names
    except RunError:
        return None
    names = ", ".join(objective.names)
    if result.status == "interrupted":  # it continues from its checkpoint
        return None
    if result.status == "completed":
        try:
            return Ended(value=objective.values(result, latency_ms=lambda: latency_ms(run)))
        except UserError as error:  # a value that is measured, without the checkpoint to measure
            return Ended(error=RunError(f"the run had finished, but {names} cannot be measured: {error}"))
    if result.status != "pruned":
        return Ended(error=RunError(result.reason))
    if pruned_for == objective.names:
        return Ended(error=PrunedError(result.reason))
    problem = f"the run in {run} was pruned for its {', '.join(pruned_for)}, and this study optimises {names}"
    return Ended(error=RunError(f"{problem}; use another sweep folder (study=...)"))
