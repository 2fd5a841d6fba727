"""sha256 of images, remembered: a file with the same size, times and inode is not read again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from da6401.data.cache.cache_folder import INDEX, cache_folder
from da6401.data.decode import in_threads
from da6401.data.images import BadImageError, read_content
from da6401.data.stamp import Stamp, stamp_of
from da6401.data.tree import BadFile, LabelledFile
from da6401.runs.atomic_files import WriteError, write_text

SECOND = 10**9  # in ns
FINE_GRAIN = SECOND // 10  # a file that changed this recently may change again with the same time stamp
COARSE_GRAIN = 2 * SECOND  # the same on file systems that store whole seconds

Known = dict[str, Stamp]  # _key -> the status with the sha256 behind it


def digest_files(root: Path, files: Sequence[LabelledFile]) -> list[str | BadFile]:
    """The sha256 of each file's content in hex, or why it cannot be read."""
    index = cache_folder() / INDEX / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
    known = _load(index)
    now = time.time_ns()
    stamp_once = functools.cache(stamp_of)  # many images may be in one file
    statuses = [stamp_once(file.location) for file in files]
    outcomes: dict[int, str | BadFile] = {}
    for row, (file, status) in enumerate(zip(files, statuses, strict=True)):
        remembered = known.get(_key(file))
        if status is not None and remembered is not None and remembered[:-1] == status:
            outcomes[row] = str(remembered[-1])
    unknown = [row for row in range(len(files)) if row not in outcomes]
    found = in_threads(lambda row: _digest(files[row]), unknown, label="looking for changed files")
    index_changed = False
    for row, outcome in zip(unknown, found, strict=True):
        outcomes[row] = outcome
        status = statuses[row]
        if isinstance(outcome, str) and status is not None and not _may_change_unseen(status, now):
            known[_key(files[row])] = [*status, outcome]
            index_changed = True
    if index_changed:
        with contextlib.suppress(WriteError):  # then the files are read again; opening the cache reports the problem
            write_text(index, json.dumps(known))  # ASCII: names need not be UTF-8
    return [outcomes[row] for row in range(len(files))]


def _key(file: LabelledFile) -> str:
    """One name in one file may be several images, such as those of two columns; no name holds a NUL."""
    return f"{file.origin}\0{file.name}" if file.origin else file.name


def _digest(file: LabelledFile) -> str | BadFile:
    try:
        return hashlib.sha256(read_content(file)).hexdigest()
    except BadImageError as problem:
        return BadFile(file.name, problem.reason)


def _may_change_unseen(status: Stamp, now: int) -> bool:
    changed = max(int(status[1]), int(status[2]))
    return changed > now - (FINE_GRAIN if changed % SECOND else COARSE_GRAIN)


def _load(index: Path) -> Known:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: every file is read
        return {}
    return {name: value for name, value in content.items() if len(value) == 5} if isinstance(content, dict) else {}
