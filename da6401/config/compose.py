"""Hydra's side of the configuration: the schema as composable nodes, and a check of the whole command line.

Hydra stops at the first unknown key and lets a ``+key`` or a YAML file add any. Here the tree is composed with every
key let through, and ``check.py`` then judges all of it at once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from da6401.config.backbones import FACTS
from da6401.config.check import (
    belongs,
    config_from_tree,
    default_tree,
    nearest_name,
    value_problems,
    variant_trees,
)
from da6401.config.quoting import quote
from da6401.config.saved import refuse_code, refuse_steering
from da6401.config.schema import RunConfig
from da6401.errors import ConfigError
from da6401.rundir import read_yaml

CONFIG_NAME = "config"
OPTIONAL_GROUPS = ("experiment", "sweep")


def conf_dir() -> Path:
    """The folder of our YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside


def register_schema() -> None:
    """Offer the schema to Hydra as plain nodes: it then merges any key, and our check tells all mistakes."""
    if not OmegaConf.has_resolver("stages"):
        OmegaConf.register_resolver("stages", _stages)
    store = ConfigStore.instance()
    store.store(name="schema", node=default_tree(), provider="da6401", replace=True)
    for group, variants in variant_trees().items():
        for name, tree in variants.items():
            store.store(group=f"schema/{group}", name=name, node=tree, provider="da6401", replace=True)


def _stages(model: str, less: int = 0) -> int:
    """The YAML resolver ``${stages:resnet18}``, or ``${stages:resnet18,3}`` for all but three: a freeze depth."""
    return max(0, len(FACTS[model].stages) - less) if model in FACTS else 0


def config_of(composed: DictConfig) -> RunConfig:
    """The typed configuration of a job that Hydra composed."""
    return config_from_tree(_plain(composed))


def hydra_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The words after `da6401 train`, as Hydra's own parser reads them.

    Raises:
        ConfigError: two flags that exclude each other.
    """
    given = get_args_parser().parse_intermixed_args(list(words))
    modes = [f"--{name}" for name in ("run", "multirun", "cfg", "info") if getattr(given, name)]
    if len(modes) > 1:
        raise ConfigError([f"{' and '.join(modes)} exclude each other: give one of them"])
    return given


def check_command_line(overrides: Sequence[str], *, config_dir: str | None, multirun: bool) -> RunConfig | None:
    """Compose what `da6401 train` was given and check all of it before anything runs.

    Returns the configuration before any search; None where a sweep over models has no single one.

    Args:
        overrides: Hydra's override arguments, as typed.
        config_dir: the user's folder of YAML files (--config-dir), None without.
        multirun: sweep overrides are allowed, and each of their values is checked.

    Raises:
        ConfigError: every problem of the command line and of the YAML files behind it.
    """
    groups = _group_options(config_dir)
    problems: list[str] = []
    fixed: list[str] = []  # what every trial shares
    space: dict[str, Override] = {}  # what is searched
    for text in overrides:
        try:
            override = _parse(text)
        except OverrideParseException as error:
            problems.append(f"{text}: not an override; write key=value ({_first_line(error)})")
            continue
        if override.is_sweep_override():
            space[override.key_or_group] = override
            if not multirun:
                problems.append(f"{text}: several values need --multirun")
        elif override.key_or_group in groups:
            bad = _option_problems(override, groups[override.key_or_group])
            problems += bad
            fixed += [] if bad else [text]
        else:
            fixed.append(text if text.lstrip("+").startswith(("hydra.", "hydra/", "~")) else "++" + text.lstrip("+"))
    try:
        composed = _compose(fixed, config_dir)
        space = _yaml_space(composed) | space if multirun else space
        for override in space.values():
            problems += _space_problems(override, groups)
        configs = [composed] if "model" not in space else _one_for_each_model(fixed, space["model"], config_dir)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError([*problems, _hydra_problem(error)]) from error
    verdicts = [_verdict(each, overrides, config_dir) for each in configs]
    typed = {override.lstrip("+").partition("=")[0] for override in fixed}
    for verdict in verdicts:  # a key of one part is right in a sweep over both, as long as some model has it
        elsewhere = {key for key in typed if any(not _names(key, other) for other in verdicts)}
        problems += [text for text in verdict if not any(_names(key, [text]) for key in elsewhere)]
    models = [str(each.model.name) for each in configs]
    for key in space:
        if not any(belongs(key, model) for model in models):
            problems.append(f"{key}: is searched, but model={'|'.join(models)} has no such key")
    if problems:
        raise ConfigError(list({problem.partition(";")[0]: problem for problem in problems}.values()))
    return None if "model" in space else config_of(composed)


def _one_for_each_model(fixed: Sequence[str], models: Override, config_dir: str | None) -> list[DictConfig]:
    """A sweep over models: the configuration with each of them."""
    names = [str(getattr(item, "text", item)) for item in getattr(models.value(), "list", [])]
    return [_compose([*fixed, f"model={name}"], config_dir) for name in names]


def _verdict(composed: DictConfig, overrides: Sequence[str], config_dir: str | None) -> tuple[str, ...]:
    """The problems of one composed configuration."""
    try:
        config_from_tree(_plain(composed), where=lambda key: _where(key, overrides, config_dir))
    except ConfigError as error:
        return error.problems
    except OmegaConfBaseException as error:
        return (_first_line(error),)
    return ()


def _names(key: str, problems: Sequence[str]) -> bool:
    """Whether one of the problems is that this key does not exist."""
    return any(problem.startswith(f"{key}: no such key") for problem in problems)


def saved_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run's config.yaml as a typed configuration, with dotted ``key=value`` overrides on top.

    Raises:
        RunError: the file is missing or no YAML mapping.
        ConfigError: an override or a saved key that the schema refuses, or one that names code.
    """
    tree = read_yaml(path)
    refuse_code(tree, path)
    refuse_steering(overrides)
    for text in overrides:
        try:
            override = _parse(text)
        except OverrideParseException as error:
            raise ConfigError([f"{text}: not an override; write key=value ({_first_line(error)})"]) from error
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


