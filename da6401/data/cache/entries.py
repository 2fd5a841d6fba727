"""The entries of the cache's folder: where it is, locks, listing and removing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from da6401.errors import DataError

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "DA6401_CACHE_DIR"
META = "meta.json"
LOCKS = "locks"
INDEX = "index"  # what is known of files elsewhere (digests.py): small, and no entry
BUILDING = ".building-"  # how the name of an unfinished entry's folder begins


def cache_folder() -> Path:
    """Where everything lies: DA6401_CACHE_DIR, or else the system's place for caches."""
    given = os.environ.get(FOLDER_VARIABLE, "")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("da6401"))


@dataclass(frozen=True)
class Listed:
    """An entry as `da6401 data cache` shows it."""

    kind: str
    key: str
    label: str
    size_bytes: int
    last_used: float  # seconds since the epoch
    folder: Path


def list_entries() -> list[Listed]:
    """All finished entries of all kinds, the longest unused first."""
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
        except FileNotFoundError:  # removed by another process meanwhile
            continue
        found.append(Listed(folder.parent.name, folder.name, label, size, used, folder))
    return sorted(found, key=lambda entry: entry.last_used)


def remove_entry(entry: Listed) -> bool:
    """Whether the entry could be removed: not while it is used or built."""
    try:
        with locked(cache_folder(), entry.kind, entry.key, wait=False):
            if entry.folder.is_dir():
                if in_use(entry):
                    return False
                remove_folder(entry.folder)
    except Timeout:
        return False
    return True


def clear(prefix: str) -> tuple[list[Listed], list[Listed]]:
    """Removes the entry whose key begins with ``prefix``, or everything ("all"); what is removed, and what is in use.

    Raises:
        DataError: no key begins so, or several do.
    """
    entries = list_entries()
    if prefix == "all":
        chosen = entries
        remove_left_overs()
        shutil.rmtree(cache_folder() / INDEX, ignore_errors=True)
    else:
        chosen = [entry for entry in entries if prefix and entry.key.startswith(prefix)]
        if len(chosen) != 1:
            found = f"{len(chosen)} entries have keys that begin" if chosen else "no entry has a key that begins"
            raise DataError(f"{found} with {prefix!r}: `da6401 data cache` lists them; --clear all removes all.")
    removed = [entry for entry in chosen if remove_entry(entry)]
    return removed, [entry for entry in chosen if entry not in removed]


def remove_left_overs() -> None:
    """What killed builds and removals have left; what is being built now is locked, and stays."""
    for folder in cache_folder().glob(f"*/{BUILDING}*"):
        with (
            contextlib.suppress(Timeout),
            locked(cache_folder(), folder.parent.name, folder.name.removeprefix(BUILDING), wait=False),
        ):
            shutil.rmtree(folder, ignore_errors=True)


def in_use(entry: Listed) -> bool:
    """Whether some process holds the entry."""
    try:
        lock = os.open(entry.folder / META, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)


def gigabytes(count: int) -> str:
    """A number of bytes for people: "1.5 GB", "42 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class locked:  # noqa: N801 - reads as a verb in a with statement
    """The key's lock; a process that has to wait for another says so."""

    def __init__(self, root: Path, kind: str, key: str, *, wait: bool = True) -> None:
        (root / LOCKS).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / LOCKS / f"{kind}-{key}.lock")
        self._wait = wait

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0.2 if self._wait else 0)
        except Timeout:
            if not self._wait:
                raise
            log.info("waiting for another process, which is building the same cache entry")
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks: then nothing shows that an entry is in use
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def remove_folder(folder: Path) -> None:
    """Out of sight first, so that a removal cut short leaves nothing that looks finished."""
    gone = folder.with_name(BUILDING + folder.name)
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
