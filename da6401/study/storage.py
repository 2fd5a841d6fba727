"""Where a study is stored: opened by its address.

Addresses: sqlite:///file (one machine), postgresql://user@host/name and other databases of SQLAlchemy,
grpc://host:port (a proxy before a database, ``python -m da6401.sweep.proxy``), journal:///file (a file that machines
share on a disk).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalStorage
from sqlalchemy import URL, StaticPool, make_url
from sqlalchemy import exc as sqlalchemy_errors

from da6401.errors import UserError
from da6401.redact import is_utf8, remember_secrets
from da6401.study.journal import JournalFile
from da6401.study.retrying_storage import RetryingStorage, causes_of, is_locked, reason_of, retry

OPENING_SECONDS = 30.0  # how long a storage that does not answer is waited for when it is opened
PROXY_SECONDS = 3.0  # how long a proxy may take to answer the first call
TEMPORARY = re.compile(
    r"connection refused|time-?out|timed out|starting up|shutting down|recovery mode|not (yet )?accepting|too many"
    r"|closed the connection|connection .*(closed|lost|reset)|terminating connection|broken pipe",
    re.IGNORECASE,
)
NO_TABLES = sqlalchemy_errors.ProgrammingError
# Many workers that start together on a new database create its tables together, and one is first.
CREATED_BY_ANOTHER = (sqlalchemy_errors.IntegrityError, sqlalchemy_errors.ProgrammingError)
EXISTS = re.compile(r"table \S+ already exists")  # sqlite's message, of an error that has many other meanings
# A process opens at most three connections (its trial, its heartbeat, one to spare), checks that a connection is alive
# before it uses it, and notices a server that vanished within half a minute.
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
    return url.replace("{", "{{").replace("}", "}}")  # Optuna calls format() on an address


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
    """The storage at an address; its calls are repeated during an outage. One that machines share is opened once a
    process.

    Args:
        minutes: how long a call is repeated.

    Raises:
        UserError: the storage cannot be opened now.
    """
    remember_secrets([address])
    if not is_shared(address) and not is_in_memory(address):
        return RetryingStorage(_open_or_wait(address), 60 * minutes)  # opened anew: the file may be another by now
    if (address, minutes) not in _opened:
        _opened[address, minutes] = RetryingStorage(_open_or_wait(address), 60 * minutes)
    storage: BaseStorage = _opened[address, minutes]
    return storage


_opened: dict[tuple[str, float], Any] = {}  # RetryingStorages


def close_storages() -> None:
    """Close what open_storage keeps open for this process."""
    while _opened:
        storage = _opened.popitem()[1]
        _close(storage.database or storage.inner)


@contextmanager
def read_only(address: str) -> Iterator[BaseStorage]:
    """A storage to read a study from: nothing is created in it, nothing is repeated, and it is closed afterwards.

    Raises:
        Whatever the kind of storage raises where it cannot be opened.
    """
    storage = _open(address, create=False)
    try:
        yield storage
    finally:
        _close(storage)


def copy_to_memory(address: str, names: Sequence[str]) -> BaseStorage:
    """Copies in memory of those of an address's studies that exist: a change of them changes nothing at the address.

    Raises:
        UserError: the storage cannot be opened.
    """
    copies = optuna.storages.InMemoryStorage()
    try:
        with read_only(address) as storage:
            for study in storage.get_all_studies():
                if study.study_name in names:
                    copy = copies.create_new_study(study.directions, study.study_name)
                    for name, value in study.user_attrs.items():
                        copies.set_study_user_attr(copy, name, value)
                    for trial in storage.get_all_trials(storage.get_study_id_from_name(study.study_name)):
                        copies.create_new_trial(copy, trial)
    except Exception as error:  # databases' own errors have no common base, and each means the same here
        if not any(isinstance(each, (NO_TABLES, FileNotFoundError)) for each in causes_of(error)):
            raise _not_opened(error) from error
    return copies  # of a database that has never had a study none


def _open_or_wait(address: str) -> BaseStorage:
    def is_temporary(error: Exception) -> bool:
        if isinstance(error, UserError):
            return False
        created = any(isinstance(each, CREATED_BY_ANOTHER) or EXISTS.search(str(each)) for each in causes_of(error))
        return created or is_locked(error) or TEMPORARY.search(reason_of(error)) is not None

    try:
        return retry(lambda: _open(address), seconds=OPENING_SECONDS, is_temporary=is_temporary)
    except Exception as error:  # as in copy_to_memory
        raise _not_opened(error) from error


def _not_opened(error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    locked = is_locked(error)
    what = "it is locked by another process; let that one end, or end it" if locked else "check the address"
    return UserError(f"hydra.sweeper.storage: the study cannot be opened ({reason_of(error)}); {what}")


def _close(storage: BaseStorage) -> None:
    storage.remove_session()
    if isinstance(storage, optuna.storages.GrpcStorageProxy):
        storage.close()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def _open(address: str, *, create: bool = True) -> BaseStorage:
    if not create and _is_missing(address):
        raise FileNotFoundError("no such file")
    scheme, _, path = address.partition("://")
    if is_shared(address) and path.partition("?")[0].count("@") > 1 and scheme != "journal":
        # What follows the first @ is no host, and may be a part of the password.
        raise ValueError("its user, password or name has an @: write it as %40 there, and a % as %25")
    engine = {**ENGINE.get(scheme.partition("+")[0], {})}
    if is_in_memory(address):  # one connection for all threads: each would have a database of its own
        engine = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # gRPC, since Optuna 4.2
        if scheme == "journal":
            return JournalStorage(JournalFile(path))
        if scheme == "grpc":
            place = urlsplit(address)
            proxy = optuna.storages.GrpcStorageProxy(host=place.hostname or "localhost", port=place.port or 13000)
            proxy.wait_server_ready(timeout=PROXY_SECONDS)
            return proxy
        return RDBStorage(address, engine_kwargs=engine, skip_table_creation=not create)


def _is_missing(address: str) -> bool:
    """Whether the address is that of a file which does not exist."""
    if address.startswith("journal"):
        file = address.partition("://")[2]
    elif is_shared(address) or is_in_memory(address):
        return False
    else:
        file = (make_url(address).database or "").replace("{{", "{").replace("}}", "}")
    return not file.startswith("file:") and not Path(file).is_file()
