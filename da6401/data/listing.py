"""What a data set holds, by names alone: each image's class, and where they are known its split and its group.

The columns are arrays and lists, not objects: a table of a million rows takes some hundred megabytes.
"""

# N images

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from da6401.data.stamp import stamp_of
from da6401.data.tree import BadFile, LabelledFile


@dataclass(frozen=True)
class Listing:
    """Every image of a data set; none is opened."""

    root: Path  # what the names are relative to
    found: str  # which layout this is, and why: a line of the log
    class_names: tuple[str, ...]
    names: Sequence[str]  # each once
    labels_N: npt.NDArray[np.int32]  # index into class_names
    splits_N: npt.NDArray[np.int8]  # index into draw.SPLITS, or draw.DRAWN where the split is to be drawn
    locate: Callable[[int], LabelledFile]  # the image of a row
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)  # that data.group_by may name
    bad: tuple[BadFile, ...] = ()
    loose: tuple[str, ...] = ()  # files that belong to no class
    lost_classes: Mapping[str, str] = field(default_factory=dict)  # class folders that cannot be read, and why
    notes: tuple[str, ...] = ()
    stamp: str = ""  # what else the content depends on, such as the table's digest

    def signature(self, rows: npt.NDArray[np.int64]) -> str:
        """Changes when one of these images is added, removed, or given another size, time, inode or class."""
        total = hashlib.sha256(repr((str(self.root), self.stamp, self.class_names, self.bad, self.loose)).encode())
        seen: dict[str, str] = {}  # several images may be in one file
        for row in rows:
            path = self.locate(int(row)).location
            if path not in seen:
                seen[path] = repr(stamp_of(path))
            total.update(f"{self.names[row]!r} {self.labels_N[row]} {self.splits_N[row]} {seen[path]}\n".encode())
        return total.hexdigest()
