"""Adds the quotes that Hydra's grammar needs to overrides as a user types them: the shell has removed the user's own.

`data.root="archive (1)"` reaches the program as ``data.root=archive (1)``, which the grammar refuses; 2020.10 would be
a number, a folder named "a,b" a sweep over two. The value of a text key is taken literally,
so it is quoted here; a sweep, an interpolation or a quoted value stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from da6401.config.validate import documented_keys
from da6401.runs.renamed_keys import renamed_words

# Hydra's own keys that are texts, and of them those that name one folder: nothing to sweep over.
FOLDERS = frozenset({"hydra.run.dir", "hydra.sweep.dir"})
HYDRA_TEXTS = FOLDERS | {"hydra.sweep.subdir", "hydra.sweeper.storage"}
SEVERAL = re.compile(r"\s*[\w-]+(\s*,\s*[\w-]+)+\s*")  # 0,1
TYPED = re.compile(r"(?s:(\+{0,2}([A-Za-z_][\w.]*)=)(.*))")


def from_shell(words: Sequence[str]) -> list[str]:
    """The words of a command as a user has typed them, for Hydra: today's names of keys, and Hydra's quotes.

    Raises:
        ConfigError: a key is given by its old name and by its new one.
    """
    return quoted(renamed_words(words))


def quoted(words: Sequence[str]) -> list[str]:
    """The words of a command, each override of a text in Hydra's quotes where its grammar would not read that text.

    A file or folder of that very name decides what else would have two meanings: with a folder "a,b" the word
    ``data.root=a,b`` names it, without one it is a sweep over a and b.
    """
    texts, paths = _text_keys()
    lists = _list_keys()
    result = []
    for word in words:
        match = TYPED.fullmatch(word)
        if match is not None and match[2] in lists and SEVERAL.fullmatch(match[3]):
            result.append(f"{match[1]}[{match[3]}]")
        elif match is None or match[2] not in texts:
            result.append(word)
        else:
            result.append(match[1] + (_path if match[2] in paths else _text)(match[2], match[3]))
    return result


def quote(text: str) -> str:
    """A text as a value of an override, whatever characters it has."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def value_of(words: Sequence[str], key: str) -> str | None:
    """The text that the last override of a key gives it; None where there is none, or it is no single text."""
    for word in reversed(words):
        match = TYPED.fullmatch(word)
        if match is not None and match[2] == key:
            override = _parsed(key, match[3])
            value = None if override is None or override.is_sweep_override() else override.value()
            return value if isinstance(value, str) else None
    return None


def _text_keys() -> tuple[set[str], set[str]]:
    """The dotted keys whose values are texts, and those of them that are paths."""
    rules = [(name, item.metadata["rule"]) for name, hint, item in documented_keys() if hint is str]
    return {name for name, _ in rules} | HYDRA_TEXTS, {name for name, rule in rules if rule.path} | HYDRA_TEXTS


def _list_keys() -> set[str]:
    """The keys that take a list and cannot be searched: commas have one meaning there."""
    hints = [(name, [hint, *get_args(hint)]) for name, hint, _ in documented_keys()]
    return {
        name for name, kinds in hints if name.startswith("sweep.") and any(get_origin(kind) is list for kind in kinds)
    }


def _text(key: str, value: str) -> str:
    return value if _parsed(key, value) is not None else quote(value)


def _path(key: str, value: str) -> str:
    if key in FOLDERS and value.startswith("~"):
        value = os.path.expanduser(
            value
        )  # Hydra would make a folder named ~; other paths are expanded when they are read
    override = _parsed(key, value)
    if override is not None and not override.is_sweep_override() and override.value() == value:
        return value
    if not value or (override is not None and value[0] in "'\"" and isinstance(override.value(), str)):
        return value  # the user has quoted it for Hydra
    if "${" not in value and (key in FOLDERS or _exists(value)):
        return quote(value)
    if override is None:
        parts = value.split(",")
        several = len(parts) > 1 and all(map(_exists, parts))
        return ",".join(map(quote, parts)) if several else quote(value)
    if override.is_sweep_override() or override.value() is None:
        return value
    # A number, a list or a text that lost its spaces was meant as a path, too; not one with the grammar's escapes.
    return value if isinstance(override.value(), str) and "\\" in value else quote(value)


def _parsed(key: str, value: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([f"{key}={value}"])[0]
    except HydraException:
        return None


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user
        return False
