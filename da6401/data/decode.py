"""Many image files into one array, in threads: each is read once, hashed and decoded; bad files are listed."""

# N images, S side in px

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from da6401.config.schema import Resize
from da6401.data.images import BadImageError, quiet_pillow, read_content, read_image
from da6401.data.tree import BadFile, LabelledFile
from da6401.machine.cores import available_cores
from da6401.machine.terminal import with_progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class Rows(Protocol):
    """Where decoded images go: an array (N, 3, S, S), or a file whose rows may be written in any order."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __setitem__(self, row: int, image: npt.NDArray[np.uint8], /) -> None: ...


@dataclass(frozen=True)
class Decoded:
    """The outcome of each row: the sha256 of a file that was decoded, or why it was not."""

    digests: dict[int, str]
    bad: dict[int, BadFile]


def decode_files(files: Sequence[LabelledFile], out: Rows, *, resize: Resize, label: str) -> Decoded:
    """Decode file i into ``out[i]``; the row of a bad file is left as it was."""
    assert out.shape[0] == len(files), "one row a file"
    size = out.shape[-1]

    def decode(row: int) -> str | BadFile:
        try:
            content = read_content(files[row])
            out[row] = read_image(content, size=size, resize=resize)
        except BadImageError as problem:
            return BadFile(files[row].name, problem.reason)
        return hashlib.sha256(content).hexdigest()

    decoded = Decoded({}, {})
    with quiet_pillow():
        for row, outcome in enumerate(in_threads(decode, range(len(files)), label=label)):
            if isinstance(outcome, BadFile):
                decoded.bad[row] = outcome
            else:
                decoded.digests[row] = outcome
    return decoded


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], *, label: str) -> Iterator[Result]:
    """``work(item)`` for every item, in order, with a progress bar; one thread a core that this process may use.

    Threads are enough: Pillow and hashlib release the interpreter's lock. An exception, Ctrl-C included, cancels the
    items that have not begun.
    """
    pool = ThreadPoolExecutor(max_workers=available_cores())
    try:
        yield from with_progress(pool.map(work, items), label, total=len(items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
