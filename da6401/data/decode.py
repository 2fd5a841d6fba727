"""Many files into one array, each read from the disk once: hashed, decoded, and the bad ones kept apart."""

# N images, S side in px

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from da6401.config.schema import Resize
from da6401.data.decode_pool import in_threads
from da6401.data.images import BadImageError, quiet_pillow, read_file, read_image
from da6401.data.tree import BadFile, Entry


class Rows(Protocol):
    """Where decoded pictures go: an array (N, 3, S, S), or a file that takes its rows in any order."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __setitem__(self, row: int, picture: npt.NDArray[np.uint8], /) -> None: ...


@dataclass(frozen=True)
class Decoded:
    """What became of the entries: row ``good[i]`` of the array is filled, and ``digests[i]`` is its file's sha256."""

    good: tuple[int, ...]
    digests: tuple[str, ...]
    bad: tuple[BadFile, ...]


def decode_entries(entries: Sequence[Entry], out: Rows, *, resize: Resize, label: str) -> Decoded:
    """Decodes entry i into ``out[i]``; the row of a bad file is left as it was."""
    assert out.shape[0] == len(entries), "one row an entry"
    size = out.shape[-1]

    def decode(row: int) -> str | BadFile:
        entry = entries[row]
        try:
            content = read_file(entry.path)
            out[row] = read_image(content, size=size, resize=resize)
        except BadImageError as problem:
            return BadFile(entry.name, problem.reason)
        return hashlib.sha256(content).hexdigest()

    good: list[int] = []
    digests: list[str] = []
    bad: list[BadFile] = []
    with quiet_pillow():
        for row, result in enumerate(in_threads(decode, range(len(entries)), label=label)):
            if isinstance(result, BadFile):
                bad.append(result)
            else:
                good.append(row)
                digests.append(result)
    return Decoded(tuple(good), tuple(digests), tuple(bad))
