"""Where a study is kept: opened by its address, and waited for when it is away for a while.

Addresses: sqlite:///file (one machine), postgresql://user@host/name and other databases of SQLAlchemy,
grpc://host:port (a proxy before a database, ``python -m da6401.sweep.proxy``), journal:///file (a file that machines
share on a disk).
"""

from __future__ import annotations

import logging
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy import URL, StaticPool, make_url
from sqlalchemy import exc as sqlalchemy_errors

from da6401.errors import UserError
from da6401.redact import duration, is_utf8, redacted, remember_secrets
from da6401.study.optuna_internals import with_cache

log = logging.getLogger(__name__)

T = TypeVar("T")
LONGEST_PAUSE = 3.2  # seconds between two attempts, which begin at 0.05 and double
SILENT_SECONDS = 1.0  # of an outage, before a word is said of it
HURRIED_SECONDS = 2.0
OPENING_SECONDS = 30.0  # how long a storage that is away is waited for before anything has begun
AWAY = re.compile(
    r"connection refused|time-?out|timed out|starting up|shutting down|recovery mode|not (yet )?accepting|too many"
    r"|closed the connection|connection .*(closed|lost|reset)|terminating connection|broken pipe",
    re.IGNORECASE,
)
LOCKED = re.compile(r"\bis locked", re.IGNORECASE)  # sqlite's word for a file in which another process writes
REFUSED = re.compile(r"is full|readonly|disk I/O|unable to open", re.IGNORECASE)  # what a disk lets sqlite say
NO_TABLES = sqlalchemy_errors.ProgrammingError
MADE_BY_ANOTHER = (sqlalchemy_errors.IntegrityError, sqlalchemy_errors.ProgrammingError)
# A process opens at most three connections (its trial, its heartbeat, one to spare), looks whether one still lives
# before it uses it, and hears of a server that vanished without a word within half a minute.
ENGINE: dict[str, dict[str, Any]] = {
    "postgresql": {
        "pool_size": 1, "max_overflow": 2, "pool_pre_ping": True,
        "connect_args": {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
                         "tcp_user_timeout": 25_000},
    },
    "mysql": {"pool_size": 1, "max_overflow": 2, "pool_pre_ping": True},
}  # fmt: skip


def sqlite_address(file: Path) -> str:
    """The address of an sqlite file, whatever its path: in a URL ``?`` and ``%`` would mean other things.

    Raises:
        UserError: the path is not UTF-8, which no address can hold.
    """
    path = str(file.absolute())
    if not is_utf8(path):
        raise UserError(f"{path}: a study needs a folder whose path is UTF-8; choose another")
    url = URL.create("sqlite", database=path).render_as_string(hide_password=False)
    return url.replace("{", "{{").replace("}", "}}")  # Optuna fills addresses in, as templates


def is_shared(address: str) -> bool:
    """Whether workers on several machines can use the study: every storage but an sqlite file."""
    return not address.startswith("sqlite")


def is_in_memory(address: str) -> bool:
    """Whether the study is in this process's memory: no other process can open it, and it ends with this one."""
    scheme, _, database = address.partition("://")
    return scheme.startswith("sqlite") and (
        database in ("", "/") or ":memory:" in database or "mode=memory" in database
    )


def open_storage(address: str, *, minutes: float) -> BaseStorage:
    """The storage at an address, waited for when it goes away; one that machines share is opened once a process.

    Args:
        minutes: how long a call waits for a storage that does not answer.

    Raises:
        UserError: the storage cannot be opened now.
    """
    remember_secrets([address])
    if not is_shared(address) and not is_in_memory(address):
        return PatientStorage(_opened(address), 60 * minutes)  # opened anew: the file may be another by now
    if (address, minutes) not in _kept_open:
        _kept_open[address, minutes] = PatientStorage(_opened(address), 60 * minutes)
    return _kept_open[address, minutes]


def close_storages() -> None:
    """Close what open_storage keeps open for this process."""
    while _kept_open:
        storage = _kept_open.popitem()[1]
        _close(storage.database or storage.inner)


