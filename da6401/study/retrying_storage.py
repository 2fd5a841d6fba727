"""A storage whose calls are repeated during an outage, and which errors are one."""

from __future__ import annotations

import logging
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import exc as sqlalchemy_errors

from da6401.errors import UserError
from da6401.redact import duration, redacted
from da6401.study.optuna_internals import with_cache

log = logging.getLogger(__name__)

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 3.2  # seconds between two attempts; each pause is twice as long as the last
SILENT_SECONDS = 1.0  # of an outage, before it is logged
SHORT_WAIT_SECONDS = 2.0
LOCKED = re.compile(r"\bis locked", re.IGNORECASE)  # sqlite's message where another process writes to the file
WRITE_FAILED = re.compile(r"is full|readonly|disk I/O|unable to open", re.IGNORECASE)  # sqlite's messages of a disk


def causes_of(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on to the first."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def reason_of(error: BaseException) -> str:
    """The first line of an error's first cause, without passwords: Optuna says of a commit only that it failed."""
    first = causes_of(error)[-1]
    return redacted((str(first) or type(first).__name__).partition("\n")[0])


def _sqlite_error(error: BaseException) -> sqlite3.Error | None:
    """The error that sqlite itself raised, where there is one."""
    drivers = (getattr(each, "orig", None) for each in causes_of(error))
    return next((each for each in drivers if isinstance(each, sqlite3.Error)), None)


def is_locked(error: BaseException) -> bool:
    """Whether another process holds the lock of an sqlite file."""
    return LOCKED.search(str(_sqlite_error(error))) is not None


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the storage cannot be reached or is locked, not that the call was wrong."""
    if _sqlite_error(error) is not None:
        return is_locked(error)
    unreachable = (
        sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError, sqlalchemy_errors.TimeoutError,
        sqlalchemy_errors.PendingRollbackError,  # of a connection that broke in the call before
    )  # fmt: skip
    if any(
        isinstance(each, unreachable) or getattr(each, "connection_invalidated", False) for each in causes_of(error)
    ):
        return True
    code = getattr(error, "code", None)  # of a grpc.RpcError, whose module need not be installed
    return callable(code) and getattr(code(), "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def retry(call: Callable[[], T], *, seconds: float, is_temporary: Callable[[Exception], bool]) -> T:
    """Call until it returns; the last error is raised after so many seconds, and any error that is not temporary."""
    began, pause, logged = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            answer = call()
        except Exception as error:  # databases' own errors have no common base
            waited = time.monotonic() - began
            if not is_temporary(error) or waited > seconds:
                raise
            if waited > SILENT_SECONDS and not logged:  # not by the number of attempts: one can hang for seconds
                state = "is locked by another process" if is_locked(error) else "does not answer"
                log.warning("the study's storage %s (%s); waiting up to %s", state, reason_of(error), duration(seconds))
                logged = True
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if logged:
                log.warning("the study's storage answers again, after %s", duration(time.monotonic() - began))
            return answer


class _Retrying(BaseStorage):
    """RetryingStorage without its calls.

    Args:
        seconds: how long a call is repeated during an outage.
    """

    def __init__(self, inner: BaseStorage, seconds: float) -> None:
        self.database = inner if isinstance(inner, RDBStorage) else None
        self.inner = with_cache(inner)
        self.seconds = seconds
        self.outages = 0

    def retry(self, call: Callable[..., T], *values: Any, **named: Any) -> T:
        """Make a call of the inner storage, again and again during an outage.

        A call whose answer was lost is made twice. What is written is then written again; of a trial that was created
        twice one waits until a worker takes it; a trial that was finished twice raises UpdateFinishedTrialError.

        Raises:
            UserError: the outage lasts too long, or sqlite cannot write.
        """
        began = time.monotonic()
        try:
            return retry(lambda: call(*values, **named), seconds=self.seconds, is_temporary=self._is_outage)
        except Exception as error:
            if is_outage(error):
                locked = "locked by another process: " if is_locked(error) else ""
                raise UserError(
                    f"hydra.sweeper.storage: no answer for {duration(time.monotonic() - began)} "
                    f"({locked}{reason_of(error)}). Nothing is lost: the same command goes on when it is back. "
                    "sweep.storage_minutes says how long to wait."
                ) from error
            driver = _sqlite_error(error)
            if driver is not None and WRITE_FAILED.search(str(driver)):
                raise UserError(
                    f"hydra.sweeper.storage: the study cannot be written ({driver}). Nothing of it is lost: "
                    "the same command goes on when the disk takes it again."
                ) from error
            raise

    def _is_outage(self, error: Exception) -> bool:
        found = is_outage(error)
        self.outages += found
        return found


def _retried(name: str) -> Callable[..., Any]:
    def method(self: _Retrying, *values: Any, **named: Any) -> Any:
        return self.retry(getattr(self.inner, name), *values, **named)

    return method


_CALLS = [name for name, value in vars(BaseStorage).items() if callable(value) and not name.startswith("_")]
RetryingStorage = cast(
    type[_Retrying], type("RetryingStorage", (_Retrying,), {name: _retried(name) for name in _CALLS})
)


def outages(storage: BaseStorage) -> int:
    """How many calls of this process failed by an outage: no heartbeats are seen during one."""
    return storage.outages if isinstance(storage, _Retrying) else 0


@contextmanager
def short_wait(storage: BaseStorage) -> Iterator[None]:
    """Within the block an outage is waited for during SHORT_WAIT_SECONDS only."""
    if not isinstance(storage, _Retrying):
        yield
        return
    before, storage.seconds = storage.seconds, SHORT_WAIT_SECONDS
    try:
        yield
    finally:
        storage.seconds = before
