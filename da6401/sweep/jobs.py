"""The training runs of a sweep: their configurations, and how they are launched.

Hydra composes every job from its files, which takes longer than many a small training. The trials of a sweep differ
in values far more often than in config groups: here each choice of groups is composed once, and values are set on a
copy.
"""

from __future__ import annotations

import functools
import pickle
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from da6401.config.compose import config_of, plain_tree
from da6401.config.hydra_internals import hydra_config, outcome_of, whitelist_of
from da6401.config.quoting import quote
from da6401.config.schema import RunConfig
from da6401.config.search_path import subdir_template
from da6401.config.validate import tree_of
from da6401.errors import UserError
from da6401.runs.run_folder import flat

CONSOLE_LEVEL = "hydra.job_logging.handlers.console.level"  # a job's epochs go to its train.log, not to the terminal
JOB_NUMBER = re.compile(r"\$\{hydra[.:]job\.(num|id)\}")
INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
OF_THE_JOB = re.compile(r"hydra[.:]job\.\w+|hydra_override_dirname:.*")
ENVIRONMENT = "${oc.env:"  # a value that differs between machines


@dataclass(frozen=True)
class Job:
    """One training run of a sweep."""

    overrides: tuple[str, ...]
    number: int = 0  # of its trial, and hydra.job.num
    folder: str = ""  # of its run, relative to the sweep's


@dataclass(frozen=True)
class Ended:
    """How a job ended: with the value that it returned, or with the exception that it raised."""

    value: Any = None
    error: BaseException | None = None

    @property
    def reason(self) -> str:
        """The error in one line."""
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())}"


RunJobs = Callable[[Sequence[Job]], Sequence[Ended]]


class JobComposer:
    """Composes the configurations of a sweep's jobs.

    Args:
        config: the sweep's own composed configuration, from which Hydra starts.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.config = config
        self.context = context
        self.loader = context.config_loader
        self.groups = set(self.loader.get_group_options("", ObjectType.GROUP))
        self.quiet = (f"{CONSOLE_LEVEL}=WARNING",) if OmegaConf.select(config, CONSOLE_LEVEL) is not None else ()
        self.parser = OverridesParser.create()
        self._cached = functools.lru_cache(maxsize=64)(self._compose)

    @contextmanager
    def composed(self, job: Job) -> Iterator[tuple[DictConfig, DictConfig]]:
        """The job's node `hydra`, which HydraConfig holds within the block, and its configuration without that node."""
        values = [text for text in job.overrides if self._is_value(text)]
        composed, pickled = self._cached(tuple(text for text in job.overrides if text not in values))
        with self._as_hydra_config(composed, job):
            node = composed.hydra
            with read_write(composed), open_dict(composed):
                node.runtime.output_dir = str(Path(node.sweep.dir, job.folder).absolute())
            task = pickle.loads(pickled)  # a tenth of the time of a deep copy
            with read_write(task), open_dict(task):
                for override in self.parser.parse_overrides(values):
                    OmegaConf.update(task, override.key_or_group, override.value(), force_add=True)
            yield node, task

    def folder(self, overrides: Sequence[str], number: int) -> str:
        """The trial's run folder relative to the sweep's: `hydra.sweep.subdir` with the trial's values filled in."""
        composed, _ = self._cached(tuple(text for text in overrides if not self._is_value(text)))
        template = JOB_NUMBER.sub(str(number), subdir_template(composed))
        if "${" not in template:
            return template
        if not all(OF_THE_JOB.fullmatch(inner) for inner in INTERPOLATION.findall(template)):
            # It refers to values of the trial, which the cached composition of its groups does not have.
            composed = self.loader.load_sweep_config(self.config, list(overrides))
        with self._as_hydra_config(composed, Job(tuple(overrides), number)):
            return str(composed.hydra.sweep.subdir)

    def config_of(self, job: Job) -> RunConfig:
        """The job's whole configuration.

        Raises:
            ConfigError: the trial's values do not fit together.
        """
        with self.composed(job) as (_, task):
            return config_of(task)

    def tree(self, job: Job) -> dict[str, Any]:
        """The job's whole configuration as its config.yaml holds it; raises as ``config_of``."""
        return tree_of(self.config_of(job))

    def values(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The value of each dotted key under these overrides, which need not be a complete trial's.

        Values from environment variables stay as they are written: they differ between machines that share a study.
        """
        with self.composed(Job(tuple(overrides))) as (_, task):
            written = flat(cast(dict[str, Any], OmegaConf.to_container(task, resolve=False)))
            return {
                key: text if isinstance(text := written.get(key), str) and ENVIRONMENT in text else value
                for key, value in flat(plain_tree(task)).items()
            }

    @contextmanager
    def _as_hydra_config(self, composed: DictConfig, job: Job) -> Iterator[None]:
        """Let HydraConfig hold this composition within the block, with the job's number and overrides in it."""
        with hydra_config(composed):
            node = composed.hydra
            with read_write(composed), open_dict(composed):
                node.job.num, node.job.id = job.number, str(job.number)
                # Without the ++ that the sweeper adds since some keys exist for some models only.
                typed = [text.removeprefix("++") for text in job.overrides if not text.startswith("hydra.")]
                node.overrides.task = typed
                node.sweep.dir = str(self.config.hydra.sweep.dir)  # may be named by a value, such as ${study}
            yield

    def _is_value(self, text: str) -> bool:
        key = text.lstrip("+").partition("=")[0]
        return not (text.startswith("~") or key in self.groups or key.startswith("hydra.") or "/" in key or "@" in key)

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, bytes]:
        """Hydra's composition, and the job's part of it, pickled to be copied."""
        composed = self.loader.load_sweep_config(self.config, [*overrides, *self.quiet])
        task = OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"])
        return composed, pickle.dumps(task)


