"""Hydra's Sweeper of da6401: one Optuna study in the sweep's folder, worked on by one process or several.

It takes the keys of the official sweeper (hydra-optuna-sweeper) unchanged, samplers included. Hydra's plugin discovery
imports this module on every start, so Optuna is imported where it is used.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher

log = logging.getLogger(__name__)

PRUNER_NODES: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"startup_trials": 5, "warmup_epochs": 1},
    "percentile": {"percentile": 25.0, "startup_trials": 5, "warmup_epochs": 1},
    "successive_halving": {"min_epochs": 1, "reduction_factor": 3},
    "hyperband": {"min_epochs": 1, "reduction_factor": 3},
    "patient": {"startup_trials": 5, "patience": 1},
}

# The official group's `tpe` switches off what Optuna 5 has on: parameters drawn together, running trials counted.
JOINT_TPE = {
    "_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 10, "multivariate": None,
    "constant_liar": True,
}  # fmt: skip


@dataclass
class StudySweeperConfig:
    """hydra.sweeper: the official sweeper's keys, `pruner` and `conditional`; how a sweep goes is in `sweep`."""

    _target_: str = "da6401.sweep.plugin.StudySweeper"  # Hydra's own way to name a plugin
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe_joint"}, {"pruner": "none"}])
    sampler: Any = MISSING
    pruner: Any = MISSING
    direction: Any = "maximize"  # or a list, one for each of sweep.objectives
    storage: str | None = None  # a database URL; null is an sqlite file in the sweep's folder
    study_name: str | None = None  # null takes the name of the sweep's folder, which is `study`
    n_trials: int = 20  # the study's total, over all the times that the command is given
    n_jobs: int = 1  # worker processes; 1 is this process
    max_failure_rate: float = 1.0  # failed trials as a share of n_trials, above which the sweep stops
    params: dict[str, str] | None = None
    conditional: list[Any] = field(default_factory=list)  # each {when: "model=cnn", params: {...}}
    custom_search_space: str | None = None


_store = ConfigStore.instance()
_store.store(group="hydra/sweeper", name="da6401", node=StudySweeperConfig, provider="da6401", replace=True)
_store.store(group="hydra/sweeper/sampler", name="tpe_joint", node=JOINT_TPE, provider="da6401", replace=True)
for _name, _node in PRUNER_NODES.items():
    _store.store(
        group="hydra/sweeper/pruner", name=_name, node={"name": _name, **_node}, provider="da6401", replace=True
    )


class StudySweeper(Sweeper):
    """What Hydra instantiates; the work is in scheduler.py."""

    def __init__(
        self,
        *,
        sampler: DictConfig,
        pruner: DictConfig,
        direction: str | Sequence[str],
        storage: str | None,
        study_name: str | None,
        n_trials: int,
        n_jobs: int,
        max_failure_rate: float,
        params: Mapping[str, str] | None,
        conditional: Sequence[Mapping[str, Any]],
        custom_search_space: str | None,
    ) -> None:
        self.sampler = sampler
        self.pruner = pruner
        self.directions = [direction] if isinstance(direction, str) else [str(item) for item in direction]
        self.storage = storage
        self.study_name = study_name
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.max_failure_rate = max_failure_rate
        self.params = dict(params or {})
        self.conditional = list(conditional)
        self.custom_search_space = custom_search_space
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before sweep."""
        if config.hydra.runtime.choices["hydra/launcher"] != "basic":  # others run workers, and those the trials
            from da6401.sweep.pool import Slot

            task_function = Slot(tuple(sys.argv[1:]), Path(str(config.hydra.sweep.dir)), Path.cwd())
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its total; ``arguments`` are the command line's task overrides."""
        from da6401.looks import search_told
        from da6401.sweep.pool import is_worker
        from da6401.sweep.scheduler import run_study

        assert self.config is not None, "Hydra calls setup first"
        assert self.launcher is not None, "Hydra calls setup first"
        folder, warm_start = Path(str(self.config.hydra.sweep.dir)), str(self.config.warm_start)
        told = [] if is_worker() else search_told(folder, warm_start=warm_start)
        for sentence in told:
            log.warning(sentence)
        run_study(self, self.config, self.launcher, arguments)
        if not is_worker():  # which data it was is known now
            for sentence in search_told(folder, warm_start=warm_start):
                if sentence not in told:
                    log.warning(sentence)
