"""Ends are honest: the exit code, the reason that comes last, the time that is left, and a line when a trial starts."""

from __future__ import annotations

import os
import time

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from da6401.cli import main
from da6401.config.schema import SweepConfig
from da6401.errors import AllFailedError, UserError
from da6401.study.clock import BEGAN
from da6401.study.objective import Objective
from da6401.sweep import worker_pool
from da6401.sweep.failures import sweep_failure
from da6401.sweep.leases import REASON
from da6401.sweep.summary import progress_line
from tests.sweep.sweeps import DIVERGES, SWEEP


def failed(reason: str) -> FrozenTrial:
    return create_trial(state=TrialState.FAIL, user_attrs={REASON: reason})


def test_the_commonest_reason_is_told_whatever_its_numbers() -> None:
    trials = [failed("the loss is nan in epoch 1, step 12"), failed("no room"), failed("the loss is inf in epoch 1")]
    trials += [failed("the loss is nan in epoch 2, step 1")]
    problem = sweep_failure(trials, most=4)
    assert isinstance(problem, AllFailedError)
    assert problem.exit_code == 1
    told = "no trial was completed: the loss is nan in epoch 1, step 12 (2 of 4; the table gives the other reasons)"
    assert str(problem) == told
    too_many = sweep_failure(trials, most=2)
    assert isinstance(too_many, UserError)
    assert too_many.exit_code == 2
    assert "max_failure_rate" in str(too_many)
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        assert sweep_failure([*trials, create_trial(state=state, value=0.5)], most=4) is None
    assert sweep_failure([create_trial(state=TrialState.WAITING)], most=0) is None


@pytest.mark.parametrize(("slots", "times"), [(1, 2), pytest.param(2, 1, marks=pytest.mark.integration)])
def test_a_sweep_whose_trials_all_diverge_ends_in_1_with_the_reason_last(
    slots: int, times: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*DIVERGES, "optimizer.lr=90,100", f"hydra.sweeper.n_jobs={slots}"]
    monkeypatch.setattr("sys.argv", ["da6401", *words])  # the workers are given the leader's command
    for _ in range(times):  # the same command again finds the same
        assert main(words) == 1
        out, errors = capfd.readouterr()
        last = errors.strip().splitlines()[-1]
        assert last.startswith("da6401: no trial was completed: DivergedError: the loss is")
        assert "optimizer.lr" in last
    assert "trial was completed within the limits" in out


def test_a_trial_is_told_when_it_starts(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "optimizer.lr=0.1,0.2"]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("trial ")]
    told = ["trial 0 starts, 1 of 2: lr=0.1", "trial 0: ", "trial 1 starts, 2 of 2: lr=0.2", "trial 1: "]
    assert [line[: len(start)] for line, start in zip(lines, told, strict=True)] == told


@pytest.mark.parametrize(
    ("hours", "left"), [(0.0, "about 2.0 h left"), (3.0, "about 2.0 h left"), (1.0, "at most 60 min left")]
)
def test_the_time_left_heeds_the_hours_of_the_sweep(hours: float, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    study.tell(study.ask(), 0.5)
    started, objective = time.perf_counter(), Objective.of(SweepConfig())
    monkeypatch.setattr("da6401.sweep.summary._since", lambda began: 1.0)
    assert left in progress_line(objective, study.trials, 0, 7201, started=started, hours=hours)


def test_a_process_that_is_started_again_has_the_sweeps_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BEGAN, raising=False)
    with worker_pool.one_clock():
        assert time.perf_counter() - worker_pool.began() == pytest.approx(0, abs=1)
    assert BEGAN not in os.environ
    monkeypatch.setenv(BEGAN, repr(time.time() - 100))  # as a worker has it
    with worker_pool.one_clock():
        assert time.perf_counter() - worker_pool.began() == pytest.approx(100, abs=1)
    assert BEGAN in os.environ
