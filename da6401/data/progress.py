"""One progress bar for work on many items; it is on stderr, and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], label: str, *, total: int, enabled: bool = True) -> Iterable[Item]:
    """The items, with a bar that counts them up to ``total`` as they are taken."""
    console = Console(stderr=True)
    hidden = not (enabled and console.is_terminal)
    return track(items, description=label, total=total, console=console, transient=True, disable=hidden)
