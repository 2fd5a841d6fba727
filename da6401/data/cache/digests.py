"""sha256 of files, remembered: a file whose size, times and inode are the same is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from da6401.data.cache.entries import INDEX, cache_folder
from da6401.data.decode_pool import in_threads
from da6401.data.images import BadImageError, read_file
from da6401.data.tree import BadFile, Entry
from da6401.runs.atomic_files import WriteError, write_text

SECOND = 10**9  # in ns
FINE_GRAIN = SECOND // 10  # a file changed this shortly before may change again under the same time stamp
COARSE_GRAIN = 2 * SECOND  # the same on file systems that store whole seconds

Known = dict[str, list[int | str]]  # name -> size, modification time, status-change time, inode, sha256


def digest_files(root: Path, entries: Sequence[Entry]) -> list[str | BadFile]:
    """The sha256 of each file's content in hex, or why it cannot be read."""
    place = cache_folder() / INDEX / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
    known = _load(place)
    now = time.time_ns()
    states = [_state(entry.path) for entry in entries]
    outcomes: list[str | BadFile | None] = [None] * len(entries)
    for row, (entry, state) in enumerate(zip(entries, states, strict=True)):
        remembered = known.get(entry.name)
        if state is not None and remembered is not None and remembered[:-1] == state:
            outcomes[row] = str(remembered[-1])
    unknown = [row for row, outcome in enumerate(outcomes) if outcome is None]
    found = in_threads(lambda row: _digest(entries[row]), unknown, label="looking for changed files")
    fresh = False
    for row, outcome in zip(unknown, found, strict=True):
        outcomes[row] = outcome
        state = states[row]
        if isinstance(outcome, str) and state is not None and not _may_change_unseen(state, now):
            known[entries[row].name] = [*state, outcome]
            fresh = True
    if fresh:
        with contextlib.suppress(
            WriteError
        ):  # without it the files are read again; a cache that is unusable says so itself
            write_text(place, json.dumps(known))  # ASCII: names need not be UTF-8
    return [outcome for outcome in outcomes if outcome is not None]


def _digest(entry: Entry) -> str | BadFile:
    try:
        return hashlib.sha256(read_file(entry.path)).hexdigest()
    except BadImageError as problem:
        return BadFile(entry.name, problem.reason)


def _state(path: Path) -> list[int | str] | None:
    """What changes with the content. The status-change time cannot be set back, as the modification time can."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _may_change_unseen(state: Sequence[int | str], now: int) -> bool:
    changed = max(int(state[1]), int(state[2]))
    return changed > now - (FINE_GRAIN if changed % SECOND else COARSE_GRAIN)


def _load(place: Path) -> Known:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: then every file is read
        return {}
    return {name: value for name, value in content.items() if len(value) == 5} if isinstance(content, dict) else {}
