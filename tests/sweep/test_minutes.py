"""sweep.minutes: a sweep ends in time, whatever its trials do; its clock is in the study."""

from __future__ import annotations

import functools
import math
import os
import time
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from da6401.cli import main
from da6401.runs.run_folder import read_json, read_metrics, read_result
from da6401.study.clock import SPENT, Clock, spent_of
from da6401.sweep import trial_timeout
from da6401.sweep.trial_timeout import LANDING_SECONDS, end_at, landing_seconds
from tests.forked import command
from tests.sweep.sweeps import FOLDER, RATE, SWEEP, folder, hang_after, open_study, states, summary

pytestmark = pytest.mark.integration

LATE = 5.0  # seconds that a sweep may end after its minutes


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), max_size=8), st.floats(0.1, 100))
def test_the_clock_counts_what_was_worked_and_not_what_lies_between(
    sessions: list[tuple[float, float]], minutes: float
) -> None:
    now, study = [0.0], optuna.create_study()
    for pause, work in sessions:
        now[0] += pause
        clock = Clock(minutes, began=now[0], spent=spent_of(study), now=lambda: now[0])
        now[0] += work
        assert clock.left == pytest.approx(60 * minutes - clock.spent)
        clock.save(study)
    assert spent_of(study) == pytest.approx(sum(work for _, work in sessions), abs=1e-6)


def test_without_minutes_there_is_always_time_and_nothing_is_written() -> None:
    study = optuna.create_study()
    clock = Clock(0, began=0)
    with clock.saving(study):
        assert clock.left == math.inf
    assert not study.user_attrs


def test_a_trial_is_interrupted_in_time_and_goes_on_with_more_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial_timeout, "LANDING_SECONDS", 1.5)
    words = [*SWEEP, RATE, "hydra.sweeper.n_trials=2", "trainer.epochs=100000"]
    started = time.perf_counter()
    assert main([*words, "sweep.minutes=0.15"]) == 1
    assert time.perf_counter() - started < 60 * 0.15 + LATE
    printed = capsys.readouterr()
    assert "sweep.minutes=0.15 are over" in printed.out
    assert "no trial has finished: trial 0 did" in printed.err
    assert states() == ["WAITING"]
    assert read_result(folder(0)).status == "interrupted"
    epochs, spent = len(read_metrics(folder(0))), float(open_study().user_attrs[SPENT])
    assert 60 * 0.15 - 1.5 - 1 < spent < 60 * 0.15 + LATE
    main([*words, "sweep.minutes=0.27"])
    assert states() == ["WAITING"]
    assert len(read_metrics(folder(0))) > epochs
    assert float(open_study().user_attrs[SPENT]) < 60 * 0.27 + LATE


@pytest.mark.parametrize(
    ("load", "minutes", "seconds"),
    [(0.0, 5, LANDING_SECONDS), (3.0, 5, 3 * LANDING_SECONDS), (100.0, 5, 60.0), (100.0, 0.1, LANDING_SECONDS)],
)
def test_a_busy_machine_keeps_more_time_for_the_end(
    load: float, minutes: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    assert landing_seconds(Clock(minutes, began=time.perf_counter())) == pytest.approx(seconds)


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "code", "minutes"), [(0, 1, 0.15), (1, 0, 0.2)])
def test_a_trial_that_hangs_does_not_hold_the_sweep_up(tmp_path: Path, epochs: int, code: int, minutes: float) -> None:
    """With a finished trial the sweep has done something; without one it has failed."""
    words = (*SWEEP, RATE, "hydra.sweeper.n_trials=2", f"sweep.minutes={minutes}")
    command(["--help"], cwd=tmp_path)  # the processes that are forked have their imports then
    started = time.perf_counter()
    ended, out, err = command(words, cwd=tmp_path, before=functools.partial(hang_after, epochs))
    assert ended == code, out + err
    assert time.perf_counter() - started < 60 * minutes + LATE
    assert "the last step has not ended: this process ends" in out + err
    assert read_json(tmp_path / FOLDER / "sweep.json")["trials"]["complete"] == epochs


def test_the_confirmation_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = time.perf_counter()
    main([*SWEEP, RATE, "hydra.sweeper.n_trials=1000", "sweep.confirm_top=1", "sweep.confirm_seeds=2",
          "sweep.minutes=0.2"])  # fmt: skip
    assert time.perf_counter() - started < 60 * 0.2 + LATE
    assert len(summary()["confirmed"]) == 1
    assert summary()["trials"]["complete"] < 1000


def test_a_command_given_when_the_time_is_over_is_not_taken_to_hang() -> None:
    ended: list[str] = []
    with end_at(Clock(1, began=time.perf_counter(), spent=3600), ended.append):
        time.sleep(0.05)
    assert ended == []


def test_a_block_that_ends_too_late_waits_for_the_end_of_the_process() -> None:
    done: list[str] = []

    def end(reason: str) -> None:
        time.sleep(0.3)
        done.append(reason)

    with end_at(Clock(1, began=time.perf_counter(), spent=59.9), end):
        time.sleep(0.2)
    done.append("the block goes on")
    assert done == ["sweep.minutes=1 are over, and the last step has not ended", "the block goes on"]
