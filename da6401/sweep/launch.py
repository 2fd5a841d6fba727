"""A trial in this process, as Hydra's basic launcher runs it, but from a configuration that is composed faster."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from da6401.sweep.jobs import Jobs
from da6401.sweep.pool import jobs_of

Launch = Callable[[list[str], int], JobReturn]  # a trial's overrides and its number


def launch_with(launcher: Launcher, jobs: Jobs) -> Launch:
    """How a sweep runs one trial: in this process by the shorter way, or as another launcher does it."""
    if isinstance(launcher, BasicLauncher) and launcher.config is not None and not launcher.config.hydra.callbacks:
        return _InProcess(launcher, jobs).launch
    return lambda overrides, number: jobs_of(launcher, [overrides], first=number)[0]


class _InProcess:
    def __init__(self, launcher: BasicLauncher, jobs: Jobs) -> None:
        assert launcher.config is not None, "Hydra calls setup first"
        assert launcher.hydra_context is not None, "Hydra calls setup first"
        assert launcher.task_function is not None, "Hydra calls setup first"
        self.config = launcher.config
        self.context = launcher.hydra_context
        self.task_function = launcher.task_function
        self.jobs = jobs

    def launch(self, overrides: list[str], number: int) -> JobReturn:
        """Run the job; what it returned, or the exception that it raised, as Hydra's run_job tells it."""
        ended = JobReturn()
        with self.jobs.composed(overrides, number) as (node, task):
            Path(node.runtime.output_dir).mkdir(parents=True, exist_ok=True)
            try:
                self._log(node.job_logging)
                ended.return_value = self.task_function(task)
                ended.status = JobStatus.COMPLETED
            except Exception as error:
                ended.return_value, ended.status = error, JobStatus.FAILED
                traceback.clear_frames(error.__traceback__)  # or a failed trial's tensors live as long as its error
            finally:
                self._log(self.config.hydra.hydra_logging)
        return ended

    def _log(self, settings: DictConfig) -> None:
        configure_log(settings, self.config.hydra.verbose, execution_whitelist=self.context.execution_whitelist)
