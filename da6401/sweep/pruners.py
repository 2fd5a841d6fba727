"""The pruners of `hydra/sweeper/pruner`, so that a job and its sweep build the same one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner


def _warmup(node: Mapping[str, Any]) -> int:
    """Optuna counts steps from 0, and prunes from this one on; epochs count from 1."""
    return int(node["warmup_epochs"]) + 1


# Each takes the keys of its config node (config/sweeper_schema.py) and the largest number of steps of a
# trial: epochs, or folds with sweep.folds.
PRUNERS: dict[str, Callable[[Mapping[str, Any], int], BasePruner]] = {
    "none": lambda node, steps: optuna.pruners.NopPruner(),
    "median": lambda node, steps: optuna.pruners.MedianPruner(
        n_startup_trials=node["startup_trials"], n_warmup_steps=_warmup(node)
    ),
    "percentile": lambda node, steps: optuna.pruners.PercentilePruner(
        node["percentile"], n_startup_trials=node["startup_trials"], n_warmup_steps=_warmup(node)
    ),
    "successive_halving": lambda node, steps: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=node["min_epochs"], reduction_factor=node["reduction_factor"]
    ),
    "hyperband": lambda node, steps: optuna.pruners.HyperbandPruner(
        min_resource=node["min_epochs"], max_resource=steps, reduction_factor=node["reduction_factor"]
    ),
    "patient": lambda node, steps: optuna.pruners.PatientPruner(
        optuna.pruners.MedianPruner(n_startup_trials=node["startup_trials"]), patience=node["patience"]
    ),
}


def build_pruner(node: Mapping[str, Any], *, steps: int) -> BasePruner:
    """The pruner of a node ``{name: ..., ...}``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # patient, since Optuna 2.8
        return PRUNERS[node["name"]](node, steps)
