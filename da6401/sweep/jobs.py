"""The configurations of a sweep's trials, composed once for each choice of config groups.

Hydra composes every job from its files, which takes longer than many a small training. The trials of a sweep differ
in values far more often than in groups, and a value is set on a copy of what is composed.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from da6401.config.compose import config_of, plain_tree
from da6401.config.schema import RunConfig
from da6401.config.search_path import subdir_template
from da6401.config.validate import tree_of
from da6401.runs.run_folder import flat

QUIET = "hydra.job_logging.handlers.console.level"  # a job's epochs go to its train.log, not to the terminal
INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
OF_THE_JOB = re.compile(r"hydra[.:]job\.\w+|hydra_override_dirname:.*")
ENVIRONMENT = "${oc.env:"  # a value that each machine has its own of


class Jobs:
    """Composes the jobs of one sweep.

    Args:
        config: the sweep's own composed configuration, from which Hydra starts.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.config = config
        self.context = context
        self.loader = context.config_loader
        self.groups = set(self.loader.get_group_options("", ObjectType.GROUP))
        self.quiet = (f"{QUIET}=WARNING",) if OmegaConf.select(config, QUIET) is not None else ()
        self.parser = OverridesParser.create()
        self._composed = functools.lru_cache(maxsize=64)(self._compose)

    @contextmanager
    def composed(
        self, overrides: Sequence[str], number: int, folder: str = ""
    ) -> Iterator[tuple[DictConfig, DictConfig]]:
        """Hydra's node of a trial's job, which is HydraConfig's within the block, and the job's own configuration.

        Args:
            folder: of its run, relative to the sweep's.
        """
        values = [text for text in overrides if self._is_value(text)]
        composed, pickled = self._composed(tuple(text for text in overrides if text not in values))
        hydra = HydraConfig.instance()
        before, hydra.cfg = hydra.cfg, cast(HydraConf, composed)  # not set_config, which copies all of it
        try:
            node = composed.hydra
            self._number(composed, overrides, number)
            with read_write(composed), open_dict(composed):
                node.runtime.output_dir = str(Path(node.sweep.dir, folder).absolute())
            task = pickle.loads(pickled)  # a tenth of the time of a deep copy
            with read_write(task), open_dict(task):
                for override in self.parser.parse_overrides(values):
                    OmegaConf.update(task, override.key_or_group, override.value(), force_add=True)
            yield node, task
        finally:
            hydra.cfg = before

    def folder(self, overrides: Sequence[str], number: int) -> str:
        """What `hydra.sweep.subdir` comes to for a trial: the folder of its run, relative to the sweep's."""
        composed, _ = self._composed(tuple(text for text in overrides if not self._is_value(text)))
        template = subdir_template(composed)
        if not all(OF_THE_JOB.fullmatch(inner) for inner in INTERPOLATION.findall(template)):
            # It looks at values of the trial, which are not in what its choice of groups composes.
            composed = self.loader.load_sweep_config(self.config, list(overrides))
        hydra = HydraConfig.instance()
        before, hydra.cfg = hydra.cfg, cast(HydraConf, composed)
        try:
            self._number(composed, overrides, number)
            return str(composed.hydra.sweep.subdir)
        finally:
            hydra.cfg = before

    def config_of(self, overrides: Sequence[str], number: int, folder: str = "") -> RunConfig:
        """A trial's whole configuration.

        Raises:
            ConfigError: the trial's values do not fit together.
        """
        with self.composed(overrides, number, folder) as (_, task):
            return config_of(task)

    def tree(self, overrides: Sequence[str], number: int, folder: str = "") -> dict[str, Any]:
        """A trial's whole configuration as its config.yaml holds it; raises as ``config_of``."""
        return tree_of(self.config_of(overrides, number, folder))

    def values(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Each dotted key with the value that these overrides give it, whether or not they are a whole trial's.

        What is read from the environment stays as it is written: machines that share a study have their own.
        """
        with self.composed(overrides, 0) as (_, task):
            written = flat(cast(dict[str, Any], OmegaConf.to_container(task, resolve=False)))
            return {
                key: text if isinstance(text := written.get(key), str) and ENVIRONMENT in text else value
                for key, value in flat(plain_tree(task)).items()
            }

    def _number(self, composed: DictConfig, overrides: Sequence[str], number: int) -> None:
        """Put into Hydra's node what it says of a job."""
        node = composed.hydra
        with read_write(composed), open_dict(composed):
            node.job.num, node.job.id = number, str(number)
            # As they would have been typed: a key is added by force for the sake of models that have others.
            node.overrides.task = [text.removeprefix("++") for text in overrides if not text.startswith("hydra.")]
            node.sweep.dir = str(self.config.hydra.sweep.dir)  # may be named by a value, such as ${study}

    def _is_value(self, text: str) -> bool:
        key = text.lstrip("+").partition("=")[0]
        return not (text.startswith("~") or key in self.groups or key.startswith("hydra.") or "/" in key or "@" in key)

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, bytes]:
        """The whole, and the part of it that is the job's, to be copied."""
        composed = self.loader.load_sweep_config(self.config, [*overrides, *self.quiet])
        task = OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"])
        return composed, pickle.dumps(task)
