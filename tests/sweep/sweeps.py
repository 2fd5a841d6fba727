"""Sweeps of a second or two, their studies read again, and sweeps in processes that a test stops."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from da6401.cli import main
from da6401.runs.run_folder import read_json
from tests import forked
from tests.tiny_runs import SMALL

SWEEP = ("train", "--multirun", *SMALL, "trainer.epochs=1", "study=s")
FOLDER = Path("outputs/sweeps/s")
RATE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
N, RANDOM, GRID = "hydra.sweeper.n_trials=", "hydra/sweeper/sampler=random", "hydra/sweeper/sampler=grid"


def sweep(*words: str, name: str = "s", code: int = 0) -> optuna.Study:
    """Run a sweep in this process and open its study again."""
    ended = main([*SWEEP, f"study={name}", *words])
    assert ended == code
    return open_study(name)


def open_study(name: str = "s") -> optuna.Study:
    """The study of a sweep, as another program would read it."""
    database = f"sqlite:///{FOLDER.with_name(name)}/study.db"
    # Not looking at the version of its tables saves a fifth of a second.
    storage = RDBStorage(database, skip_compatibility_check=True, skip_table_creation=True)
    return optuna.load_study(study_name=name, storage=storage)


def trials(name: str = "s") -> list[FrozenTrial]:
    return open_study(name).trials


def states(name: str = "s") -> list[str]:
    return [trial.state.name for trial in trials(name)]


def folder(number: int) -> Path:
    """Of a trial's run."""
    return FOLDER / f"trial-{number}"


def summary() -> dict[str, Any]:
    """The sweep.json of a sweep that has ended."""
    loaded: dict[str, Any] = read_json(FOLDER / "sweep.json")
    return loaded


def start(*words: str, folder: Path, env: Mapping[str, str] | None = None) -> BaseProcess:
    """`da6401 WORDS` in a process of its own, which a test may stop; what it prints is in FOLDER/<pid>.log."""
    return forked.start(_run, words, folder, env or {})


def _run(words: list[str], folder: Path, env: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = ["da6401", *words]  # which the workers of a sweep are given
    with open(f"{os.getpid()}.log", "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)  # also for what writes to the streams as they were
        os.dup2(log.fileno(), 2)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def printed(process: BaseProcess) -> str:
    """What a process that was started in this folder has said so far."""
    log = Path(f"{process.pid}.log")
    return log.read_text() if log.exists() else ""


def wait_until(condition: Callable[[], object], *, seconds: float = 90, what: Callable[[], str] = str) -> None:
    """Returns once the condition holds; ``what`` says what was seen instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
