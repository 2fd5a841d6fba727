"""Files that are written whole or not at all, and what a user can do when the disk refuses one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from da6401.errors import MachineError, RunError
from da6401.redact import json_text

IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)
# What the user can do, by the operating system's reason for refusing a write; {elsewhere} is a place that would do.
REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "your quota on that disk is used up: make room",
    errno.EFBIG: "files may not grow so large here: see `ulimit -f`, or choose another file system",
    **dict.fromkeys(IN_THE_WAY, "a file is in the way: move it, or {elsewhere}"),
    errno.EISDIR: "that is a folder: {elsewhere}",
    errno.ENAMETOOLONG: "a name in it, or all of it, is too long: {elsewhere}",
    errno.EROFS: "that disk is read-only: {elsewhere}",
    errno.EACCES: "you may not write there: change the permissions or {elsewhere}",
    errno.EPERM: "you may not write there: change the permissions or {elsewhere}",
}
ELSEWHERE = "choose a place where you may write"
OTHER_RUN = "choose another folder (hydra.run.dir=...)"
OTHER_SWEEP = "choose another folder (hydra.sweep.dir=...)"


class WriteError(RunError, MachineError):
    """A file cannot be written: the old file is unchanged, and the run can resume when the cause is removed."""

    def __init__(self, message: str, path: object = "") -> None:  # a default, for pickle
        super().__init__(message)
        self.path = path


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Raise a failed write of the block as a WriteError that says what to do.

    Raises:
        WriteError: disk full, no permission, read-only, a limit on the size of files.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(write_problem(error, path), path) from error


@contextmanager
def name_elsewhere(elsewhere: str, *, resumes: bool = False) -> Iterator[None]:
    """Say in the failed writes of the block how the user names another place.

    Args:
        resumes: the same command goes on from what was written before.

    Raises:
        WriteError: as the block, with another remedy.
    """
    try:
        yield
    except WriteError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise WriteError(write_problem(cause, error.path, elsewhere, resumes=resumes), error.path) from cause


def write_problem(error: OSError, path: object, elsewhere: str = ELSEWHERE, *, resumes: bool = False) -> str:
    """A failed write in one sentence: where, why, what to do."""
    remedy = REMEDIES.get(error.errno or 0, "{elsewhere}").format(elsewhere=elsewhere)
    goes_on = ", and the same command goes on from there" if resumes and error.errno not in IN_THE_WAY else ""
    return (
        f"{path}: cannot be written ({error.strerror or error}); {remedy}. What was there before is untouched{goes_on}"
    )


def write_atomic(
    path: Path,
    write: Callable[[BinaryIO], object],
    *,
    verify: Callable[[Path], object] | None = None,
    previous: Path | None = None,
) -> None:
    """Write a file so that a reader, or a machine that lost power, finds the old content or all of the new.

    Args:
        verify: reads the new file before it replaces the old one, and raises where it is damaged.
        previous: the old content is kept under this name.

    Raises:
        WriteError: the file cannot be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if verify is not None:
                verify(temporary)
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def append_line(path: Path, line: str, *, sync: bool = True) -> None:
    """Add one line to a file of UTF-8 text, and sync it to the disk unless that can wait.

    Raises:
        WriteError: the file cannot be written.
    """
    with explain_write_errors(path):
        with open(path, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            incomplete = bool(end) and file.read(1) != b"\n"  # after a crash: the new line must not join it
            file.write(b"\n" * incomplete + line.encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if sync and not end:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a new name in it survives a power loss; does nothing where folders cannot be synced."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_text(path: Path, text: str) -> None:
    """write_atomic for UTF-8 text."""
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """write_atomic for a JSON object or list, indented; NaN and infinity are refused, for JSON has neither."""
    write_text(path, json_text(value, indent=2) + "\n")


def write_yaml(path: Path, tree: Mapping[str, Any]) -> None:
    """write_atomic for nested plain values; the order of the keys is kept."""
    write_text(path, yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True))
