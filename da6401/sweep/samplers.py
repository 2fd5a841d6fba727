"""The samplers of `hydra/sweeper/sampler`, and their seeds: a trial's draws do not depend on the worker."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from da6401.config.search_space import SearchSpace
from da6401.errors import ConfigError, did_you_mean
from da6401.study.optuna_internals import generators_of

IN_ORDER = ("grid", "bruteforce")  # these take the points of a space one after the other
AUTO = "auto"  # points in order where every key has a list of values; else the joint TPE
GROUP = "hydra/sweeper/sampler"


def takes_in_order(name: str, space: SearchSpace, *, extended: bool) -> bool:
    """Whether the sampler of this name takes the space's points in order.

    Args:
        extended: a function of the user suggests more (hydra.sweeper.custom_search_space).

    Raises:
        ConfigError: it does, and the points cannot be counted.
    """
    if name == AUTO:
        return not extended and space.is_listed
    if name not in IN_ORDER:
        return False
    endless = [parameter.key for parameter in space.parameters if not parameter.is_finite]
    if endless:
        countable = "choice(...), range(START, STOP, STEP) or int(interval(...))"
        rule = f"{GROUP}={name} needs values that can be counted: {countable}"
        raise ConfigError([f"{key}: {rule}" for key in endless])
    if extended:
        raise ConfigError([f"{GROUP}={name}: hydra.sweeper.custom_search_space has no grid; take another sampler"])
    return True


def build_sampler(name: str, node: Mapping[str, Any], *, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of `hydra/sweeper/sampler`; its node's seed goes before ``seed``.

    Raises:
        ConfigError: an unknown key, a value that it refuses, a missing package.
    """
    if name in IN_ORDER:
        return optuna.samplers.RandomSampler(seed=seed)  # is never asked
    keys = {**node, "seed": seed if node.get("seed") is None else node["seed"]}
    target = str(keys.get("_target_", ""))
    if target.endswith("raise_motpe_removed"):
        raise ConfigError(
            [f"{GROUP}=motpe: Optuna has no such sampler any more; write {GROUP}=tpe, which takes several objectives"]
        )
    if target.endswith("CmaEsSampler") and importlib.util.find_spec("cmaes") is None:
        raise ConfigError([f"{GROUP}=cmaes: needs the package cmaes; pip install 'da6401[cmaes]'"])
    whitelist = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # QMC, since Optuna 3
            built = instantiate(keys, _execution_whitelist_=whitelist)
    except (InstantiationException, TypeError, ValueError) as error:
        raise ConfigError(_refused(keys, error)) from error
    if isinstance(built, functools.partial) or not isinstance(built, optuna.samplers.BaseSampler):
        raise ConfigError([f"{GROUP}={name}: {target} makes no sampler of Optuna's"])
    return built


def _refused(keys: Mapping[str, Any], error: Exception) -> list[str]:
    """The error of a sampler's constructor as problems of its keys."""
    name = str(keys.get("_target_")).rpartition(".")[2]
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    reason = " ".join(str(cause).split())
    unknown = [key for key in keys if f"argument '{key}'" in reason]
    if not unknown:
        return [f"hydra.sweeper.sampler: {name} refuses its keys: {reason}"]
    made = getattr(optuna.samplers, name, None)
    hint = did_you_mean(unknown[0], inspect.signature(made).parameters if made else ())
    return [f"hydra.sweeper.sampler.{unknown[0]}: no such key of {name}{hint}"]


def reseed(sampler: optuna.samplers.BaseSampler, *, seed: int, number: int, attempt: int = 0) -> None:
    """Seed a sampler for one trial, so that its draws depend only on the seed, the trial's number and the study.

    So no two workers suggest the same points, and a continued study does not repeat its own. State that samplers of
    all workers share, such as QMC's sequence, is kept.

    Args:
        attempt: how many suggestions for the trial were rejected as repetitions.
    """
    for generator in generators_of(sampler):
        generator.seed((seed * 1_000_003 + number + attempt * 15_485_863) % 2**32)
