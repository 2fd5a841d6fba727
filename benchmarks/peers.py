"""Other tools' searches for benchmarks.replays, each by its own code with its defaults; imported when they run.

A multi-fidelity tool judges at 2, 6 and 18 epochs, or after each epoch where it works so.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.replays import LENGTH, Search, Task
from da6401.config.domains import Interval

LEAST, FACTOR = 2, 3  # epochs of the first rung, and how much longer each next one is
FOREVER = 10_000  # more than any budget holds


def optuna_search(task: Task, seed: int, *, sampler: str, pruner: str = "", first: bool = False) -> None:
    """A sampler with a pruner, or with full trainings.

    Args:
        first: the recipe is the first trial.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "": optuna.pruners.NopPruner,
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=LEAST, reduction_factor=FACTOR),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(LEAST, LENGTH, FACTOR),
    }
    chosen = getattr(optuna.samplers, sampler)(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=chosen, pruner=pruners[pruner]())
    if first:
        study.enqueue_trial(dict(task.recipe))
    while True:
        trial = study.ask()
        config = task.nearest({each.name: _suggested(trial, each.name, each.domain) for each in task.parameters})
        for epoch in range(1, LENGTH + 1):
            accuracy = task.clock.follow(config, epoch)
            trial.report(accuracy, epoch)
            if epoch < LENGTH and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, accuracy)


def _suggested(trial: Any, name: str, domain: Any) -> Any:
    if not isinstance(domain, Interval):
        return trial.suggest_categorical(name, list(domain))
    if domain.is_whole:
        return trial.suggest_int(name, domain.low, domain.high, step=domain.step or 1)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _config_space(task: Task, seed: int) -> Any:
    import ConfigSpace

    space = ConfigSpace.ConfigurationSpace(seed=seed)
    for each in task.parameters:
        domain, default = each.domain, task.recipe.get(each.name)
        if not isinstance(domain, Interval):
            space.add(ConfigSpace.CategoricalHyperparameter(each.name, list(domain), default_value=default))
        elif domain.is_whole:
            space.add(ConfigSpace.UniformIntegerHyperparameter(each.name, domain.low, domain.high))
        else:
            space.add(ConfigSpace.UniformFloatHyperparameter(each.name, domain.low, domain.high, log=domain.log))
    return space


def dehb(task: Task, seed: int) -> None:
    """Differential evolution in Hyperband's brackets."""
    from dehb import DEHB

    with tempfile.TemporaryDirectory() as place:
        search = DEHB(
            cs=_config_space(task, seed), min_fidelity=LEAST, max_fidelity=LENGTH, eta=FACTOR, n_workers=1, seed=seed,
            output_path=place, save_freq="end",
        )  # fmt: skip
        while True:
            job = search.ask()
            config = task.nearest(dict(job["config"]), str(job["config_id"]))
            epochs = round(job["fidelity"])
            search.tell(job, {"fitness": 1 - task.clock.follow(config, epochs), "cost": epochs})


def smac(task: Task, seed: int, *, fidelities: bool) -> None:
    """Random forests: with Hyperband, or with full trainings."""
    from smac import HyperparameterOptimizationFacade, MultiFidelityFacade, Scenario
    from smac.runhistory import TrialValue

    budgets = {"min_budget": LEAST, "max_budget": LENGTH} if fidelities else {}
    facade = MultiFidelityFacade if fidelities else HyperparameterOptimizationFacade
    with tempfile.TemporaryDirectory() as place:
        scenario = Scenario(
            _config_space(task, seed),
            n_trials=FOREVER,
            seed=seed,
            deterministic=True,
            output_directory=place,
            **budgets,
        )
        search = facade(scenario, _unused, overwrite=True, logging_level=50)
        while True:
            trial = search.ask()
            point = dict(trial.config)
            config = task.nearest(point, repr(sorted(point.items())))
            accuracy = task.clock.follow(config, round(trial.budget or LENGTH))
            search.tell(trial, TrialValue(cost=1 - accuracy, time=1.0))


