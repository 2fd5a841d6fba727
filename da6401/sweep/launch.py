"""A trial in this process, as Hydra's basic launcher runs it, but composed once for each choice of config groups.

Hydra composes every job from its files, which takes longer than many a small training. The trials of a sweep differ
in values far more often than in groups, and a value is set on a copy of what is composed.
"""

from __future__ import annotations

import functools
import pickle
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from da6401.sweep.pool import jobs_of

Launch = Callable[[list[str], int], JobReturn]  # a trial's overrides and its number


def launch_with(launcher: Launcher) -> Launch:
    """How a sweep runs one trial: in this process by the shorter way, or as another launcher does it."""
    if isinstance(launcher, BasicLauncher) and launcher.config is not None and not launcher.config.hydra.callbacks:
        return _InProcess(launcher).launch
    return lambda overrides, number: jobs_of(launcher, [overrides], first=number)[0]


class _InProcess:
    def __init__(self, launcher: BasicLauncher) -> None:
        assert launcher.config is not None, "Hydra calls setup first"
        assert launcher.hydra_context is not None, "Hydra calls setup first"
        assert launcher.task_function is not None, "Hydra calls setup first"
        self.config = launcher.config
        self.context = launcher.hydra_context
        self.task_function = launcher.task_function
        self.groups = set(self.context.config_loader.get_group_options("", ObjectType.GROUP))
        self.parser = OverridesParser.create()
        self._composed = functools.lru_cache(maxsize=64)(self._compose)

    def launch(self, overrides: list[str], number: int) -> JobReturn:
        """Run the job; what it returned, or the exception that it raised, as Hydra's run_job tells it."""
        values = [text for text in overrides if self._is_value(text)]
        composed, pickled = self._composed(tuple(text for text in overrides if text not in values))
        hydra = HydraConfig.instance()
        before, hydra.cfg = hydra.cfg, cast(HydraConf, composed)  # not set_config, which copies all of it
        node = composed.hydra
        with read_write(composed), open_dict(composed):
            node.job.num, node.job.id = number, str(number)
            node.job.override_dirname = ",".join(filter_overrides(overrides))
            node.overrides.task = list(overrides)
            node.sweep.dir = str(self.config.hydra.sweep.dir)  # may be named by a value, such as ${study}
            node.runtime.output_dir = str(Path(node.sweep.dir, str(node.sweep.subdir)).absolute())
        task = pickle.loads(pickled)  # a tenth of the time of a deep copy
        with read_write(task), open_dict(task):
            for override in self.parser.parse_overrides(values):
                OmegaConf.update(task, override.key_or_group, override.value(), force_add=True)
        Path(node.runtime.output_dir).mkdir(parents=True, exist_ok=True)
        ended = JobReturn()
        try:
            self._log(node.job_logging)
            ended.return_value = self.task_function(task)
            ended.status = JobStatus.COMPLETED
        except Exception as error:
            ended.return_value, ended.status = error, JobStatus.FAILED
            traceback.clear_frames(error.__traceback__)  # or a failed trial's tensors live as long as its error
        finally:
            hydra.cfg = before
            self._log(self.config.hydra.hydra_logging)
        return ended

    def _is_value(self, text: str) -> bool:
        key = text.lstrip("+").partition("=")[0]
        return not (text.startswith("~") or key in self.groups or key.startswith("hydra.") or "/" in key or "@" in key)

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, bytes]:
        """The whole, and the part of it that is the job's, to be copied."""
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        task = OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"])
        return composed, pickle.dumps(task)

    def _log(self, settings: DictConfig) -> None:
        configure_log(settings, self.config.hydra.verbose, execution_whitelist=self.context.execution_whitelist)
