"""Failures of the machine, after which another machine can resume the run, and failures of the configuration.

They are distinguished by the exception and by those it was raised from:

- the machine: it cannot write, its disk is full or broken, its memory is used up, it lacks the GPU that is asked for or
  the driver fails, it cannot start threads or reach the network, it lacks a package, or a path of the configuration
  (`data.root`, a file of weights) is not there or cannot be read;
- the configuration: everything else. So a model that is too large for the GPU's memory (torch.OutOfMemoryError), and
  one allocation that is larger than all the memory of the machine.

A path or a device that a trial has itself chosen counts as the configuration's; the sweep decides that.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from da6401.config.schema import PretrainedConfig, RunConfig
from da6401.data.sources import reads_files
from da6401.errors import BusyError, ConfigError, DataError, MachineError, ModelError, UnreachableError, UserError
from da6401.machine.cores import memory_of_machine
from da6401.plugins.registered import as_plugin_error

# Error numbers of the operating system that mean the machine.
ERRNOS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM,  # nothing can be written
    errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN,  # a bad disk, a lost mount
    errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH,
})  # fmt: skip
# The same as texts, where an exception has no number, and what libraries say.
WORDS = re.compile(
    "|".join((
        *(re.escape(os.strerror(number)) for number in sorted(ERRNOS - {errno.EACCES, errno.EPERM})),
        r"can't start new thread",
        r"DataLoader worker .*(killed|exited)",
        r"database or disk is full|attempt to write a readonly database|disk I/O error",  # sqlite
        r"CUDA error: (?!invalid argument|invalid configuration argument|CUBLAS_)",
        r"(CUDNN|CUBLAS)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR|EXECUTION_FAILED)",
        r"no CUDA-capable device|[Nn]o CUDA GPUs are available|Found no NVIDIA driver|CUDA driver",
        r"CUDA initialization|CUDA unknown error|uncorrectable ECC|GPU is lost",
    ))
)  # fmt: skip
# The configuration's: a network that is too large for the device, whichever library says so.
TOO_LARGE = re.compile(r"(CUDA|HIP) out of memory|STATUS_ALLOC_FAILED")
MEMORY = re.compile(r"DefaultCPUAllocator|not enough memory|bad_alloc|Unable to allocate")
SIZE = re.compile(r"allocate (?P<amount>[\d.]+) (?P<unit>[KMGTPE]?)(iB|B|bytes)")
UNITS = {unit: 1024**power for power, unit in enumerate(("", *"KMGTPE"))}
NOT_DETERMINISTIC = re.compile(r"(?P<name>\S+) does not have a deterministic implementation|CUBLAS_WORKSPACE_CONFIG")


def machine_problem(error: BaseException) -> str | None:
    """The reason of a failure of the machine, in one line; None for a failure of the configuration, which an
    allocation beyond all the machine's memory is, too."""
    for each in _chain(error):
        text = " ".join(str(each).split())
        if isinstance(each, BusyError) or TOO_LARGE.search(text):
            return None
        if isinstance(each, MachineError):
            return text
        if isinstance(each, MemoryError) or MEMORY.search(text):
            size = SIZE.search(text)
            if size is not None and float(size["amount"]) * UNITS[size["unit"]] > memory_of_machine():
                return None
            return f"its memory is used up ({text or type(each).__name__})"
        if (isinstance(each, OSError) and each.errno in ERRNOS) or _is_missing_here(each) or WORDS.search(text):
            return text if isinstance(each, UserError) else f"{type(each).__name__}: {text}"
    return None


def _is_missing_here(error: BaseException) -> bool:
    """Whether a network, a name server or a package is missing; these errors have no number."""
    # By name, so that urllib.error need not be imported. Its HTTPError is a server's answer to every machine.
    return (
        type(error) is TimeoutError
        or isinstance(error, ImportError)
        or type(error).__name__ in ("URLError", "gaierror")
    )


def as_user_error(error: BaseException, cfg: RunConfig) -> BaseException:
    """The UserError to raise instead of a run's exception, or the exception itself where there is none."""
    if (of_plugin := as_plugin_error(error)) is not None:
        return of_plugin
    if isinstance(error, (DataError, ModelError)) and not isinstance(error, MachineError):
        for key, path in _paths(cfg):
            if not _is_readable(path):
                return UnreachableError(str(error), key)
    problem = machine_problem(error)
    if problem is not None and not isinstance(error, MachineError):
        if isinstance(error, UserError):
            return MachineError(str(error))
        resume = "the same command resumes the run, here when that is repaired or on another machine"
        return MachineError(f"this machine failed: {problem[:400]}; {resume}")
    if TOO_LARGE.search(str(error)) and not isinstance(error, UserError):
        what = str(error).split(". ")[:2]
        return ModelError(
            f"the device's memory does not hold this network and its batches ({'. '.join(what)}); use a smaller "
            "trainer.batch_size, data.image_size or network, or trainer.precision=bf16"
            + (", or trainer.on_oom=accumulate" if cfg.trainer.on_oom == "fail" else "")
        )
    refused = NOT_DETERMINISTIC.search(str(error)) if isinstance(error, RuntimeError) else None
    if refused is None:
        return error
    if refused["name"] is None:
        remedy = "CUDA was used before CUBLAS_WORKSPACE_CONFIG=:4096:8 was set: start the process anew, or set it first"
    else:
        remedy = f"{refused['name']} has no deterministic form on this device: use another model"
    return ConfigError([f"trainer.deterministic=true: {remedy}; or trainer.deterministic=false"])


@contextmanager
def explain_failures(cfg: RunConfig) -> Iterator[None]:
    """Raise the block's exceptions as ``as_user_error`` has them."""
    try:
        yield
    except (Exception, SystemExit) as error:
        explained = as_user_error(error, cfg)
        if explained is error:
            raise
        raise explained from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, its cause, and so on; an exception that was only being handled at the time is no cause."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


def _paths(cfg: RunConfig) -> Iterator[tuple[str, Path]]:
    """The paths that a configuration reads from, and their keys."""
    if reads_files(cfg.data) and cfg.data.root:
        yield "data.root", Path(cfg.data.root).expanduser()
    if isinstance(cfg.model, PretrainedConfig) and cfg.model.weights not in ("imagenet", "none"):
        yield "model.weights", Path(cfg.model.weights).expanduser()


def _is_readable(path: Path) -> bool:
    """Whether it is a readable file or a folder that is not empty (an empty one may be a mount point unmounted)."""
    try:
        if path.is_dir():
            with os.scandir(path) as items:
                return any(True for _ in items)
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False
