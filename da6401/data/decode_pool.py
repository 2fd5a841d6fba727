"""Work on many files at once: threads, because Pillow and hashlib let go of the interpreter while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from da6401.cores import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], *, label: str) -> Iterator[Result]:
    """``work(item)`` for every item, in the items' order; one thread for each core that this process may use.

    A bar titled ``label`` stands on stderr where that is a terminal. An exception, Ctrl-C included, drops what has
    not begun instead of waiting for thousands of files.
    """
    console = Console(stderr=True)
    pool = ThreadPoolExecutor(max_workers=available_cores())
    try:
        yield from track(
            pool.map(work, items),
            description=label,
            total=len(items),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