def job_runner(launcher: Launcher, composer: JobComposer, task: TaskFunction | None) -> RunJobs:
    """The function that runs a sweep's jobs: in this process where Hydra's basic launcher would, else by the launcher.

    The launcher also runs them where the user asks for more than a training, such as callbacks or another folder.

    Args:
        task: what a job does, where the launcher is Hydra's basic one; None for any other.
    """
    node = composer.config.hydra
    if task is not None and not (node.callbacks or node.job.chdir or node.job.env_set or node.job.env_copy):
        return lambda jobs: [_run_here(task, composer, job) for job in jobs]
    return functools.partial(_run_by_launcher, launcher, composer)


def _run_by_launcher(launcher: Launcher, composer: JobComposer, jobs: Sequence[Job]) -> Sequence[Ended]:
    texts = []
    for job in jobs:
        # A launcher counts its jobs by itself: the trial's number is written out.
        own = [JOB_NUMBER.sub(str(job.number), text) for text in job.overrides]
        texts.append([*own, *composer.quiet, f"hydra.sweep.subdir={quote(job.folder)}"])
    return launch(launcher, texts, first=jobs[0].number)


def launch(launcher: Launcher, overrides: Sequence[Sequence[str]], *, first: int) -> Sequence[Ended]:
    """Run a launcher's jobs, one for each list of overrides.

    Args:
        first: hydra.job.num of the first job.

    Raises:
        UserError: the launcher could not run them, with the reason of its scheduler.
    """
    try:
        ended = launcher.launch(overrides, initial_job_idx=first)
    except UserError:
        raise
    except Exception as error:  # Ray's, submitit's and joblib's errors have no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()
        raise UserError(f"hydra/launcher: {reason[0]}; {reason[-1]}" if reason[1:] else reason[0]) from error
    return [
        Ended(value=outcome_of(each)) if each.status is JobStatus.COMPLETED else Ended(error=outcome_of(each))
        for each in ended
    ]


def _run_here(task_function: TaskFunction, composer: JobComposer, job: Job) -> Ended:
    """As Hydra's basic launcher runs a job, but composed faster."""
    with composer.composed(job) as (node, task):
        Path(node.runtime.output_dir).mkdir(parents=True, exist_ok=True)
        try:
            _configure_log(node.job_logging, composer)
            return Ended(value=task_function(task))
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # or a failed trial's tensors live as long as its error
            return Ended(error=error)
        finally:
            _configure_log(composer.config.hydra.hydra_logging, composer)


def _configure_log(settings: DictConfig, composer: JobComposer) -> None:
    whitelist = whitelist_of(composer.context)
    configure_log(settings, composer.config.hydra.verbose, execution_whitelist=whitelist)
