"""Keys that had another name in an older version, or were not there. Old names go on working wherever a key is written.

That is: on the command line, in a user's YAML, in the config.yaml of an old run, and in an old study. Whatever comes
after the reading knows the new names alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from da6401.errors import ConfigError

log = logging.getLogger(__name__)

# Old name -> new name. To rename a key, add it here, with the version in which the new name appears.
RENAMED: dict[str, str] = {
    # 0.2.0
    "resume": "sweep.on_space_change",
    "warm_start": "sweep.warm_start",
    "sweep.curve": "sweep.plot_by",
    "data.on_bad": "data.bad_files",
    "augmentation.trivial": "augmentation.trivial_augment",
}
# Key -> the value under which a run is what it was before the key was there. An unfinished run without it goes on.
ADDED: dict[str, Any] = {  # 0.2.0
    "augmentation.plain_end": 0.0, "model.convolutions": 1,
    "data.fold": "", "data.test_fraction": 0.2, "data.group_by": "", "data.exclude": "",
    "data.layout": "auto", "data.class_depth": "auto", "data.follow_links": False,
    "trainer.metric": "accuracy", "trainer.class_weights_by": "inverse", "trainer.effective_beta": 0.999,
    "trainer.sampler": "shuffle", "trainer.logit_adjustment": 0.0, "trainer.focal_gamma": 0.0,
    "trainer.on_oom": "accumulate", "trainer.devices": 1, "trainer.train_on": "train",
    "trainer.average_end": 0.0,
}  # fmt: skip
HOLDS_A_KEY = ("sweep.curve", "sweep.plot_by")  # keys whose value is the name of a key
SEARCH = ("hydra.sweeper.params", "hydra.sweeper.conditional")  # what they hold is named by whole keys

_OLD = "|".join(map(re.escape, sorted(RENAMED, key=len, reverse=True)))
_WORD = re.compile(rf"(?s:(?P<sign>\+{{0,2}}|~)(?P<key>{_OLD})(?P<rest>=.*)?)")
_NAME = re.compile(rf"(?<![\w.=])(?:{_OLD})(?![\w.])")  # in a text such as "KEY when KEY=value"; not a value
_INTERPOLATION = re.compile(rf"(?<=\$\{{)(?:{_OLD})(?=\}})")
_told: set[str] = set()


def renamed_words(words: Sequence[str]) -> list[str]:
    """The words of a command with the new names of their keys.

    Raises:
        ConfigError: a key is given by both of its names.
    """
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    _refuse_both([old for old, new in RENAMED.items() if {old, new} <= keys], "on the command line")
    found: list[str] = []
    result = []
    for word in words:
        match = _WORD.fullmatch(word)
        if match is not None and (match["rest"] or match["sign"] == "~"):
            found.append(match["key"])
            word = f"{match['sign']}{RENAMED[match['key']]}{match['rest'] or ''}"
        key, _, value = word.partition("=")
        if key.lstrip("+").startswith(SEARCH) or key.lstrip("+") in HOLDS_A_KEY:
            word = f"{key}={_in_text(value, found)}"
        result.append(word)
    _tell(found)
    return result


def renamed_tree(tree: Mapping[str, Any], *, package: str = "", where: object) -> dict[str, Any]:
    """The content of a YAML file with the new names of its keys.

    Args:
        package: the group of keys that the tree stands for, dotted; "" for a whole configuration.
        where: the file, for messages.

    Raises:
        ConfigError: a key is given by both of its names.
    """
    prefix = f"{package}." if package else ""
    found: list[str] = []
    result: dict[str, Any] = _with_interpolations(tree, found)
    for old, new in RENAMED.items():
        if not (old.startswith(prefix) and new.startswith(prefix)):
            continue
        above, name = _parent(result, old.removeprefix(prefix))
        if not isinstance(above, dict) or name not in above:
            continue
        target, new_name = _parent(result, new.removeprefix(prefix), create=True)
        if not isinstance(target, dict):
            continue  # the group is no mapping, which the check of the types refuses
        _refuse_both([old] if new_name in target else [], f"in {where}")
        target[new_name] = above.pop(name)
        found.append(old)
    for key in (*HOLDS_A_KEY, *SEARCH):
        above, name = _parent(result, key.removeprefix(prefix)) if key.startswith(prefix) else (None, "")
        if isinstance(above, dict) and name in above:
            above[name] = _with_names(above[name], found, where)
    _tell(found)
    return result


def renamed_text(text: str) -> str:
    """A text with the new names of the keys in it, such as a study's name of a parameter: "KEY [KEY=value]"."""
    return _NAME.sub(lambda match: RENAMED[match[0]], text)


def older_names(names: Iterable[str]) -> dict[str, str]:
    """For each of a study's names that an older version has given: how it would be named now -> that name."""
    return {now: name for name in names if (now := renamed_text(name)) != name}


def _parent(tree: dict[str, Any], dotted: str, *, create: bool = False) -> tuple[Any, str]:
    """The mapping that holds a dotted key, and the key's last part."""
    *groups, name = dotted.split(".")
    node: Any = tree
    for group in groups:
        if not isinstance(node, dict):
            return None, name
        node = node.setdefault(group, {}) if create else node.get(group)
    return node, name


def _in_text(text: str, found: list[str]) -> str:
    found += _NAME.findall(text)
    return renamed_text(text)


def _with_interpolations(node: Any, found: list[str]) -> Any:
    """A copy in which ``${old}`` is ``${new}``."""
    match node:
        case Mapping():
            return {key: _with_interpolations(value, found) for key, value in node.items()}
        case list() | tuple():
            return [_with_interpolations(value, found) for value in node]
        case str() if "${" in node:
            found += _INTERPOLATION.findall(node)
            return _INTERPOLATION.sub(lambda match: RENAMED[match[0]], node)
    return node


def _with_names(node: Any, found: list[str], where: object) -> Any:
    """A node of a search space with the new names in its keys and in its conditions."""
    if isinstance(node, dict):
        _refuse_both([old for old, new in RENAMED.items() if old in node and new in node], f"in {where}")
        return {
            _in_text(key, found) if isinstance(key, str) else key: _with_names(value, found, where)
            if isinstance(value, (dict, list)) or key == "when"
            else value
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_with_names(each, found, where) for each in node]
    return _in_text(node, found) if isinstance(node, str) else node


def _refuse_both(old: Sequence[str], where: str) -> None:
    if old:
        raise ConfigError([f"{each}: is the old name of {RENAMED[each]}, and both are given {where}" for each in old])


def _tell(found: Iterable[str]) -> None:
    """One line for the old names that this process has not told of yet."""
    new = [old for old in dict.fromkeys(found) if old not in _told]
    _told.update(new)
    if new:
        log.warning("%s; the old name goes on working", ", ".join(f"{old} is now called {RENAMED[old]}" for old in new))
