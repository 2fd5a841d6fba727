"""The runs of a sweep, trials and confirmations: in this process, or as jobs of one of Hydra's launchers."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from da6401.config.quoting import quote
from da6401.sweep.jobs import Jobs
from da6401.sweep.worker_pool import jobs_of

JOB_NUMBER = re.compile(r"\$\{hydra[.:]job\.(num|id)\}")


@dataclass(frozen=True)
class Job:
    """One training run of a sweep."""

    overrides: tuple[str, ...]
    number: int  # of its trial, and hydra.job.num
    folder: str  # of its run, relative to the sweep's


RunJobs = Callable[[Sequence[Job]], Sequence[JobReturn]]  # each comes with what it returned or raised


def launch_with(launcher: Launcher, jobs: Jobs) -> Launch:
    """In this process by the shorter way, where nothing asks for more; else as the launcher does it."""
    node = jobs.config.hydra
    more = node.callbacks or node.job.chdir or node.job.env_set or node.job.env_copy
    return InProcess(launcher, jobs) if isinstance(launcher, BasicLauncher) and not more else Launch(launcher, jobs)


class Launch:
    """The runs of a sweep by one of Hydra's launchers."""

    def __init__(self, launcher: Launcher, jobs: Jobs) -> None:
        self.launcher = launcher
        self.jobs = jobs

    def __call__(self, jobs: Sequence[Job]) -> Sequence[JobReturn]:
        """Run them, side by side where the launcher does so; each comes with what it returned or raised.

        Raises:
            UserError: the launcher could not run them.
        """
        texts = []
        for job in jobs:
            # A launcher counts its jobs by itself: the trial's number is written out.
            own = [JOB_NUMBER.sub(str(job.number), text) for text in job.overrides]
            texts.append([*own, *self.jobs.quiet, f"hydra.sweep.subdir={quote(job.folder)}"])
        return jobs_of(self.launcher, texts, first=jobs[0].number)


class InProcess(Launch):
    """The runs of a sweep in this process, one after the other: as Hydra's basic launcher, but composed faster."""

    def __init__(self, launcher: BasicLauncher, jobs: Jobs) -> None:
        super().__init__(launcher, jobs)
        assert launcher.task_function is not None, "Hydra calls setup first"
        self.task_function = launcher.task_function

    def __call__(self, jobs: Sequence[Job]) -> Sequence[JobReturn]:
        """What each returned, or the exception that it raised, as Hydra's run_job tells it."""
        return [self._run(job) for job in jobs]

    def _run(self, job: Job) -> JobReturn:
        ended = JobReturn()
        with self.jobs.composed(job.overrides, job.number, job.folder) as (node, task):
            Path(node.runtime.output_dir).mkdir(parents=True, exist_ok=True)
            try:
                self._log(node.job_logging)
                ended.return_value = self.task_function(task)
                ended.status = JobStatus.COMPLETED
            except Exception as error:
                ended.return_value, ended.status = error, JobStatus.FAILED
                traceback.clear_frames(error.__traceback__)  # or a failed trial's tensors live as long as its error
            finally:
                self._log(self.jobs.config.hydra.hydra_logging)
        return ended

    def _log(self, settings: DictConfig) -> None:
        whitelist = self.jobs.context.execution_whitelist
        configure_log(settings, self.jobs.config.hydra.verbose, execution_whitelist=whitelist)
