"""The check of a whole `da6401 train` command line, before anything runs. All problems are reported together.

Hydra stops at the first unknown key and lets a ``+key`` or a YAML file add any. Here the tree is composed with
every key accepted. ``validate.py`` then checks the configuration, ``read_space.py`` the search space and
``sweeper_schema.py`` the keys of the sweeper.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from da6401.config.arguments import parse_flags
from da6401.config.compose import config_of, plain_tree
from da6401.config.hydra_keys import LAUNCHER_EXTRAS, hydra_key_problems
from da6401.config.objective_rules import fold_problems, objective_problems, race_problems, validated_problems
from da6401.config.own_keys import CHOSEN
from da6401.config.schema import RunConfig
from da6401.config.search_path import SearchPath, as_job, places_of
from da6401.config.search_space import SearchSpace, parse_override
from da6401.config.sweep_space import Search, option_problems, sweep_space
from da6401.config.sweeper_schema import sweeper_problems
from da6401.config.validate import config_from_tree, option_has_key, value_problems
from da6401.config.written_where import written_where
from da6401.errors import ConfigError, did_you_mean
from da6401.runs.run_folder import flat

HYDRA_GROUPS = ("hydra.sweeper.sampler", "hydra.sweeper.pruner", "hydra.sweeper", "hydra.launcher")  # with slashes
OUR_SWEEPER = "da6401"
FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:[^{}]*\}")
UNSET = re.compile(r"Environment variable '(?P<name>[^']*)' not found")
JOB_NUMBER = re.compile(r"\$\{hydra[:.]job\.(num|id)\}")


@dataclass(frozen=True)
class CheckedCommand:
    """A command line without problems."""

    config: RunConfig | None  # before any search; None where a sweep over models has no single one
    words: list[str]  # the overrides as Hydra is to get them
    study: str  # the sweep's name
    space: SearchSpace
    places: tuple[str, str]  # the folder of the run or the sweep, and the study's database: see places_of


def hydra_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The words after `da6401 train`, as Hydra's own parser reads them.

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
) -> CheckedCommand:
    """Compose what `da6401 train` was given and check all of it before anything runs.

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
    typed = _typed(overrides, groups, problems)
    if runs and not multirun:
        problems += [
            f"{text}: only the trials of a sweep have a number; it needs --multirun"
            for text, _ in typed
            if JOB_NUMBER.search(text)
        ]
        problems += [f"{text}: several values need --multirun" for text, each in typed if each.is_sweep_override()]
    single = [(text, override) for text, override in typed if not override.is_sweep_override()]
    fixed = [text if override.key_or_group in groups else _added(text) for text, override in single]
    try:
        composed = files.compose(fixed)
        problems += hydra_key_problems(composed, multirun=multirun)
        if composed.hydra.runtime.choices["hydra/sweeper"] == OUR_SWEEPER:
            problems += sweeper_problems(_sweeper_node(composed))
        if multirun:
            problems += objective_problems(composed.sweep, _sweeper_node(composed))
            problems += fold_problems(composed.sweep, composed.data.get("fold")) + validated_problems(composed.trainer)
        arguments = [text for text, _ in (typed if multirun else single)]
        space = _space(composed, arguments, groups, problems, lambda name: _network(files, fixed, name))
        keys = [parameter.key for parameter in space.parameters]
        problems += race_problems(composed.sweep, _sweeper_node(composed), keys) if multirun else []
        options = space.options_with_own_keys()
        configs = [files.compose([*fixed, text]) for text in options] or [composed]
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError([*problems, hydra_problem(error)]) from error
    if keys and runs and not multirun:
        command = as_sweep or shlex.join(["da6401", "train", "--multirun", *files.flags, *overrides])
        listed = ", ".join(dict.fromkeys(keys))
        problems.append(f"{listed}: searched by a YAML file, which needs --multirun: {command}")
    for number, each in enumerate(configs):
        _give_first_values(each, space)
        if keys and _verdict(each, overrides, files):  # what the searched values replace need not fit
            text = options[number] if options else ""
            searching = files.compose([*fixed, *space.overrides(space.first_values(text))])
            configs[number] = each if _verdict(searching, overrides, files) else searching
    problems += _config_problems(configs, overrides, fixed, files)
    problems += _keys_of_no_option(space, configs)
    if problems:
        raise ConfigError(list({problem.partition(";")[0]: problem for problem in problems}.values()))
    own = tuple({f"{text.partition('=')[0]}." for text in options})
    words = [_added(text) if text.startswith(own) else _settable(text) for text in overrides]
    with as_job(composed, multirun=multirun):
        study = _study(composed, typed) if multirun else str(composed.study)
        words += [f"study={study}"] if study != composed.study else []
        config = None if options else config_of(configs[0])
        return CheckedCommand(config, words, study, space, places_of(composed, study, multirun=multirun))


