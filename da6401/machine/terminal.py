"""Tables on standard output and progress bars on standard error, for a terminal and for a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
PIPE_WIDTH = 200  # characters of a table through a pipe


def table_console() -> Console:
    """Standard output: text is not folded, and tables are as wide as the terminal, or PIPE_WIDTH through a pipe."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=PIPE_WIDTH)


def with_progress(items: Iterable[Item], label: str, *, total: int, enabled: bool = True) -> Iterable[Item]:
    """The items, with a bar that counts them up to ``total`` as they are taken; none where stderr is no terminal."""
    console = Console(stderr=True)
    hidden = not (enabled and console.is_terminal)
    return track(items, description=label, total=total, console=console, transient=True, disable=hidden)
