"""Labels as classes: sorted names, and the place of each image's label among them."""

# N images

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from da6401.config.splits import SplitName
from da6401.data.draw import DRAWN, SPLITS
from da6401.data.layout import FOLDER_NAMES
from da6401.errors import DataError
from da6401.redact import listed, one_line

NUMBER = r"-?\d{1,4000}"  # Python reads no longer ones


def numbered(labels: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The different labels in order, numbers as numbers, and the place of each label among them, (N,)."""
    values = set(labels)
    numeric = all(re.fullmatch(NUMBER, value) for value in values)
    ordered = sorted(values, key=lambda value: (int(value) if numeric else 0, value))
    number = {value: place for place, value in enumerate(ordered)}
    return ordered, np.fromiter((number[label] for label in labels), dtype=np.int32, count=len(labels))


def names_of_numbers(labels: Sequence[str], names: Sequence[str], where: str) -> tuple[str, ...]:
    """The name of each label, which is a place in ``names`` from 0; ``where`` says what holds the names.

    Raises:
        DataError: a label that is no such place, an empty name, or one name of two labels.
    """
    wrong = [label for label in labels if not re.fullmatch(r"\d{1,9}", label) or int(label) >= len(names)]
    if wrong:
        raise DataError(f"{where}: it has {len(names)} names, for the labels 0, 1, ..., and none for {_few(wrong)}.")
    named = {label: names[int(label)].strip() for label in labels}
    empty = [label for label in labels if not named[label]]
    if empty:
        raise DataError(f"{where}: the name of the labels {_few(empty)} is empty: give each label a name.")
    doubled = [f"{name} ({count} times)" for name, count in Counter(named.values()).items() if count > 1]
    if doubled:
        raise DataError(f"{where}: two labels have one name, {_few(doubled)}: give each label a name of its own.")
    return tuple(named.values())


def _few(texts: Sequence[str]) -> str:
    return listed([one_line(text) for text in texts], most=5)


def refuse_doubled(names: Sequence[str], root: PurePath) -> None:
    """Raise DataError where two images have one name: they could not be told apart."""
    if len(set(names)) < len(names):
        doubled = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(f"{root}: two images are called {_few(doubled)}: rename one of the files that hold them.")


def role_of(path: PurePath) -> SplitName | None:
    """The split that a file's name or one of its folders says: train-00000-of-00002.parquet, val/0.tar; else None."""
    for part in (path.name, *reversed(path.parent.parts)):
        role = FOLDER_NAMES.get(re.split(r"[-_.\d]", part.lower(), maxsplit=1)[0])
        if role is not None:
            return role
    return None


def split_number(role: SplitName | None) -> int:
    """The place of a split in SPLITS, or DRAWN."""
    return DRAWN if role is None else SPLITS.index(role)