def _keys_of_no_option(space: SearchSpace, configs: Sequence[DictConfig]) -> list[str]:
    """The searched keys that none of these configurations, one for each searched option, has."""
    problems = []
    for parameter in space.parameters:
        group = parameter.key.partition(".")[0]
        if group not in CHOSEN:
            continue
        searched = [str(option) for each in space.parameters if each.key == group for option in each.domain]
        composed = dict.fromkeys(str(each[group][CHOSEN[group]]) for each in configs)
        names = searched if searched and group != "model" else list(composed)  # any name is an option of `model`
        if not any(option_has_key(parameter.key, name) for name in names):
            problems.append(f"{parameter.key}: is searched, but {group}={'|'.join(names)} has no such key")
    return problems


def _give_first_values(composed: DictConfig, space: SearchSpace) -> None:
    """Set a searched key without a valid default (data.root) to its first value, so that the rest can be checked."""
    for parameter in space.parameters:
        value = OmegaConf.select(composed, parameter.key, throw_on_resolution_failure=False)
        if isinstance(value, str) and value_problems(parameter.key, value):
            OmegaConf.update(composed, parameter.key, parameter.first)


def _typed(
    overrides: Sequence[str], groups: Mapping[str, Sequence[str]], problems: list[str]
) -> list[tuple[str, Override]]:
    """The overrides that can be composed, with Hydra's reading of each."""
    typed = []
    for text in overrides:
        try:
            override = parse_override(text)
        except ValueError as error:
            problems.append(f"{text}: {error}")
            continue
        key, value = override.key_or_group, override.value() if not override.is_sweep_override() else None
        if key in HYDRA_GROUPS and isinstance(value, str):
            problems.append(f"{text}: {key} is a config group; write {key.replace('.', '/')}={value}")
        elif key in groups and not override.is_sweep_override():
            found = option_problems(key, value, groups[key])
            problems += found
            typed += [] if found else [(text, override)]
        elif "/" in key and not override.is_sweep_override() and not _names_options(value):
            problems.append(f"{text}: {key} is a config group; give the name of an option")
        else:
            typed.append((text, override))
    return typed


def _names_options(value: object) -> bool:
    return value is None or all(isinstance(each, str) for each in (value if isinstance(value, list) else [value]))


def _added(text: str) -> str:
    """An override that composes whether or not the key exists: our check explains a wrong one better than Hydra."""
    bare = text.lstrip("+")
    key = bare.partition("=")[0]
    if bare.startswith(("hydra.", "hydra/", "~")) and not key.startswith("hydra.sweeper."):
        return _settable(text)
    return f"++{bare}"


def _settable(text: str) -> str:
    """Hydra takes a mapping for one of its own keys only with ``++``; it then replaces the old value."""
    key, _, value = text.partition("=")
    return f"++{text}" if key.startswith("hydra.") and value.lstrip().startswith("{") else text


def _sweeper_node(composed: DictConfig) -> dict[str, Any]:
    with as_job(composed, multirun=True):
        node = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _network(files: SearchPath, fixed: Sequence[str], model: str) -> str:
    return str(files.compose([*fixed, f"model={model}"]).model.name)


