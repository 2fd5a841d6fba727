"""Renames keys that had another name in an older version when Hydra reads a YAML file."""

from __future__ import annotations

import functools
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from da6401.runs.renamed_keys import renamed_tree


def read_old_names() -> None:
    """Have the keys of every YAML file renamed when Hydra reads it, so that later files and words override them.

    Hydra has no hook for this: the one method that reads a file is wrapped, once in a process.
    """
    plugins: list[Any] = Plugins.instance().discover(ConfigSource)
    (source,) = (each for each in plugins if each.scheme() == "file")
    load = source.load_config
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        result: ConfigResult = load(self, config_path)
        content: Any = OmegaConf.to_container(result.config)
        if isinstance(content, dict):
            package = package_of(config_path, result.header["package"])
            renamed = renamed_tree(
                content, package=package, where=f"{self.path}/{config_path.removesuffix('.yaml')}.yaml"
            )
            if renamed != content:
                result.config = OmegaConf.create(renamed)
        return result

    source.load_config = load_config


def package_of(config_path: str, header: str | None) -> str:
    """The dotted group of keys that a YAML file stands for; "" for a whole configuration.

    Args:
        config_path: from the folder of YAML files, such as "augmentation/strong".
        header: of its line `# @package`, None without one.
    """
    group = config_path.rpartition("/")[0]
    # An option in a subfolder, such as data/lab/x, is one of its group; Hydra's own groups are nested.
    package = group.replace("/", ".") if group.startswith("hydra/") else group.partition("/")[0]
    if header is None or header == "_group_":
        return package
    return "" if header == "_global_" else header
