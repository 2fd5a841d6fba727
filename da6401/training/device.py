"""The machine under a run: device, threads, seeds, and the receipt that says what it was."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from da6401.cores import available_cores
from da6401.errors import ConfigError, NoDeviceError
from da6401.redact import redacted

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "hydra-core", "omegaconf", "optuna", "wandb", "scikit-learn")

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
Switch = tuple[Callable[[], Any], Callable[[Any], object]]  # what reads it, what sets it
CHECKOUT = Path(__file__).resolve().parents[2]  # where this code lies


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
    # For whoever reads memory that was never written. No layer does, and to fill it costs a twentieth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = False  # the debug mode asks for as much, and a notebook's own is put aside
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(seed)


@contextmanager
def restore_torch_settings() -> Iterator[None]:
    """Put torch's global switches and random numbers back at the end of the block: a notebook goes on with its own.

    Also a decorator: ``@restore_torch_settings()``.
    """
    restore = [_kept(read, write) for read, write in SWITCHES]
    workspace = os.environ.get(CUBLAS)
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for put_back in restore:
            put_back()
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        if workspace is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = workspace


def _kept(read: Callable[[], Any], write: Callable[[Any], object]) -> Callable[[], object]:
    """What puts back the value that a switch has now."""
    return functools.partial(write, read())


def _attribute(owner: object, name: str) -> Switch:
    return functools.partial(getattr, owner, name), functools.partial(setattr, owner, name)


def _compiler_is_deterministic() -> bool:
    compiler = sys.modules.get("torch._inductor.config")  # to import it takes seconds, and then it is still as it was
    return bool(compiler and compiler.deterministic)


def _make_compiler_deterministic(value: bool) -> None:
    compiler = sys.modules.get("torch._inductor.config")
    if compiler is not None:
        compiler.deterministic = value  # type: ignore[attr-defined]


def _matmul_precision() -> tuple[str | None, str]:
    """By torch's first interface; where a process has used the second, that refuses to answer, and the second does."""
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


def receipt(*, device: torch.device, seed: int, fingerprint: str, class_names: list[str]) -> dict[str, Any]:
    """What the run's numbers depend on, besides its config."""
    return {
        "command": redacted(f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"),
        "seed": seed,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "data_fingerprint": fingerprint,
        "class_names": class_names,
        **program(),
    }


@functools.cache
def program() -> dict[str, Any]:
    """The code and the packages, as they were when this process first asked.

    A process goes on with what it has loaded: what is committed or installed while a sweep runs is not what its later
    trials ran.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch_build": torch.__version__,  # with the CUDA version behind it, which pip's does not say
        "da6401": _version("da6401"),
        **_code_state(CHECKOUT),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _code_state(root: Path) -> dict[str, str | None]:
    """The git commit of this code and a hash of what differs from it; both None outside a checkout."""
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        diff = _git(root, "diff", "HEAD", "--", "da6401", "conf")
        untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "da6401", "conf")
        new = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in untracked.split("\0") if name}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    dirty = hashlib.sha256(f"{diff}{new}".encode()).hexdigest() if diff or new else None
    return {"git_commit": commit, "git_dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout
