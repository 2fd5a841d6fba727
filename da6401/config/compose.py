"""Typed configurations of what Hydra composed, and of what a run saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from da6401.config.saved import refuse_code, refuse_hydra_overrides
from da6401.config.schema import RunConfig
from da6401.config.search_space import parse_override
from da6401.config.validate import config_from_tree
from da6401.errors import ConfigError
from da6401.runs.renamed_keys import renamed_words
from da6401.runs.run_folder import flat, read_yaml


def config_of(composed: DictConfig) -> RunConfig:
    """The typed configuration of a job that Hydra composed."""
    return config_from_tree(plain_tree(composed))


def saved_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run's config.yaml as a typed configuration, with dotted ``key=value`` overrides on top.

    Raises:
        RunError: the file is missing or no YAML mapping.
        ConfigError: an override or a saved key that the schema refuses, or one that names code.
    """
    tree = read_yaml(path)
    refuse_code(tree, path)
    overrides = renamed_words(overrides)
    refuse_hydra_overrides(overrides)
    for text in overrides:
        try:
            override = parse_override(text)
        except ValueError as error:
            raise ConfigError([f"{text}: {error}"]) from error
        if override.is_sweep_override():
            raise ConfigError([f"{text}: a saved config is one run; give one value"])
        node = tree
        *groups, name = override.key_or_group.split(".")
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node[name] = override.value()
    return config_from_tree(tree)


def plain_tree(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as nested plain values, without Hydra's node; interpolations are resolved."""
    ours = [str(name) for name in composed if name != "hydra"]
    tree = OmegaConf.masked_copy(composed, ours) if "hydra" in composed else composed
    plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def known_values(composed: DictConfig) -> dict[str, Any]:
    """Each dotted key of a composed configuration with its value, and each config group with its option."""
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    assert isinstance(choices, dict)
    return {**flat(plain_tree(composed)), **{str(group): option for group, option in choices.items()}}
