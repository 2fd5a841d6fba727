"""The journal of a study: a file of one record a line, which a full disk does not damage."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Generator
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from da6401.errors import UserError

BLOCK = 4096  # bytes that are read at once to find the end of the last record


class JournalFile(JournalFileBackend):
    """Optuna's file of records, which stays whole when the disk is full or a process is killed while it writes.

    Optuna itself would add the next record to what there is of a cut one, and neither could be read again. A record
    without its line end has been read by nobody: it is removed before the next one is written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._own_lock = JournalFileSymlinkLock(path)
        super().__init__(path, lock_obj=self._own_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, as Optuna does.

        Raises:
            OSError: they could not be written.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._own_lock.acquire()
        try:
            with open(self._path, "a+b", buffering=0) as file:  # no buffer, which would write the rest when it closes
                _remove_cut_record(file)
                try:
                    while text:
                        text = text[file.write(text) :]
                    os.fsync(file.fileno())
                except OSError:
                    _remove_cut_record(file)
                    raise
        finally:
            self._own_lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records from this number on.

        Raises:
            UserError: a line that others follow is no record.
        """
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                number += 1
                yield log
        except ValueError as error:
            raise UserError(
                f"hydra.sweeper.storage: line {number + 1} of {self._path} is damaged ({error}). The lines before it "
                f"are the study as it was then: write them to another file (head -n {number} FILE > OTHER) and give "
                "that one as the storage"
            ) from error


def _remove_cut_record(file: io.FileIO) -> None:
    """Remove what follows the last line end of the file."""
    size = whole = file.seek(0, os.SEEK_END)
    while whole:
        start = max(0, whole - BLOCK)
        file.seek(start)
        end = file.read(whole - start).rfind(b"\n") + 1
        whole = start + end
        if end:
            break
    if whole < size:
        file.truncate(whole)
