"""Private names of torch, behind a function that says why no public name would do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from da6401.config.private_names import Package

TORCH = Package("torch", ">=2.6", last="2.14.1")


def watch_operations(seen: Callable[[Any, tuple[Any, ...]], None]) -> AbstractContextManager[object]:
    """A context in which ``seen`` gets every operation that torch runs, with its arguments.

    torch.overrides' mode sees the functions that Python calls, and not the operations that a module runs inside.

    Raises:
        UserError: torch has other names now.
    """
    with TORCH.names():
        from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its decorator has no types
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen(func, args)
            return func(*args, **(kwargs or {}))

    watch: AbstractContextManager[object] = Watch()  # type: ignore[no-untyped-call]  # as above
    return watch