def _opened(address: str) -> BaseStorage:
    began, told = time.monotonic(), False
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # gRPC, since Optuna 4.2
                return _open(address)
        except Exception as error:  # databases' own errors have no common base, and each means the same here
            *_, first = causes = _causes(error)  # Optuna says of a commit only that it failed
            reason = (str(first) or type(first).__name__).partition("\n")[0]
            # Many workers that start together on a new database make its tables together, and one is first.
            locked = _is_locked(error)
            away = locked or AWAY.search(reason) is not None
            passing = away or (is_shared(address) and any(isinstance(each, MADE_BY_ANOTHER) for each in causes))
            if not passing or time.monotonic() - began > OPENING_SECONDS:
                what = "it is locked by another process; let that one end, or end it" if locked else "check the address"
                raise UserError(f"hydra.sweeper.storage: the study cannot be opened ({reason}); {what}") from error
            if away and not told:
                what = "is locked by another process" if locked else "does not answer"
                log.warning("the study's storage %s (%s); trying for %s", what, redacted(reason),
                            duration(OPENING_SECONDS))  # fmt: skip
                told = True
            time.sleep(random.uniform(0.2, 1.0))


@contextmanager
def reading(address: str) -> Iterator[BaseStorage]:
    """A storage to read a study from: nothing is made in it, nothing waited for, and it is closed afterwards.

    Raises:
        Whatever the kind of storage raises where it cannot be opened.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if address.startswith("journal") and not Path(address.partition("://")[2]).exists():
            raise FileNotFoundError("no such file")
        storage = _open(address, skip_table_creation=True)
    try:
        yield storage
    finally:
        _close(storage)


def copied(address: str, names: Sequence[str]) -> BaseStorage:
    """Copies of an address's studies in memory, of those that are there: what is done to them leaves nothing behind.

    Raises:
        UserError: the storage cannot be opened.
    """
    copies = optuna.storages.InMemoryStorage()
    if not is_shared(address) and not is_in_memory(address) and not Path(make_url(address).database or "").is_file():
        return copies
    try:
        with reading(address) as storage:
            for study in storage.get_all_studies():
                if study.study_name in names:
                    copy = copies.create_new_study(study.directions, study.study_name)
                    for name, value in study.user_attrs.items():
                        copies.set_study_user_attr(copy, name, value)
                    for trial in storage.get_all_trials(storage.get_study_id_from_name(study.study_name)):
                        copies.create_new_trial(copy, trial)
    except Exception as error:  # as in _opened
        if any(isinstance(each, NO_TABLES) for each in _causes(error)) or isinstance(error, FileNotFoundError):
            return copies  # a database that no study has been in
        reason = redacted(str(_causes(error)[-1]).partition("\n")[0])
        raise UserError(f"hydra.sweeper.storage: the study cannot be opened ({reason}); check the address") from error
    return copies


def _close(storage: BaseStorage) -> None:
    storage.remove_session()
    if isinstance(storage, optuna.storages.GrpcStorageProxy):
        storage.close()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def _open(address: str, *, skip_table_creation: bool = False) -> BaseStorage:
    scheme, _, path = address.partition("://")
    if scheme == "journal":
        return JournalStorage(JournalFileBackend(path))
    if is_shared(address) and path.partition("?")[0].count("@") > 1:  # what follows the first is no host, nor for show
        raise ValueError("its user, password or name has an @: write it as %40 there, and a % as %25")
    if scheme == "grpc":
        place = urlsplit(address)
        proxy = optuna.storages.GrpcStorageProxy(host=place.hostname or "localhost", port=place.port or 13000)
        proxy.wait_server_ready(timeout=3)
        return proxy
    engine = {**ENGINE.get(scheme.partition("+")[0], {})}
    if is_in_memory(address):  # one connection for all threads: each would have a database of its own
        engine = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    return RDBStorage(address, engine_kwargs=engine, skip_table_creation=skip_table_creation)


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on to the first."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def _sqlite_error(error: BaseException) -> sqlite3.Error | None:
    """What sqlite itself said, where an error comes from there."""
    drivers = (getattr(each, "orig", None) for each in _causes(error))
    return next((each for each in drivers if isinstance(each, sqlite3.Error)), None)


def _is_locked(error: BaseException) -> bool:
    """Whether another process holds the lock of an sqlite file; it is waited for like a server that is away."""
    return LOCKED.search(str(_sqlite_error(error))) is not None


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the storage is away, not that the call was wrong."""
    if _sqlite_error(error) is not None:
        return _is_locked(error)
    away = (
        sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError, sqlalchemy_errors.TimeoutError,
        sqlalchemy_errors.PendingRollbackError,  # of a connection that broke in the call before
    )  # fmt: skip
    if any(isinstance(each, away) or getattr(each, "connection_invalidated", False) for each in _causes(error)):
        return True
    code = getattr(error, "code", None)  # of a grpc.RpcError, whose module need not be installed
    return callable(code) and getattr(code(), "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class _PatientStorage(BaseStorage):
    """A storage whose calls are made again until it answers; PatientStorage has the calls."""

    def __init__(self, inner: BaseStorage, seconds: float) -> None:
        self.database = inner if isinstance(inner, RDBStorage) else None
        self.inner = with_cache(inner)
        self.seconds = seconds
        self.outages = 0

    def patiently(self, call: Callable[..., T], *values: Any, **named: Any) -> T:
        """Make a call of the inner storage, again and again while it is away.

        A call whose answer was lost is made twice. What is written is then written again; a trial that was made twice
        waits for whoever takes it; one that was told twice says UpdateFinishedTrialError.
        """
        began, pause, told = time.monotonic(), 0.05, False
        while True:
            try:
                answer = call(*values, **named)
            except Exception as error:
                if not is_outage(error):
                    driver = _sqlite_error(error)
                    if driver is not None and REFUSED.search(str(driver)):
                        raise UserError(
                            f"hydra.sweeper.storage: the study cannot be written ({driver}). Nothing of it is lost: "
                            "the same command goes on when the disk takes it again."
                        ) from error
                    raise
                waited = time.monotonic() - began
                if waited > self.seconds:
                    locked = "locked by another process: " if _is_locked(error) else ""
                    reason = locked + redacted(str(error.__cause__ or error).partition("\n")[0])
                    raise UserError(
                        f"hydra.sweeper.storage: no answer for {duration(waited)} ({reason}). Nothing is lost: the "
                        "same command goes on when it is back. sweep.storage_minutes says how long to wait."
                    ) from error
                if waited > SILENT_SECONDS and not told:  # not by the number of attempts: one can hang for seconds
                    log.warning("the study's storage does not answer; waiting up to %s", duration(self.seconds))
                    told = True
                self.outages += 1
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if told:
                    log.warning("the study's storage answers again, after %s", duration(time.monotonic() - began))
                return answer


def _forward(name: str) -> Callable[..., Any]:
    def method(self: _PatientStorage, *values: Any, **named: Any) -> Any:
        return self.patiently(getattr(self.inner, name), *values, **named)

    return method


_kept_open: dict[tuple[str, float], _PatientStorage] = {}
_CALLS = [name for name, value in vars(BaseStorage).items() if callable(value) and not name.startswith("_")]
PatientStorage = cast(
    type[_PatientStorage], type("PatientStorage", (_PatientStorage,), {name: _forward(name) for name in _CALLS})
)


def outages(storage: BaseStorage) -> int:
    """How many calls of this process found the storage away: whoever counts another's silence starts anew."""
    return storage.outages if isinstance(storage, _PatientStorage) else 0


@contextmanager
def hurried(storage: BaseStorage) -> Iterator[None]:
    """Within the block a storage that is away is waited for a moment only."""
    if not isinstance(storage, _PatientStorage):
        yield
        return
    before, storage.seconds = storage.seconds, HURRIED_SECONDS
    try:
        yield
    finally:
        storage.seconds = before