def _parse(text: str) -> Override:
    return OverridesParser.create().parse_overrides([text])[0]  # (parse_override lets the grammar's own errors out)


def _compose(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    register_schema()
    extra = [] if config_dir is None else [f"hydra.searchpath=[{quote(f'file://{Path(config_dir).resolve()}')}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        return compose(CONFIG_NAME, [*extra, *overrides], return_hydra_config=True)


def _plain(composed: DictConfig) -> dict[str, Any]:
    ours = [str(name) for name in composed if name != "hydra"]
    tree = OmegaConf.masked_copy(composed, ours) if "hydra" in composed else composed
    plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _yaml_space(composed: DictConfig) -> dict[str, Override]:
    """The searched parameters of hydra.sweeper, those under a condition included; values given there are left out."""
    sweeper = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    assert isinstance(sweeper, dict)
    params = [sweeper.get("params") or {}, *(entry["params"] for entry in sweeper.get("conditional") or [])]
    parsed = [_parse(f"{name}={text}") for entry in params for name, text in entry.items()]
    return {override.key_or_group: override for override in parsed}


def _group_options(config_dir: str | None) -> dict[str, list[str]]:
    """Each of our config groups with the names of its YAML files, the user's included."""
    options: dict[str, list[str]] = {}
    for folder in [conf_dir(), *([Path(config_dir)] if config_dir else [])]:
        for file in sorted(folder.glob("*/*.yaml")):
            options.setdefault(file.parent.name, []).append(file.stem)
    return options


def _option_problems(override: Override, options: Sequence[str]) -> list[str]:
    group, value = override.key_or_group, override.value()
    if value is None and group in OPTIONAL_GROUPS:
        return []
    problems = []
    for name in _values(override):
        if str(name) not in options:
            nearest = nearest_name(str(name), options)
            hint = f"; did you mean {nearest}?" if nearest else ""
            shown = "null" if name is None else name
            problems.append(f"{group}={shown}: no such option of {group}: {', '.join(options)}{hint}")
    return problems


def _space_problems(override: Override, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """A searched key that does not exist, or one of whose values the schema refuses."""
    key = override.key_or_group
    if key in groups:
        return _option_problems(override, groups[key])
    problems = [problem for value in _values(override) for problem in value_problems(key, value)]
    if not problems and isinstance(interval := override.value(), IntervalSweep):
        assert interval.start is not None, "the grammar gives an interval both ends"
        assert interval.end is not None
        inner = interval.start + (interval.end - interval.start) / math.pi  # no whole number, where the ends may be
        if isinstance(interval.start, float) and value_problems(key, inner):
            low, high = round(interval.start), round(interval.end)
            problems.append(f"{key}=interval({low}, {high}): takes whole numbers; write int(interval({low}, {high}))")
    return problems


def _values(override: Override) -> list[Any]:
    """The values of an override; of a sweep its choices, or the two ends of its interval."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [getattr(item, "text", item) for item in value.list]
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    return list(override.sweep_iterator()) if override.is_sweep_override() else [value]


def _where(key: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Where an unknown key was written, as " (...)": the command line or a YAML file."""
    for text in overrides:
        if text.lstrip("+~").startswith((f"{key}=", f"{key}.")):
            return " (on the command line)"
    for folder in [*([Path(config_dir)] if config_dir else []), conf_dir()]:
        for file in sorted(folder.rglob("*.yaml")):
            if key in _dotted_keys(file, folder):
                return f" (in {file})"
    return ""


def _dotted_keys(file: Path, folder: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return set()
    group = file.parent.relative_to(folder).as_posix()
    is_global = group == "." or "@package _global_" in text

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield f"{prefix}{name}"
                yield from walk(value, f"{prefix}{name}.")

    return set(walk(tree, "" if is_global else group.replace("/", ".") + "."))


def _hydra_problem(error: Exception) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _first_line(error)
    cause = f": {_first_line(error.__cause__)}" if error.__cause__ is not None else ""
    return _first_line(error) + cause


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
