"""A folder of things that are costly to make: kept under a key of their content, made once, whole or not at all.

One discipline for every kind of entry. It is built under a lock in a temporary sibling, synced, and renamed; checked
when it is opened; held by a shared lock while it is used; and the longest unused go when the room is needed.

    <cache folder>/<kind>/<key>/  the entry's files and meta.json      <cache folder>/locks/  one file a key
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from da6401.data.cache.entries import (
    BUILDING,
    FOLDER_VARIABLE,
    META,
    cache_folder,
    flock,
    gigabytes,
    list_entries,
    locked,
    remove_entry,
    remove_folder,
    remove_left_overs,
)
from da6401.errors import DataError, NoRoomError
from da6401.runs.atomic_files import WriteError, write_json

log = logging.getLogger(__name__)

CHECK_BLOCK = 2**16  # bytes
CHECK_BLOCKS = 512  # of each file: up to 32 MiB is read as a whole, evenly spread blocks of what is larger


class Held:
    """An opened entry: its folder and what its builder told of it. It is not removed while this object lives."""

    def __init__(self, folder: Path, about: Mapping[str, Any], lock: int) -> None:
        self.folder = folder
        self.about = about
        self._lock = lock

    def __del__(self) -> None:
        os.close(self._lock)


class Store:
    """The entries of one kind. The limit counts all kinds together."""

    def __init__(self, kind: str, *, limit_bytes: int, off: str) -> None:
        """``off`` is the override that does without this kind, for messages."""
        self.kind = kind
        self.off = off
        self.root = cache_folder()
        self.limit_bytes = limit_bytes

    def open_or_build(
        self, key: str, build: Callable[[Path], Mapping[str, Any]], *, needed_bytes: int, label: str
    ) -> Held:
        """The entry of ``key``, built first where it is missing or damaged. Processes that come together build once.

        Args:
            build: fills the folder that it is given, and returns plain values, which come back as ``about``.
            needed_bytes: what the entry will take on the disk.
            label: what it is, for people.

        Raises:
            DataError: the disk or the limit is too small (said before anything is built), or not writable.
        """
        folder = self.root / self.kind / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.root, self.kind, key):
                held = self._open(folder)
                if held is None:
                    self._make(folder, build, needed_bytes, label)
                    held = self._open(folder)
                    assert held is not None, f"{folder} does not pass the check right after it was built"
        except (OSError, WriteError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # the rest of a WriteError is about runs
            raise DataError(
                f"The cache {self.root} cannot be used: {getattr(cause, 'strerror', None) or cause}. Name another "
                f"folder in {FOLDER_VARIABLE}, or switch the cache off ({self.off})."
            ) from error
        return held

    def _open(self, folder: Path) -> Held | None:
        """The finished entry; None where there is none. A damaged one is removed, and that is said."""
        if not folder.is_dir():
            return None
        try:
            meta = json.loads((folder / META).read_text(encoding="utf-8"))
            damaged = [name for name, mark in meta["files"].items() if _mark(folder / name) != mark]
            about, problem = meta["about"], f"{', '.join(damaged)} is not as it was written" if damaged else ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            about, problem = {}, str(error)
        if problem:
            log.warning("The cache entry %s is damaged and is built again: %s", folder, problem)
            remove_folder(folder)
            return None
        lock = os.open(folder / META, os.O_RDONLY)
        flock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(PermissionError):  # another user's entry
            os.utime(folder / META)  # the time of last use
        return Held(folder, about, lock)

    def _make(self, folder: Path, build: Callable[[Path], Mapping[str, Any]], needed_bytes: int, label: str) -> None:
        shutil.rmtree(self._temporary(folder), ignore_errors=True)
        remove_left_overs()
        self._make_room(needed_bytes, label)
        temporary = self._temporary(folder)
        temporary.mkdir()
        try:
            about = dict(build(temporary))
            files = [path for path in temporary.iterdir() if path.is_file()]
            for path in files:
                _sync(path)
            marks = {path.name: _mark(path) for path in files}
            write_json(temporary / META, {"label": label, "about": about, "files": marks})
            temporary.rename(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @staticmethod
    def _temporary(folder: Path) -> Path:
        return folder.with_name(BUILDING + folder.name)  # one name will do: the key's lock is held

    def _make_room(self, needed: int, label: str) -> None:
        """Removes the longest unused entries where the limit or the disk asks for it."""
        if needed > self.limit_bytes:
            raise DataError(
                f"{label} would take {gigabytes(needed)} in the cache, more than data.cache_limit_gb="
                f"{self.limit_bytes / 1e9:g}: raise it, or use {self.off}."
            )
        entries = list_entries()
        total = sum(entry.size_bytes for entry in entries)
        for entry in entries:  # the longest unused first
            if total + needed <= self.limit_bytes and shutil.disk_usage(self.root).free >= needed:
                return
            if remove_entry(entry):
                log.info("removed from the cache to make room: %s (%s)", entry.label, gigabytes(entry.size_bytes))
                total -= entry.size_bytes
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise NoRoomError(
                f"{label} needs {gigabytes(needed)} in the cache, and {self.root} has {gigabytes(free)} free: make "
                f"room, name a folder on another disk in {FOLDER_VARIABLE}, or use {self.off}."
            )
        if total + needed > self.limit_bytes:
            raise DataError(
                f"{label} needs {gigabytes(needed)} in the cache, where {gigabytes(total)} are in use by others and "
                f"data.cache_limit_gb={self.limit_bytes / 1e9:g}: raise it, or use {self.off}."
            )


def _mark(path: Path) -> list[int]:
    """Size and checksum of a file, by which damage shows; of a large file a sample is read."""
    size = path.stat().st_size
    total = 0
    with path.open("rb", buffering=0) as file:
        for start in _block_starts(size):
            file.seek(start)
            total = zlib.crc32(file.read(CHECK_BLOCK), total)
    return [size, total]


def _block_starts(size: int) -> Iterator[int]:
    blocks = -(-size // CHECK_BLOCK)
    if blocks <= CHECK_BLOCKS:
        yield from range(0, size, CHECK_BLOCK)
    else:  # the first, the last, and evenly between them
        yield from (CHECK_BLOCK * (i * (blocks - 1) // (CHECK_BLOCKS - 1)) for i in range(CHECK_BLOCKS))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
