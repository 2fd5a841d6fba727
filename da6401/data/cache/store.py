"""Cache entries under a key of their content: decoded images, features of frozen stages.

Each is built once, under a lock, in a temporary folder that is synced and then renamed; checked when it is opened; and
locked (shared) while a process uses it. The least recently used are removed when the limit or the disk asks for it.

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

from da6401.data.cache.cache_folder import (
    BUILDING,
    FOLDER_VARIABLE,
    META,
    cache_folder,
    entry_lock,
    gigabytes,
    list_entries,
    remove_entry,
    remove_folder,
    remove_unfinished,
    try_lock,
)
from da6401.errors import DataError, NoRoomError
from da6401.machine.descriptors import close_with
from da6401.runs.atomic_files import WriteError, sync_folder, write_json

log = logging.getLogger(__name__)

CHECK_BLOCK = 2**16  # bytes
CHECK_BLOCKS = 512  # of each file: up to 32 MiB is read as a whole, evenly spread blocks of what is larger


class CacheEntry:
    """An open entry: its folder, and ``about``, the values that its builder returned.

    No process removes it while this object exists, which holds ``lock``, a descriptor.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], lock: int) -> None:
        self.folder = folder
        self.about = about
        close_with(self, lock)


class Store:
    """The entries of one kind. The limit is that of all kinds together."""

    def __init__(self, kind: str, *, limit_bytes: int, off: str) -> None:
        """``off`` is the override that switches this kind off, for messages."""
        self.kind = kind
        self.off = off
        self.root = cache_folder()
        self.limit_bytes = limit_bytes

    def open_or_build(
        self, key: str, build: Callable[[Path], Mapping[str, Any]], *, needed_bytes: int, label: str
    ) -> CacheEntry:
        """The entry of ``key``, built first where it is missing or damaged; several processes build it once.

        Args:
            build: fills the folder that it is given, and returns plain values, the entry's ``about``.
            needed_bytes: the entry's size on the disk.
            label: what it is, for people.

        Raises:
            DataError: the disk or the limit is too small (checked before building), or the folder is not writable.
        """
        folder = self.root / self.kind / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with entry_lock(self.kind, key):
                entry = self._open(folder)
                if entry is None:
                    self._build(folder, build, needed_bytes, label)
                    entry = self._open(folder)
                    assert entry is not None, f"{folder} does not pass the check right after it was built"
        except (OSError, WriteError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__  # the rest of a WriteError is about runs
            raise DataError(
                f"The cache {self.root} cannot be used: {getattr(cause, 'strerror', None) or cause}. Name another "
                f"folder in {FOLDER_VARIABLE}, or switch the cache off ({self.off})."
            ) from error
        return entry

    def _open(self, folder: Path) -> CacheEntry | None:
        """The finished entry, or None. A damaged one is removed, with a warning."""
        if not folder.is_dir():
            return None
        try:
            meta = json.loads((folder / META).read_text(encoding="utf-8"))
            damaged = [name for name, check in meta["files"].items() if _size_and_crc(folder / name) != check]
            about, problem = meta["about"], f"{', '.join(damaged)} is not as it was written" if damaged else ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            about, problem = {}, str(error)
        if problem:
            log.warning("The cache entry %s is damaged and is built again: %s", folder, problem)
            remove_folder(folder)
            return None
        lock = os.open(folder / META, os.O_RDONLY)
        try_lock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(PermissionError):  # another user's entry
            os.utime(folder / META)  # the time of last use
        return CacheEntry(folder, about, lock)

    def _build(self, folder: Path, build: Callable[[Path], Mapping[str, Any]], needed_bytes: int, label: str) -> None:
        temporary = folder.with_name(BUILDING + folder.name)  # the key's lock is held: no other process uses the name
        shutil.rmtree(temporary, ignore_errors=True)
        remove_unfinished()
        self._make_room(needed_bytes, label)
        temporary.mkdir()
        try:
            about = dict(build(temporary))
            files = [path for path in temporary.iterdir() if path.is_file()]
            for path in files:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            checks = {path.name: _size_and_crc(path) for path in files}
            write_json(temporary / META, {"label": label, "about": about, "files": checks})
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _make_room(self, needed: int, label: str) -> None:
        """Remove the least recently used entries until the new one fits into the limit and onto the disk."""
        if needed > self.limit_bytes:
            raise DataError(
                f"{label} would take {gigabytes(needed)} in the cache, more than data.cache_limit_gb="
                f"{self.limit_bytes / 1e9:g}: raise it, or use {self.off}."
            )
        entries = list_entries()
        total = sum(entry.size_bytes for entry in entries)
        for entry in entries:
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


def _size_and_crc(path: Path) -> list[int]:
    """Size and CRC-32 of a file; of a large file a sample of blocks is read."""
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
