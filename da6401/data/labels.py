"""Labels as classes: sorted names, and the place of each image's label among them."""

# N images

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from da6401.config.splits import SplitName
from da6401.data.draw import DRAWN, SPLITS
from da6401.data.layout import FOLDER_NAMES


def numbered(labels: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The different labels in order, numbers as numbers, and the place of each label among them, (N,)."""
    values = set(labels)
    numeric = all(value.lstrip("-").isdecimal() for value in values)
    ordered = sorted(values, key=lambda value: (int(value) if numeric else 0, value))
    number = {value: place for place, value in enumerate(ordered)}
    return ordered, np.fromiter((number[label] for label in labels), dtype=np.int32, count=len(labels))


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
