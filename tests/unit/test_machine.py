"""Failures of the machine and failures of the configuration, told apart by a table."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import optuna
import pytest
import torch
from filelock import Timeout
from sqlalchemy.exc import OperationalError

from da6401.config.schema import FolderConfig, PretrainedConfig, RunConfig
from da6401.errors import (
    BusyError,
    ConfigError,
    DataError,
    DivergedError,
    MachineError,
    ModelError,
    NoDeviceError,
    NoRoomError,
    RunError,
    UnreachableError,
    UserError,
)
from da6401.machine.cores import memory_of_machine
from da6401.runs.atomic_files import WriteError, explain_write_errors
from da6401.training.device import choose_device
from da6401.training.machine_failures import as_user_error, machine_problem

GIB = 2**30
MEMORY = 16 * GIB


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "outputs/run/x")


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


MACHINE: dict[str, Exception] = {
    # the disk
    "full": system(errno.ENOSPC),
    "quota": system(errno.EDQUOT),
    "read-only": system(errno.EROFS),
    "input/output error": system(errno.EIO),
    "a file system that is gone": system(errno.ESTALE),
    "a FUSE mount that is gone": system(errno.ENOTCONN),
    "no permission": PermissionError(errno.EACCES, "Permission denied", "outputs"),
    "too many open files": system(errno.EMFILE),
    "a write that was told": WriteError("outputs/run: cannot be written (No space left on device)"),
    "a cache on a full disk": raised_from(DataError("The cache /c cannot be used: full"), system(errno.ENOSPC)),
    "no room for the cache": NoRoomError("train needs 3 GB in the cache, and /c has 1 GB free"),
    "torch's writer": RuntimeError("[enforce fail at inline_container.cc] . No space left on device"),
    "sqlite on a full disk": raised_from(
        optuna.exceptions.StorageInternalError("An exception is raised during the commit."),
        OperationalError("INSERT", {}, Exception("database or disk is full")),
    ),
    "bad files on a bad disk": DataError("2 unusable files in /d:\n  train/a/1.png: Input/output error"),
    # memory
    "Python": MemoryError(),
    "a fork": system(errno.ENOMEM),
    "torch on the CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1073741824 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "numpy": MemoryError("Unable to allocate 2.00 GiB for an array with shape (9, 9) and data type uint8"),
    "C++": RuntimeError("std::bad_alloc"),
    "threads": RuntimeError("can't start new thread"),
    "a worker of a data loader": RuntimeError("DataLoader worker (pid 712) is killed by signal: Killed."),
    # CUDA
    "not initialised": RuntimeError("CUDA error: initialization error\nCUDA kernel errors might be ..."),
    "no device": RuntimeError("CUDA error: no CUDA-capable device is detected"),
    "no device, told by torch": RuntimeError("No CUDA GPUs are available"),
    "no driver": RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    "an old driver": RuntimeError(
        "The NVIDIA driver on your system is too old ... CUDA driver version is insufficient"
    ),
    "an old GPU": RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    "memory that others have": RuntimeError("CUDA error: out of memory"),  # outside what torch allocates
    "illegal access": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "an assertion on the device": RuntimeError("CUDA error: device-side assert triggered"),  # the context is lost
    "broken memory": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "the device of the config": NoDeviceError(["device=cuda: this machine has 0 CUDA devices; use device=auto"]),
    # what is around it
    "no network": raised_from(ModelError("cannot download"), URLError(ConnectionRefusedError(111, "refused"))),
    "a slow network": raised_from(ModelError("cannot download"), TimeoutError("timed out")),
    "no package": raised_from(ModelError("is not installed"), ModuleNotFoundError("No module named 'x'")),
}
CONFIGURATION: dict[str, Exception] = {
    "too large for the GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    "too large for the GPU, by cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`"),
    "too large for the GPU, by cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "too large for any machine like this": RuntimeError(
        f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {MEMORY + 1} bytes"
    ),
    "too large an array": MemoryError("Unable to allocate 3.10 TiB for an array with shape (1, 2)"),
    "launch": RuntimeError("CUDA error: invalid configuration argument"),
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x4 and 5x2)"),
    "a key": ConfigError(["model.filters=0: must be a whole number in [1, 8192]"]),
    "a model": ModelError("the network cannot be built"),
    "damaged pictures": DataError("2 unusable files in /d:\n  train/a/1.png: image file is truncated"),
    "diverged": DivergedError("the loss is nan in epoch 1"),
    "a folder of another run": RunError("run: holds a run already, finished as completed"),
    "a run that goes on": raised_from(BusyError("run: another process is running in this folder"), Timeout("lock")),
    "a file that the server does not have": raised_from(
        ModelError("cannot download"), HTTPError("http://x", 404, "Not Found", None, None)  # type: ignore[arg-type]
    ),
    "a mistake in the code": KeyError("model"),
    "a missing file": FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.training.machine_failures.memory_of_machine", lambda: MEMORY)


@pytest.mark.parametrize("name", MACHINE)
def test_the_machines(name: str) -> None:
    problem = machine_problem(MACHINE[name])
    assert problem
    assert "\n" not in problem
    told = as_user_error(MACHINE[name], RunConfig())
    assert isinstance(told, MachineError)
    assert str(told)


@pytest.mark.parametrize("name", CONFIGURATION)
def test_the_configurations(name: str) -> None:
    assert machine_problem(CONFIGURATION[name]) is None
    assert memory_of_machine() < 2**60
    told = as_user_error(CONFIGURATION[name], RunConfig())
    assert told is CONFIGURATION[name] or (isinstance(told, ModelError) and "the device's memory" in str(told))


def test_an_allocation_beyond_all_memory_is_the_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 34359738368 bytes.")
    for memory, blamed in ((64, "machine"), (16, "configuration")):
        monkeypatch.setattr("da6401.training.machine_failures.memory_of_machine", lambda memory=memory: memory * GIB)
        assert (machine_problem(error) is None) == (blamed == "configuration")


def test_what_was_only_being_handled_is_no_reason() -> None:
    error = KeyError("x")
    error.__context__ = ImportError("No module named 'flash'")
    assert machine_problem(error) is None


def test_a_full_disk_and_a_missing_device_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="make room"), explain_write_errors(tmp_path / "x"):
        raise system(errno.ENOSPC)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError):
        choose_device("cuda")


# ---- paths of the configuration ---------------------------------------------------------------------------------


def with_root(root: Path) -> RunConfig:
    return dataclasses.replace(RunConfig(), data=FolderConfig(root=str(root)))


def made(path: Path, *files: str) -> Path:
    path.mkdir()
    for name in files:
        (path / name).write_bytes(b"x")
    return path


def test_data_that_is_not_there_is_the_machines(tmp_path: Path) -> None:
    error = DataError("no such data")
    for root in (tmp_path / "missing", made(tmp_path / "mount-point")):
        told = as_user_error(error, with_root(root))
        assert isinstance(told, UnreachableError)
        assert (told.key, str(told)) == ("data.root", "no such data")
        assert isinstance(told, DataError)
    assert as_user_error(error, with_root(made(tmp_path / "data", "train"))) is error
    assert as_user_error(error, RunConfig()) is error
    assert as_user_error(KeyError("x"), with_root(tmp_path / "missing")).args == ("x",)


def test_weights_that_are_not_there_are_the_machines(tmp_path: Path) -> None:
    def cfg(weights: Any) -> RunConfig:
        return dataclasses.replace(RunConfig(), model=PretrainedConfig(weights=str(weights)))

    error = ModelError("no such file")
    told = as_user_error(error, cfg(tmp_path / "weights.pt"))
    assert isinstance(told, UnreachableError)
    assert told.key == "model.weights"
    (tmp_path / "weights.pt").write_bytes(b"damaged")
    for weights in (tmp_path / "weights.pt", "imagenet", "none"):
        assert as_user_error(error, cfg(weights)) is error


def test_what_has_no_deterministic_form_is_refused_with_a_remedy() -> None:
    error = RuntimeError(
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'."
    )
    told = as_user_error(error, RunConfig())
    assert isinstance(told, ConfigError)
    assert not isinstance(told, MachineError)
    assert "adaptive_avg_pool2d_backward_cuda has no deterministic form" in str(told)
    assert "trainer.deterministic=false" in str(told)
    error = RuntimeError(
        "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or ... set an "
        "environment variable before running your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8"
    )
    assert "CUDA was used before" in str(as_user_error(error, RunConfig()))


def test_every_machine_failure_is_the_users_to_mend() -> None:
    for kind in (MachineError, NoDeviceError, NoRoomError, UnreachableError, WriteError):
        assert issubclass(kind, UserError)
        assert kind.exit_code == 2