def _space(
    composed: DictConfig,
    arguments: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    problems: list[str],
    network: Callable[[str], str],
) -> SearchSpace:
    node = _sweeper_node(composed)
    search = Search(node.get("params"), node.get("conditional"), node.get("first"))
    return sweep_space(composed, search, arguments, groups, problems, network)


def _study(composed: DictConfig, typed: Sequence[tuple[str, Override]]) -> str:
    """A sweep's name; by time where it has none, so that two different sweeps never meet in one folder."""
    named = {override.key_or_group for _, override in typed}
    if str(composed.study) != RunConfig().study or named & {"study", "hydra.sweep.dir"}:
        return str(composed.study)
    return str(composed.hydra.sweeper.get("study_name") or f"sweep_{datetime.now():%Y-%m-%d_%H-%M-%S}")


def _config_problems(
    configs: Sequence[DictConfig], overrides: Sequence[str], fixed: Sequence[str], files: SearchPath
) -> list[str]:
    """The problems of the composed configurations, one for each model that is searched."""
    verdicts = [_verdict(each, overrides, files) for each in configs]
    typed = {override.lstrip("+").partition("=")[0] for override in fixed}
    problems = []
    for verdict in verdicts:  # a key of one part is right in a sweep over both, as long as some model has it
        elsewhere = {key for key in typed if any(not _names(key, other) for other in verdicts)}
        problems += [text for text in verdict if not any(_names(key, [text]) for key in elsewhere)]
    return problems


def _verdict(composed: DictConfig, overrides: Sequence[str], files: SearchPath) -> tuple[str, ...]:
    """The problems of one composed configuration."""
    try:
        with as_job(composed, multirun=True):  # a job's number outside a sweep is reported already
            config_from_tree(plain_tree(composed), where=lambda key: written_where(key, overrides, files.folders))
    except ConfigError as error:
        written = flat(cast(dict[str, Any], OmegaConf.to_container(composed, resolve=False)))
        return tuple(problem + _how_to_decode(problem, written) for problem in error.problems)
    except OmegaConfBaseException as error:
        return (_first_line(error),)
    return ()


def _how_to_decode(problem: str, written: Mapping[str, Any]) -> str:
    """The end of a problem of a key whose value is the text of an environment variable, and is right as a number, say.

    Args:
        written: the keys' values, interpolations as they are written.
    """
    key = problem.partition("=")[0]
    text = written.get(key)
    if not (isinstance(text, str) and FROM_ENVIRONMENT.fullmatch(text)):
        return ""
    decoded = f"${{oc.decode:{text}}}"
    try:
        problems = value_problems(key, OmegaConf.create({"value": decoded}).value)
    except OmegaConfBaseException:  # no value of Hydra's grammar
        return ""
    if problems:
        return ""
    return f"; an environment variable is a text: write {decoded}, on the command line in quotes: {key}='\"{decoded}\"'"


def _names(key: str, problems: Sequence[str]) -> bool:
    """Whether one of the problems is that this key does not exist."""
    return any(problem.startswith(f"{key}: no such key") for problem in problems)


def hydra_problem(error: Exception) -> str:
    """What Hydra could not compose, in one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        known = f": {', '.join(error.options)}" if error.options else ""
        hint = did_you_mean(name, error.options or [])
        if group == "hydra/launcher" and name in LAUNCHER_EXTRAS:
            hint = f"; install it: pip install 'da6401[{LAUNCHER_EXTRAS[name]}]'"
        return f"{group}={name}: no such option of {group}{known}{hint}" if group else _first_line(error)
    cause = f": {_first_line(error.__cause__)}" if error.__cause__ is not None else ""
    return _first_line(error) + cause


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    key = getattr(error, "full_key", None)  # of OmegaConf's errors
    if unset := UNSET.search(line):
        name = unset["name"]
        line = f"the environment variable {name} is not set; set it, or give a default: ${{oc.env:{name},DEFAULT}}"
    return f"{key}: {line}" if key and key not in line else line