def _unused(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    raise AssertionError("only ask and tell are used")


def neps(task: Task, seed: int, *, algorithm: str, **settings: Any) -> None:
    """One of NePS's, with the recipe as prior."""
    import random

    import neps
    import torch

    random.seed(seed)
    np.random.seed(seed)  # NePS draws from the global generators
    torch.manual_seed(seed)
    parts: dict[str, Any] = {"epochs": neps.IntegerFidelity(lower=1 if algorithm == "ifbo" else LEAST, upper=LENGTH)}
    for number, each in enumerate(task.parameters):
        domain, default = each.domain, task.recipe.get(each.name)
        if not isinstance(domain, Interval):
            values = list(domain)
            part = neps.Categorical(values, prior=values.index(default), prior_confidence="medium")
        else:
            kind = neps.Integer if domain.is_whole else neps.Float
            part = kind(domain.low, domain.high, log=domain.log, prior=default, prior_confidence="medium")
        parts[f"p{number}"] = part
    space = type("Space", (neps.PipelineSpace,), parts)()
    try:
        search = neps.AskAndTell(optimizer=getattr(neps.algorithms, algorithm)(space, **settings))
    except OSError as error:
        raise ImportError("its surrogate model is no part of its package, and cannot be fetched here") from error
    while True:
        trial = search.ask()
        point = {each.name: trial.config[f"p{number}"] for number, each in enumerate(task.parameters)}
        config = task.nearest(point, trial.id.partition("_")[0])
        search.tell(trial, 1 - task.clock.follow(config, int(trial.config["epochs"])))


def syne_tune(task: Task, seed: int, *, scheduler: str) -> None:
    """One of Syne Tune's asynchronous schedulers."""
    import datetime

    from syne_tune import config_space as spaces
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer import baselines

    space: dict[str, Any] = {}
    for each in task.parameters:
        domain = each.domain
        if not isinstance(domain, Interval):
            space[each.name] = spaces.choice(list(domain))
        elif domain.is_whole:
            space[each.name] = spaces.randint(int(domain.low), int(domain.high))
        else:
            space[each.name] = (spaces.loguniform if domain.log else spaces.uniform)(domain.low, domain.high)
    np.random.seed(seed)  # brackets are drawn from the global generator
    search = getattr(baselines, scheduler)(
        space, metric="accuracy", time_attr="epoch", max_t=LENGTH, do_minimize=False, random_seed=seed,
        grace_period=LEAST, reduction_factor=FACTOR,
    )  # fmt: skip
    for number in range(FOREVER):
        trial = Trial(number, search.suggest().config, datetime.datetime.min)
        search.on_trial_add(trial)
        _in_rungs(task, trial.config, functools.partial(_continues, search.on_trial_result, trial))


def ray(task: Task, seed: int) -> None:
    """Ray Tune's ASHA, with random suggestions."""
    from types import SimpleNamespace

    from ray.tune.schedulers import ASHAScheduler

    search: Any = ASHAScheduler(  # its trials are stand-ins
        time_attr="epoch", metric="accuracy", mode="max", max_t=LENGTH, grace_period=LEAST, reduction_factor=FACTOR
    )
    rng = np.random.default_rng(seed)
    for number, config in enumerate(rng.permutation(len(task.clock.curves.points))):
        trial = SimpleNamespace(trial_id=str(number), status="RUNNING")
        search.on_trial_add(None, trial)
        goes_on = functools.partial(_continues, functools.partial(search.on_trial_result, None), trial)
        _in_rungs(task, task.clock.curves.points[config], goes_on)


def _continues(told: Callable[[Any, dict[str, float]], str], trial: Any, result: dict[str, float]) -> bool:
    return told(trial, result) == "CONTINUE"


def _in_rungs(task: Task, point: Mapping[str, Any], goes_on: Callable[[dict[str, float]], bool]) -> None:
    """A trial that is told each epoch, until it is stopped."""
    config = task.nearest(point)
    for epoch in range(1, LENGTH + 1):
        if not goes_on({"accuracy": task.clock.follow(config, epoch), "epoch": epoch}):
            return


PEERS: dict[str, Search] = {
    "Optuna TPE": functools.partial(optuna_search, sampler="TPESampler"),
    "Optuna TPE, the recipe first": functools.partial(optuna_search, sampler="TPESampler", first=True),
    "Optuna ASHA": functools.partial(optuna_search, sampler="RandomSampler", pruner="asha"),
    "Optuna TPE with Hyperband": functools.partial(optuna_search, sampler="TPESampler", pruner="hyperband"),
    "NePS PriorBand": functools.partial(neps, algorithm="priorband", sample_prior_first=True),
    "NePS ifBO": functools.partial(neps, algorithm="ifbo", sample_prior_first=True, use_priors=True),
    "SMAC": functools.partial(smac, fidelities=False),
    "SMAC with Hyperband": functools.partial(smac, fidelities=True),
    "DEHB": dehb,
    "Syne Tune ASHA": functools.partial(syne_tune, scheduler="ASHA"),
    "Ray Tune ASHA": ray,
}
assert LEAST * FACTOR ** round(math.log(LENGTH / LEAST, FACTOR)) == LENGTH, "the last rung is the full training"
