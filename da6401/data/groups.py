"""data.group_by and data.exclude: which images belong together, and which are left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from da6401.errors import ConfigError, DataError
from da6401.redact import listed

MOST_SHOWN = 5


def groups_of(group_by: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The group of each image: its value in a column of the table, or what the pattern finds in its name.

    Raises:
        ConfigError: neither a column nor a regular expression.
        DataError: a name in which the pattern finds nothing, or an empty value.
    """
    if group_by in columns:
        groups = list(columns[group_by])
        empty = [name for name, group in zip(names, groups, strict=True) if not group]
        problem = f"data.group_by={group_by}: the column is empty for"
    else:
        pattern = _pattern(group_by, columns)
        matches = [pattern.search(name) for name in names]
        groups = ["" if match is None else "\0".join(match.groups("") or (match[0],)) for match in matches]
        empty = [name for name, group in zip(names, groups, strict=True) if not group.strip("\0")]
        problem = f"data.group_by={group_by}: the pattern finds nothing in"
    if empty:
        raise DataError(
            f"{problem} {len(empty)} of {len(names)} images ({listed(empty, most=MOST_SHOWN)}). Every image needs a "
            "group: an image alone is a group of its own name."
        )
    return groups


def _pattern(group_by: str, columns: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    among = f"; columns: {listed(list(columns))}" if columns else ""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError([f"data.group_by={group_by}: no regular expression ({error}){among}"]) from error
    if columns and re.fullmatch(r"\w+", group_by):
        raise ConfigError([f"data.group_by={group_by}: no such column{among}"])
    return pattern


def readable_group(group: str) -> str:
    """A group for messages: the parts that a pattern found, joined."""
    return group.replace("\0", "/")


def excluded_names(exclude: str) -> frozenset[str]:
    """The names in the file of data.exclude; lines that begin with # are comments, ./ before a name is not part of it.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    if not exclude:
        return frozenset()
    path = Path(exclude).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"data.exclude={exclude}: cannot be read: {error.strerror}.") from error
    if "\0" in text:  # in no name, and in every line of UTF-16
        raise DataError(
            f"data.exclude={exclude}: is no UTF-8 text: save it as UTF-8 (`iconv -f utf-16 -t utf-8`), one name a line."
        )
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line.removeprefix("./") for line in lines if line and not line.startswith("#"))


def as_line(name: str) -> str:
    """A name as a line of the file of data.exclude, whatever it begins with."""
    return f"./{name}" if name[:1] == "#" or name[:1].isspace() else name


def exclude_note(exclude: str, asked: frozenset[str], names: Sequence[str], *, whole: bool = True) -> list[str]:
    """A sentence on how many images data.exclude leaves out.

    Args:
        names: of all images that were listed, those left out too.
        whole: these are all splits, so that a name that is not among them is wrong.

    Raises:
        DataError: none of its names is an image of this data set.
    """
    if not asked:
        return []
    left_out = sum(name in asked for name in names)
    if not left_out and whole:
        first = listed(sorted(asked), most=2)
        raise DataError(
            f"data.exclude={exclude}: none of its {len(asked)} names ({first}) is an image of this data set, whose "
            f"names look like {listed(names, most=2)}."
        )
    unknown = len(asked) - left_out
    rest = f"; {unknown} of its names are not here" if unknown and whole else ""
    return [f"{left_out} images are left out (data.exclude={exclude}){rest}."]


def exclude_digest(exclude: str) -> str:
    """Changes with the names in the file of data.exclude; empty without one."""
    names = excluded_names(exclude)
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogateescape")).hexdigest() if names else ""
