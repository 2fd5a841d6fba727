"""Where a study is kept: folders of any name, passwords, a file that another process locks, a study in memory."""

from __future__ import annotations

import re
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy import Engine
from sqlalchemy import exc as sqlalchemy_errors

from da6401.cli import main
from da6401.errors import UserError
from da6401.notebook.sweep_results import load_sweep
from da6401.report.collect import read_sweep
from da6401.study import storage as storage_module
from da6401.study.storage import ENGINE, copy_to_memory, open_storage, read_only, sqlite_address
from tests.sweep.sweeps import FOLDER, GRID, SWEEP

WORDS = (*SWEEP, "optimizer.lr=choice(0.1,0.2)", GRID)
DATABASE = FOLDER / "study.db"


@contextmanager
def locked(database: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Hold sqlite's lock of a file, as another process would; for so long, or to the end of the block."""
    holder = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds or 0, holder.rollback)
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        if seconds is not None:
            timer.join()
        holder.close()


def engine(study: optuna.Study) -> Engine:
    """What SQLAlchemy reaches the study's database by."""
    found: Engine = study._storage.inner._backend.engine  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a{b}", "a#b", "ä b"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    open_storage(sqlite_address(Path("study.db")), minutes=0)
    optuna.create_study(study_name="s", storage=open_storage(sqlite_address(Path("study.db")), minutes=0))
    with read_only(sqlite_address(Path("study.db"))) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["s"]
    copies = copy_to_memory(sqlite_address(Path("study.db")), ["s"])  # for a dry run
    assert [study.study_name for study in copies.get_all_studies()] == ["s"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in Path().iterdir()] == ["study.db"]


def test_a_sweep_in_such_a_folder_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a%20b?").mkdir()
    monkeypatch.chdir(tmp_path / "a%20b?")
    assert main([*WORDS]) == 0
    assert list(load_sweep(FOLDER).trials()["state"]) == ["complete"] * 2
    assert [trial.state for trial in read_sweep(FOLDER, None).trials] == ["complete"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["a%20b?"]


@pytest.mark.parametrize("password", ["q@zx%w", "q@z@xkw", "q@zx/kw", "q@zx:kw"])
def test_of_a_password_that_is_not_escaped_nothing_is_printed(password: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, f"hydra.sweeper.storage='postgresql://me:{password}@127.0.0.1:1/x'"]) == 2
    printed = "".join(capfd.readouterr())
    assert "write it as %40" in printed
    assert not [part for part in re.split("[@:/]", password) if len(part) > 1 and part in printed]


def test_a_locked_study_is_waited_for_in_mid_sweep(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("da6401.study.retrying_storage.SILENT_SECONDS", 0.1)
    monkeypatch.setitem(ENGINE, "sqlite", {"connect_args": {"timeout": 0.1}})  # sqlite's own is 5 s
    study = optuna.create_study(storage=open_storage(sqlite_address(Path("study.db")), minutes=1))
    with locked(Path("study.db"), seconds=0.8):
        study.tell(study.ask(), 0.5)
    assert study.best_value == 0.5
    assert "is locked by another process" in caplog.text
    assert "answers again" in caplog.text


def test_a_study_that_stays_locked_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("da6401.study.storage.OPENING_SECONDS", 0.1)
    monkeypatch.setitem(ENGINE, "sqlite", {"connect_args": {"timeout": 0.1}})  # sqlite's own is 5 s
    study = optuna.create_study(study_name="s", storage=open_storage(sqlite_address(Path("study.db")), minutes=0))
    with locked(Path("study.db")):
        assert main([*WORDS, f"hydra.sweeper.storage={sqlite_address(Path('study.db'))}"]) == 2
        message = capfd.readouterr().err
        assert "locked by another process" in message
        assert "check the address" not in message
        with pytest.raises(UserError, match="locked by another process"):
            study.ask()


def test_a_full_disk_is_a_message() -> None:
    study = optuna.create_study(storage=open_storage(sqlite_address(Path("study.db")), minutes=0))
    raw = engine(study).raw_connection()
    raw.execute("PRAGMA max_page_count=1")  # no page more than there are
    raw.close()

    def fill() -> None:
        for _ in range(10):
            study.ask().set_user_attr("much", "x" * 2000)

    with pytest.raises(UserError, match="is full"):
        fill()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes: a write that crosses the limit is cut there, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def journal_of(minutes: float) -> optuna.Study:
    """The study s of a journal; other minutes open the file anew, as another process would."""
    storage = open_storage(f"journal://{Path('j.log').absolute()}", minutes=minutes)
    return optuna.create_study(study_name="s", storage=storage, load_if_exists=True)


def test_a_full_disk_leaves_a_journal_whole() -> None:
    study, journal = journal_of(1), Path("j.log")
    study.ask()
    whole = journal.read_bytes()
    with largest_file(len(whole) + 30), pytest.raises(OSError, match="File too large"):
        study.ask()
    assert journal.read_bytes() == whole
    journal_of(2).ask()
    study.ask()
    assert [trial.number for trial in journal_of(3).trials] == [0, 1, 2]


def test_a_journal_whose_last_record_is_cut_goes_on_without_it() -> None:
    journal_of(1).ask()
    journal_of(1).ask()
    whole = Path("j.log").read_bytes()
    Path("j.log").write_bytes(whole[:-20])
    study = journal_of(2)
    assert [trial.number for trial in study.trials] == [0]
    study.ask()
    assert [trial.number for trial in journal_of(3).trials] == [0, 1]


def test_a_journal_with_a_damaged_line_is_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    journal_of(1).ask()
    lines = Path("j.log").read_bytes().splitlines(keepends=True)
    Path("j.log").write_bytes(b"".join([lines[0], lines[1][:20], *lines[1:]]))
    assert main([*WORDS, f"hydra.sweeper.storage=journal://{Path('j.log').absolute()}"]) == 2
    message = capfd.readouterr().err
    assert "line 2 of" in message
    assert "j.log is damaged" in message
    assert "head -n 1" in message
    assert "check the address" not in message


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy_errors.IntegrityError("", {}, Exception("UNIQUE constraint failed: alembic_version.version_num")),
        sqlalchemy_errors.OperationalError("", {}, Exception("table studies already exists")),
    ],
)
def test_two_processes_that_create_a_study_together_both_open_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, opened = [error], storage_module._open

    def second(address: str) -> BaseStorage:
        if errors:
            raise errors.pop()
        return opened(address)

    monkeypatch.setattr(storage_module, "_open", second)
    assert open_storage(sqlite_address(Path("study.db")), minutes=0).get_all_studies() == []


def test_a_study_in_memory_works_in_one_process(capfd: pytest.CaptureFixture[str]) -> None:
    words = (*WORDS, 'hydra.sweeper.storage="sqlite:///:memory:"')
    assert main([*words]) == 0
    study = optuna.load_study(study_name="s", storage=open_storage("sqlite:///:memory:", minutes=10))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert len(study.trials[0].intermediate_values) == 1
    assert not DATABASE.exists()
    assert main([*words, "hydra.sweeper.n_jobs=2"]) == 2
    assert "hydra.sweeper.n_jobs=1" in capfd.readouterr().err
