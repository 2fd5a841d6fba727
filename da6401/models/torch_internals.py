"""Private names of torch, behind a function that says why no public name would do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from da6401.config.private_names import Package

COMPILER = "torch._dynamo"  # importing it takes a second
COMPILERS = {COMPILER, "torch.nn.attention.flex_attention"}  # which imports the compiler when it is called
TORCH = Package("torch", ">=2.6", last="2.14.1")


def watch_operations(seen: Callable[[Any, tuple[Any, ...], Any], None]) -> AbstractContextManager[object]:
    """A context in which ``seen`` gets every operation that torch has run, with its arguments and its result.

    torch.overrides' mode sees the functions that Python calls, and not the operations that a module runs inside.

    Raises:
        UserError: torch has other names now.
    """
    with TORCH.names():
        from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its decorator has no types
        supports_higher_order_operators = True  # they run as if nobody watched; torch would refuse them

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # torch would import its compiler to keep it from this class; nothing is compiled here

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            seen(func, args, result)
            return result

    return _eager(Watch())  # type: ignore[no-untyped-call]  # as above


@contextmanager
def _eager(watch: AbstractContextManager[object]) -> Iterator[None]:
    """What was made by torch.compile runs as it is written: compiled, other operations run, or torch refuses to."""
    compiles = not COMPILERS.isdisjoint(sys.modules)
    with torch.compiler.set_stance("force_eager") if compiles else nullcontext(), watch:
        yield
