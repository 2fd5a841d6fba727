"""The Hydra plugin: a Sweeper that runs one Optuna study in the sweep's folder, and its config groups.

It accepts all keys and samplers of the official sweeper (hydra-optuna-sweeper). Hydra imports this module at every
start, so Optuna is imported only where it is used.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from omegaconf import MISSING, DictConfig, OmegaConf

from da6401.config.sweeper_schema import PRUNERS, SweeperKeys

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher

log = logging.getLogger(__name__)


@dataclass
class JointTpe:
    """The default sampler: TPE with Optuna 5's defaults, some of which the official group's `tpe` switches off.

    Parameters are drawn together, and running trials are taken into account.
    """

    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    n_startup_trials: int = 10
    multivariate: bool | None = None
    constant_liar: bool = True


@dataclass
class InOrder:
    """The points of the space one after the other."""

    seed: int | None = None  # unused; it lets a command with a seed change the sampler alone


DEFAULTS: list[Any] = [{"sampler": "auto"}, {"pruner": "none"}]
NODE: dict[str, Any] = {
    "defaults": DEFAULTS,
    "_target_": "da6401.sweep.plugin.StudySweeper",  # Hydra's own way to name a plugin
    "sampler": MISSING,
    "pruner": MISSING,
    **dataclasses.asdict(SweeperKeys()),
    "params": None,
    "conditional": [],  # each {when: "model=cnn", params: {...}}
    "first": [],  # each {key: value, ...}: what is tried after the defaults
}
# `auto` is the joint TPE unless it takes the points in order.
SAMPLERS: dict[str, type] = {"auto": JointTpe, "tpe_joint": JointTpe, "bruteforce": InOrder}

_store = ConfigStore.instance()
_store.store(group="hydra/sweeper", name="da6401", node=NODE, provider="da6401", replace=True)
# The official sweeper minimises by default; here it follows sweep.objectives unless the user sets `direction`.
_official = OptunaSweeperConf(direction="${directions:${sweep.objectives}}")
_store.store(group="hydra/sweeper", name="optuna", node=_official, provider="da6401", replace=True)
for _name, _node in SAMPLERS.items():
    _store.store(group="hydra/sweeper/sampler", name=_name, node=_node, provider="da6401", replace=True)
for _name, _keys in PRUNERS.items():
    _store.store(
        group="hydra/sweeper/pruner", name=_name, node={"name": _name, **dataclasses.asdict(_keys())},
        provider="da6401", replace=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What Hydra gives a sweeper before the sweep, and the launchers made of it."""

    config: DictConfig  # the sweep's own composed configuration
    context: HydraContext
    launcher: Launcher  # of single runs: a trial in this process, a confirmation
    task: TaskFunction | None = None  # a run of this command, where the launcher is Hydra's basic one
    workers: Launcher | None = None  # of the workers that run the trials, where it is another one


class StudySweeper(Sweeper):
    """The sweeper that Hydra instantiates; scheduler.py does the work."""

    def __init__(
        self,
        *,
        sampler: DictConfig,
        pruner: DictConfig,
        params: Mapping[str, str] | None,
        conditional: Sequence[Mapping[str, Any]],
        first: Sequence[Mapping[str, Any]],
        **keys: Any,
    ) -> None:
        self.sampler = sampler
        self.pruner = pruner
        self.keys = SweeperKeys(**keys)
        self.params = dict(params or {})
        self.conditional = list(conditional)
        self.first = list(first)
        self.given: Setup | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before sweep."""

        def launcher(task: TaskFunction, settings: DictConfig) -> Launcher:
            return Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task, config=settings
            )

        from da6401.sweep.worker_pool import Slot, is_worker

        if is_worker():  # it runs its trials itself, whatever launcher has started it
            basic = OmegaConf.create({"hydra": {"launcher": _store.load("hydra/launcher/basic.yaml").node}})
            own = launcher(task_function, basic)
            own.setup(hydra_context=hydra_context, task_function=task_function, config=config)
            self.given = Setup(config, hydra_context, own, task=task_function)
        elif config.hydra.runtime.choices["hydra/launcher"] == "basic":
            self.given = Setup(config, hydra_context, launcher(task_function, config), task=task_function)
        else:
            from da6401.plugins.loading import words

            slot = Slot(tuple(sys.argv[1:]), Path(str(config.hydra.sweep.dir)), Path.cwd(), tuple(words()))
            workers = launcher(slot, config)
            self.given = Setup(config, hydra_context, launcher(task_function, config), workers=workers)

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its total; ``arguments`` are the command line's task overrides."""
        from da6401.runs.atomic_files import OTHER_SWEEP, name_elsewhere
        from da6401.runs.looks import search_warnings
        from da6401.sweep.scheduler import run_study
        from da6401.sweep.worker_pool import is_worker, report_error

        assert self.given is not None, "Hydra calls setup first"
        config = self.given.config
        folder, warm_start = Path(str(config.hydra.sweep.dir)), str(config.sweep.warm_start)
        before = [] if is_worker() else search_warnings(folder, warm_start=warm_start)
        for sentence in before:
            log.warning(sentence)
        with report_error(), name_elsewhere(OTHER_SWEEP, resumes=True):
            run_study(self, self.given, arguments)
        if not is_worker():  # now it is known which data the trials used
            for sentence in search_warnings(folder, warm_start=warm_start):
                if sentence not in before:
                    log.warning(sentence)
