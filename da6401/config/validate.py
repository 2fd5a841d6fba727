"""From a plain tree to a typed RunConfig: every problem is found, then all are reported together.

Neither torch nor Hydra is needed, so a typo costs a second. Hydra composes the tree (``compose.py``). What a key may be
is said only in ``schema.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from da6401.config.backbone_rules import backbone_problems
from da6401.config.cnn_shapes import shape_problems
from da6401.config.freeze_rules import freezing_problems
from da6401.config.own_keys import ADDED, CHOSEN, OWN, extended
from da6401.config.rule import Rule, hints_of
from da6401.config.schema import CnnConfig, PretrainedConfig, RunConfig
from da6401.errors import ConfigError, did_you_mean, nearest_name

LARGEST = 2**1000  # a whole number beyond any float would raise where it is compared
NEEDED = ("model", "data")  # groups whose discriminator a tree must have
T = TypeVar("T")


def config_from_tree(tree: Mapping[str, Any], *, where: Callable[[str], str] = lambda key: "") -> RunConfig:
    """The typed configuration, or a ConfigError that names each problem: key, value, rule, remedy.

    Args:
        tree: nested mappings of plain values, interpolations resolved.
        where: says where a key was written ("" where that is not known), for messages about unknown keys.
    """
    problems: list[str] = []
    config = _dataclass(RunConfig, tree, "", problems, where)
    refused = [problem.partition("=")[0] for problem in problems]  # these keys have their defaults by now
    problems += [text for text in cross_problems(config) if not any(key in text for key in refused)]
    if problems:
        raise ConfigError(problems)
    return config


def cross_problems(config: RunConfig) -> list[str]:
    """Problems of several keys together."""
    problems = []
    if isinstance(config.model, CnnConfig):
        problems += shape_problems(config.model, config.data.image_size)
    elif isinstance(config.model, PretrainedConfig):
        problems += backbone_problems(config.model, config.data.image_size)
        problems += freezing_problems(config.model, config.augmentation, epochs=config.trainer.epochs)
    if config.data.fold:
        number, folds = map(int, config.data.fold.split("/"))
        if folds < 2 or number > folds:
            problems.append(
                f"data.fold={config.data.fold}: must be I/K with K from 2 on and I from 1 to K, such as 2/5"
            )
    if config.trainer.train_on == "all":
        needed = {"trainer.patience": (config.trainer.patience, 0), "data.fold": (config.data.fold, "")}
        problems += [
            f"{name}={value}: needs validation images, and trainer.train_on=all trains on them; set {name}={off}"
            for name, (value, off) in needed.items()
            if value
        ]
    if config.sweep.plot_by and not any(name == config.sweep.plot_by for name, _, _ in documented_keys()):
        problems.append(f"sweep.plot_by: {unknown_key(config.sweep.plot_by)}")
    return problems


def value_problems(key: str, value: Any) -> list[str]:
    """What is wrong with one value of a dotted key, the variants of a group taken together; [] where some accept it."""
    declared = [(hint, item.metadata["rule"]) for name, hint, item in documented_keys() if name == key]
    if not declared:
        return [unknown_key(key)]
    if any(fit(hint, rule, value) is not None for hint, rule in declared):
        return []
    return [refusal(*declared[0], value, key)]


@functools.cache
def option_has_key(key: str, option: str) -> bool:
    """Whether a dotted key exists with this option of its group, such as a model or an optimizer.

    One that is not ours (a user's YAML) is given every key.
    """
    group, _, own = key.partition(".")
    if group not in CHOSEN or not own:
        return True
    variants = [variant for variant in variants_of(RunConfig)[group] if option in names_of(variant, group)]
    return not variants or any(own.partition(".")[0] == item.name for v in variants for item in dataclasses.fields(v))


def is_network(model: str) -> bool:
    """Whether an option of `model` is named after its network, as ours are."""
    return any(model in names_of(variant, "model") for variant in variants_of(RunConfig)["model"])


def names_of(variant: type, group: str) -> list[str]:
    """The names that choose this variant of model or data."""
    name = CHOSEN[group]
    rules = {item.name: item.metadata["rule"] for item in dataclasses.fields(variant) if "rule" in item.metadata}
    return _choices(hints_of(variant)[name], rules[name]) or []


def unknown_key(key: str, *, where: str = "") -> str:
    """The message for a key that the schema does not have, with the nearest one that it has."""
    return f"{key}: no such key{where}{did_you_mean(key, (name for name, _, _ in documented_keys()))}"


def documented_keys() -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Every dotted key of the schema with its type and field; a key that two variants share comes once for each."""

    def walk(cls: type, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
        hints, groups = hints_of(cls), variants_of(cls)
        for item in dataclasses.fields(cls):
            for variant in groups.get(item.name, ()):
                yield from walk(variant, f"{prefix}{item.name}.")
            if item.name not in groups:
                yield prefix + item.name, hints[item.name], item

    return walk(RunConfig, "")


def variants_of(cls: type) -> dict[str, list[type]]:
    """The groups among a dataclass's fields, each with the dataclasses that it may hold: several for model and data.

    Those of plugins are among them.
    """
    hints = hints_of(cls)
    groups: dict[str, list[type]] = {}
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        members: tuple[Any, ...] = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if "variants" in item.metadata:  # a registry, which may hold more than the hint says
            members = tuple(entry.schema for entry in item.metadata["variants"].entries.values())
        if cls is RunConfig and item.name in ADDED:
            members = (extended(hint, item.name),)
        elif cls is RunConfig:
            members = tuple(dict.fromkeys([*members, *OWN.get(item.name, {}).values()]))
        groups[item.name] = [
            member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)
        ]
    return {name: variants for name, variants in groups.items() if variants}


def _dataclass(cls: type[T], tree: Any, prefix: str, problems: list[str], where: Callable[[str], str]) -> T:
    """The dataclass of a group; a refused value becomes the default, so that the rules across keys can be checked."""
    if not isinstance(tree, Mapping):
        problems.append(f"{prefix.rstrip('.')}={_shown(tree)}: a group of keys is expected, not a value")
        return cls()
    hints, groups = hints_of(cls), variants_of(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    problems += [_unknown(cls, str(name), prefix, where) for name in tree if name not in fields]
    values: dict[str, Any] = {}
    for name, item in fields.items():
        if name not in tree:
            continue
        if variants := groups.get(name):
            variant = variants[0] if len(variants) == 1 else _pick(name, variants, tree[name], problems)
            if variant is not None:
                values[name] = _dataclass(variant, tree[name], f"{prefix}{name}.", problems, where)
            continue
        value = fit(hints[name], item.metadata["rule"], tree[name])
        if value is None:
            problems.append(refusal(hints[name], item.metadata["rule"], tree[name], prefix + name))
        else:
            values[name] = value
    return cls(**values)


def _pick(group: str, variants: list[type], tree: Any, problems: list[str]) -> type | None:
    """The variant of a group that the tree's discriminator names."""
    by_value = {name: variant for variant in variants for name in names_of(variant, group)}
    key = f"{group}.{CHOSEN[group]}"
    if group not in NEEDED and isinstance(tree, Mapping) and CHOSEN[group] not in tree:
        return variants[0]
    chosen = tree.get(CHOSEN[group]) if isinstance(tree, Mapping) else None
    if not isinstance(chosen, str) or chosen not in by_value:
        problems.append(f"{key}={chosen!r}: must be one of {', '.join(by_value)}{did_you_mean(chosen, by_value)}")
        return None
    variant = by_value[chosen]
    own = {item.name for item in dataclasses.fields(variant)}
    others = [{item.name for item in dataclasses.fields(v)} for v in variants if v is not variant]
    # Keys of another variant: one mistake, not one for each key. (A saved config may only lack a newer key.)
    if set(tree) - own and not own <= set(tree) and any(names <= set(tree) for names in others):
        problems.append(f"{key}={chosen}: the other keys of `{group}` do not fit it; choose it as {group}={chosen}")
        return None
    return variant


def _unknown(cls: type, name: str, prefix: str, where: Callable[[str], str]) -> str:
    key = prefix + name
    owners = [variant for variant in _sibling_variants(cls) if name in {f.name for f in dataclasses.fields(variant)}]
    if owners:
        group = prefix.rstrip(".")
        options = [name for owner in owners for name in names_of(owner, group)]
        return f"{key}: no such key here{where(key)}; it belongs to {group}={'|'.join(options)}"
    siblings = [prefix + item.name for item in dataclasses.fields(cls)]
    nearest = nearest_name(key, siblings)
    if nearest:
        return f"{key}: no such key{where(key)}; did you mean {nearest}?"
    return unknown_key(key, where=where(key))


def _sibling_variants(cls: type) -> list[type]:
    for variants in variants_of(RunConfig).values():
        if cls in variants:
            return [variant for variant in variants if variant is not cls]
    return []


def refusal(hint: Any, rule: Rule, value: Any, key: str) -> str:
    """The message for a value that its key does not take: what it may be, and the nearest such word."""
    is_list = get_origin(hint) is list
    known = _choices(get_args(hint)[0] if is_list else hint, rule)
    suggestion = ""
    if known is not None:
        given = _split(value) if is_list else [value]
        unknown = [name for name in given if name not in known] if isinstance(given, list) else []
        suggestion = did_you_mean(unknown[0], known) if unknown else ""
    return f"{key}={_shown(value)}: must be {describe_type(hint, rule)}{suggestion}"


def _choices(hint: Any, rule: Rule) -> list[str] | None:
    """The words that a key takes, None where it takes others than words of a list."""
    if get_origin(hint) is Literal:
        return list(map(str, get_args(hint)))
    return list(rule.names) if hint is str and rule.names is not None else None


def _split(value: Any) -> Any:
    """A list of names, which may be written as one text with commas."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def fit(hint: Any, rule: Rule, value: Any) -> Any:
    """The value in its declared type, None where it does not fit."""
    choices = _choices(hint, rule)
    if choices is not None:
        return value if value in choices else None
    if get_origin(hint) in (Union, types.UnionType):
        found = (fit(member, rule, value) for member in get_args(hint) if member is not type(None))
        return next((each for each in found if each is not None), None)
    if get_origin(hint) is list:
        names = _choices(get_args(hint)[0], rule) is not None  # each of them once
        value = _split(value) if names else value
        if not isinstance(value, (list, tuple)) or not value:
            return None
        items = [fit(get_args(hint)[0], rule, item) for item in value]
        return None if None in items or (names and len(set(items)) < len(items)) else items
    if hint is bool:
        return value if isinstance(value, bool) else None
    if hint is str:
        text = str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
        return text if text is not None and re.fullmatch(rule.pattern or "(?s:.*)", text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if abs(value) > LARGEST or not math.isfinite(value):
        return None
    if hint is int and value != int(value):
        return None
    number = hint(value)
    inside = (
        (rule.low is None or number >= rule.low)
        and (rule.high is None or number <= rule.high)
        and (rule.above is None or number > rule.above)
        and (rule.below is None or number < rule.below)
    )
    return number if inside else None


def describe_type(hint: Any, rule: Rule) -> str:
    """The rule in words, such as "a number in (0, 1)" or "one of sgd, adam"."""
    choices = _choices(hint, rule)
    if choices is not None:
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe_type(member, rule) for member in get_args(hint) if member is not type(None))
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        if (choices := _choices(item, rule)) is not None:
            return f"a list, each once, of {', '.join(choices)}"
        return "a list of such numbers" if item is not str else "a list of such texts"
    if hint is bool:
        return "true or false"
    if hint is str:
        return rule.shape or "a text"
    if (rule.low, rule.high, rule.above, rule.below) == (None, None, None, None):
        return f"a{' whole' if hint is int else ''} number{f' of {rule.unit}' if rule.unit else ''}"
    noun = "a whole number" if hint is int else "a number"
    low = f"[{rule.low:g}" if rule.low is not None else f"({rule.above:g}" if rule.above is not None else "("
    high = f"{rule.high:.12g}]" if rule.high is not None else f"{rule.below:g})" if rule.below is not None else ")"
    unit = f" {rule.unit}" if rule.unit else ""
    return f"{noun} in {low}, {high}{unit}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def tree_of(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values: what config.yaml holds and config_from_tree reads again."""
    return dataclasses.asdict(config)
