"""Hydra's side of the configuration: a check of the whole command line.

Hydra stops at the first unknown key and lets a ``+key`` or a YAML file add any. Here the tree is composed with every
key let through, and ``check.py`` then judges all of it at once.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from da6401.config.arguments import parse_flags
from da6401.config.check import belongs, config_from_tree, nearest_name, value_problems
from da6401.config.saved import refuse_code, refuse_steering
from da6401.config.schema import RunConfig
from da6401.config.search_path import SearchPath, as_job, hidden_files
from da6401.errors import ConfigError
from da6401.rundir import read_yaml

OPTIONAL_GROUPS = ("experiment", "sweep")
JOB_NUMBER = re.compile(r"\$\{hydra[:.]job\.(num|id)\}")


def config_of(composed: DictConfig) -> RunConfig:
    """The typed configuration of a job that Hydra composed."""
    return config_from_tree(_plain(composed))


def hydra_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The words after `da6401 train`, as Hydra's own parser reads them; `multirun` says so by hydra.mode, too.

    Raises:
        UserError: a flag that there is not, or two that exclude each other.
    """
    given = parse_flags(words)
    modes = [f"--{name}" for name in ("run", "multirun", "cfg", "info") if getattr(given, name)]
    if len(modes) > 1:
        raise ConfigError([f"{' and '.join(modes)} exclude each other: give one of them"])
    return given


def check_command_line(
    overrides: Sequence[str],
    *,
    multirun: bool,
    config_dir: str | None = None,
    files: SearchPath | None = None,
    runs: bool = True,
    as_sweep: str = "",
) -> RunConfig | None:
    """Compose what `da6401 train` was given and check all of it before anything runs.

    Returns the configuration before any search; None where a sweep over models has no single one.

    Args:
        overrides: Hydra's override arguments, as typed.
        multirun: sweep overrides are allowed, and each of their values is checked.
        config_dir: the user's folder of YAML files (--config-dir), None without.
        files: all that the command says of its YAML files, in place of config_dir.
        runs: False where the configuration is only shown (--cfg): a sweep's YAML then needs no --multirun.
        as_sweep: what to write instead of a single run that searches; the command with --multirun without.

    Raises:
        ConfigError: every problem of the command line and of the YAML files behind it.
    """
    files = files or SearchPath(config_dir)
    groups = files.options(overrides)
    problems: list[str] = []
    fixed: list[str] = []  # what every trial shares
    space: dict[str, Override] = {}  # what is searched
    for text in overrides:
        try:
            override = _parse(text)
        except OverrideParseException as error:
            problems.append(f"{text}: not an override; write key=value ({_first_line(error)})")
            continue
        if runs and not multirun and JOB_NUMBER.search(text):
            problems.append(f"{text}: only the trials of a sweep have a number; it needs --multirun")
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
        composed = files.compose(fixed)
        problems += hidden_files(composed)
        in_yaml = _yaml_space(composed)
        if in_yaml and runs and not multirun:
            command = as_sweep or shlex.join(["da6401", "train", "--multirun", *files.flags, *overrides])
            problems.append(f"{', '.join(in_yaml)}: searched by a YAML file, which needs --multirun: {command}")
        space = in_yaml | space if multirun else space
        for override in space.values():
            problems += _space_problems(override, groups)
        configs = [composed] if "model" not in space else _one_for_each_model(fixed, space["model"], files)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError([*problems, _hydra_problem(error)]) from error
    for each in configs:
        _stand_in(each, space)
    verdicts = [_verdict(each, overrides, files, multirun=multirun) for each in configs]
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
    if "model" in space:
        return None
    with as_job(composed, multirun=multirun):
        return config_of(composed)


def _stand_in(composed: DictConfig, space: Mapping[str, Override]) -> None:
    """A key that has no value of its own (data.root) is at its first one where it is searched."""
    for key, override in space.items():
        value = OmegaConf.select(composed, key, throw_on_resolution_failure=False)
        if isinstance(value, str) and value_problems(key, value) and (values := _values(override)):
            OmegaConf.update(composed, key, values[0])


def _one_for_each_model(fixed: Sequence[str], models: Override, files: SearchPath) -> list[DictConfig]:
    """A sweep over models: the configuration with each of them."""
    names = [str(getattr(item, "text", item)) for item in getattr(models.value(), "list", [])]
    return [files.compose([*fixed, f"model={name}"]) for name in names]


def _verdict(composed: DictConfig, overrides: Sequence[str], files: SearchPath, *, multirun: bool) -> tuple[str, ...]:
    """The problems of one composed configuration."""
    try:
        with as_job(composed, multirun=multirun):
            config_from_tree(_plain(composed), where=lambda key: _where(key, overrides, files.folders))
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


def _plain(composed: DictConfig) -> dict[str, Any]:
    ours = [str(name) for name in composed if name != "hydra"]
    tree = OmegaConf.masked_copy(composed, ours) if "hydra" in composed else composed
    plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _yaml_space(composed: DictConfig) -> dict[str, Override]:
    """The searched parameters of hydra.sweeper, those under a condition included; values given there are left out."""
    with as_job(composed, multirun=True):
        sweeper = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    assert isinstance(sweeper, dict)
    params = [sweeper.get("params") or {}, *(entry["params"] for entry in sweeper.get("conditional") or [])]
    parsed = [_parse(f"{name}={text}") for entry in params for name, text in entry.items()]
    return {override.key_or_group: override for override in parsed}


def _option_problems(override: Override, options: Sequence[str]) -> list[str]:
    group, value = override.key_or_group, override.value()
    if value is None and group in OPTIONAL_GROUPS:
        return []
    problems = []
    for name in [each for item in _values(override) for each in (item if isinstance(item, list) else [item])]:
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


def _where(key: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    """Where an unknown key was written, as " (...)": the command line or a YAML file."""
    for text in overrides:
        if text.lstrip("+~").startswith((f"{key}=", f"{key}.")):
            return " (on the command line)"
    for folder in reversed(folders):
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

    return set(walk(tree, "" if is_global else group.partition("/")[0] + "."))  # lab/x is an option of its group


def _hydra_problem(error: Exception) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _first_line(error)
    cause = f": {_first_line(error.__cause__)}" if error.__cause__ is not None else ""
    return _first_line(error) + cause


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
