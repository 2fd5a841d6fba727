"""The cache's folder: where it is, the locks on its entries, listing and removing them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from da6401.errors import DataError

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "DA6401_CACHE_DIR"
META = "meta.json"
LOCKS = "locks"
INDEX = "index"  # the remembered digests of files (digests.py): small, and no entry
BUILDING = ".building-"  # how the name of an unfinished entry's folder begins


def cache_folder() -> Path:
    """The folder of all entries: DA6401_CACHE_DIR, or else the system's folder for caches."""
    given = os.environ.get(FOLDER_VARIABLE, "")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("da6401"))


@dataclass(frozen=True)
class EntryInfo:
    """A finished entry as `da6401 data cache` lists it."""

    kind: str
    key: str
    label: str
    size_bytes: int
    last_used: float  # seconds since the epoch
    folder: Path


def list_entries() -> list[EntryInfo]:
    """The finished entries of all kinds, the least recently used first."""
    found = []
    for meta in cache_folder().glob(f"*/*/{META}"):
        folder = meta.parent
        if folder.name.startswith("."):
            continue
        try:
            label = str(json.loads(meta.read_text(encoding="utf-8"))["label"])
        except (OSError, ValueError, KeyError, TypeError):
            label = "damaged"
        try:
            size = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
            used = meta.stat().st_mtime
        except FileNotFoundError:  # another process has just removed it
            continue
        found.append(EntryInfo(folder.parent.name, folder.name, label, size, used, folder))
    return sorted(found, key=lambda entry: entry.last_used)


def remove_entry(entry: EntryInfo) -> bool:
    """Remove the entry unless it is being used or built; whether it is gone."""
    try:
        with entry_lock(entry.kind, entry.key, wait=False):
            if entry.folder.is_dir():
                if in_use(entry):
                    return False
                remove_folder(entry.folder)
    except Timeout:
        return False
    return True


def clear(prefix: str) -> tuple[list[EntryInfo], list[EntryInfo]]:
    """Remove the entry whose key begins with ``prefix``, or all entries ("all"); those removed, and those in use.

    Raises:
        DataError: no key begins so, or several do.
    """
    entries = list_entries()
    if prefix == "all":
        chosen = entries
        remove_unfinished()
        shutil.rmtree(cache_folder() / INDEX, ignore_errors=True)
    else:
        chosen = [entry for entry in entries if prefix and entry.key.startswith(prefix)]
        if len(chosen) != 1:
            found = f"{len(chosen)} entries have keys that begin" if chosen else "no entry has a key that begins"
            raise DataError(f"{found} with {prefix!r}: `da6401 data cache` lists them; --clear all removes all.")
    removed = [entry for entry in chosen if remove_entry(entry)]
    return removed, [entry for entry in chosen if entry not in removed]


def remove_unfinished() -> None:
    """Remove what killed builds and removals left. What is being built now is locked, and stays."""
    for folder in cache_folder().glob(f"*/{BUILDING}*"):
        with (
            contextlib.suppress(Timeout),
            entry_lock(folder.parent.name, folder.name.removeprefix(BUILDING), wait=False),
        ):
            shutil.rmtree(folder, ignore_errors=True)


def in_use(entry: EntryInfo) -> bool:
    """Whether some process has the entry open."""
    try:
        descriptor = os.open(entry.folder / META, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def gigabytes(count: int) -> str:
    """A number of bytes for people: "1.5 GB", "42 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextlib.contextmanager
def entry_lock(kind: str, key: str, *, wait: bool = True) -> Iterator[None]:
    """The lock under which an entry is built or removed; waiting for another process is logged.

    Raises:
        Timeout: another process has the lock, and ``wait`` is false.
    """
    locks = cache_folder() / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{kind}-{key}.lock")
    try:
        lock.acquire(timeout=0.2 if wait else 0)
    except Timeout:
        if not wait:
            raise
        log.info("waiting for another process, which is building the same cache entry")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def try_lock(descriptor: int, mode: int) -> bool:
    """flock; whether the lock was free. True too on a file system without locks: there no entry shows as in use."""
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def remove_folder(folder: Path) -> None:
    """Rename it as unfinished first: a removal that is cut short leaves nothing that looks finished."""
    gone = folder.with_name(BUILDING + folder.name)
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
