"""Sweeps of a second or two, and their studies read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from da6401.cli import main
from da6401.runs.run_folder import read_json
from da6401.training import loop
from da6401.training.validation import evaluate
from tests.tiny_runs import DIVERGING, SMALL

T = TypeVar("T")
SWEEP = ("train", "--multirun", *SMALL, "trainer.epochs=1", "study=s")
FOLDER = Path("outputs/sweeps/s")
DIVERGES = (*SWEEP, *(word for word in DIVERGING if "optimizer.lr=" not in word))
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


def wait_until(condition: Callable[[], T | None], *, seconds: float = 90, what: Callable[[], str] = str) -> T:
    """What the condition gives, once that is true; ``what`` says what was seen instead."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return found


def hang_after(epochs: int) -> None:
    """From now on the evaluation of this process never ends after so many epochs."""
    calls = list[int]()

    def hang(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > epochs:
            threading.Event().wait()
        return evaluate(*given, **named)

    setattr(loop, "evaluate", hang)  # noqa: B010 (mypy knows what it replaces)
