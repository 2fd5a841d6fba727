"""The device of a run, and torch's global settings: threads, determinism, seeds."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from da6401.errors import ConfigError, NoDeviceError
from da6401.machine.cores import available_cores

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
Switch = tuple[Callable[[], Any], Callable[[Any], object]]  # what reads it, what sets it


def choose_device(name: str) -> torch.device:
    """The torch device of `device`: auto takes CUDA where there is one.

    Raises:
        NoDeviceError: a CUDA device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise NoDeviceError([f"device={name}: this machine has {count} CUDA devices; use device=auto or device=cpu"])
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raises ConfigError where the device does not have `trainer.precision`."""
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError([f"trainer.precision=fp16: needs CUDA, the device is {device}; use bf16 or fp32"])


def prepare(*, seed: int, threads: int, deterministic: bool) -> None:
    """Set torch's global state for a run, whatever ran before in this process; ``restore_torch_settings`` undoes it."""
    torch.set_num_threads(threads or available_cores())
    # cuBLAS is deterministic only with a fixed workspace, read when CUDA starts: set it in any case, it costs nothing.
    os.environ.setdefault(CUBLAS, ":4096:8")
    # As use_deterministic_algorithms, without its import of the compiler: two seconds for what has no optimizer.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # No layer reads memory that was never written, and filling it costs a twentieth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = False  # the debug mode asks for the same; a notebook may have set it
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(seed)


@contextmanager
def restore_torch_settings() -> Iterator[None]:
    """Restore torch's global switches and random state at the end of the block: a notebook keeps its own.

    Also a decorator: ``@restore_torch_settings()``.
    """
    restore = [_kept(read, write) for read, write in SWITCHES]
    workspace = os.environ.get(CUBLAS)
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for undo in restore:
            undo()
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        if workspace is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = workspace


def _kept(read: Callable[[], Any], write: Callable[[Any], object]) -> Callable[[], object]:
    """What restores the value that a switch has now."""
    return functools.partial(write, read())


def _attribute(owner: object, name: str) -> Switch:
    return functools.partial(getattr, owner, name), functools.partial(setattr, owner, name)


def _compiler_is_deterministic() -> bool:
    compiler = sys.modules.get("torch._inductor.config")  # importing it takes seconds, and would change nothing
    return bool(compiler and compiler.deterministic)


def _make_compiler_deterministic(value: bool) -> None:
    compiler = sys.modules.get("torch._inductor.config")
    if compiler is not None:
        compiler.deterministic = value  # type: ignore[attr-defined]


def _matmul_precision() -> tuple[str | None, str]:
    """By torch's first interface, or by the second where a process has used that: then the first raises."""
    try:
        return torch.get_float32_matmul_precision(), ""
    except RuntimeError:
        return None, torch.backends.cuda.matmul.fp32_precision


def _set_matmul_precision(value: tuple[str | None, str]) -> None:
    first, second = value
    if first is not None:
        torch.set_float32_matmul_precision(first)
    else:
        torch.backends.cuda.matmul.fp32_precision = second


SWITCHES: tuple[Switch, ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (_compiler_is_deterministic, _make_compiler_deterministic),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn, "deterministic"),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_matmul_precision, _set_matmul_precision),
    (torch.get_rng_state, torch.set_rng_state),
)
