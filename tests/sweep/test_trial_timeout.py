"""A trial's time limit: looked at between two steps, and what becomes of the process where nobody looks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from da6401.errors import InterruptedRun, TrialTimeoutError
from da6401.sweep import trial_timeout, worker_pool
from da6401.sweep.trial_timeout import start_over, time_limit
from da6401.training.signals import StopFlag, running_limits


def test_the_clock_starts_with_the_first_step_and_is_read_at_the_others() -> None:
    with time_limit(0.0005, print):
        flag = StopFlag(limits=running_limits())
        time.sleep(0.1)  # imports, the data set
        flag.check()
        flag.step_begins()
        time.sleep(0.1)
        with pytest.raises(TrialTimeoutError, match=r"took longer than sweep\.trial_minutes=0\.0005"):
            flag.check()
        flag.signum = signal.SIGTERM
        with pytest.raises(InterruptedRun):  # whose trial is requeued, and not failed
            flag.step_begins()


def test_a_hang_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_timeout, "GRACE_SECONDS", 0.1)
    told, heard = [], threading.Event()

    def hung(reason: str) -> None:
        told.append(reason)
        heard.set()

    with time_limit(0.001, hung):
        StopFlag(limits=running_limits()).step_begins()
        assert heard.wait(20), "nobody noticed"
    assert told == ["took longer than sweep.trial_minutes=0.001, and hung"]


@pytest.mark.parametrize("minutes", [0, 0.005])
@pytest.mark.parametrize("begins", [False, True])
def test_what_ends_in_time_leaves_nothing_behind(minutes: float, begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_timeout, "GRACE_SECONDS", 0.0)
    told: list[str] = []
    with time_limit(minutes, told.append):
        if begins:
            StopFlag(limits=running_limits()).step_begins()
    assert not running_limits()
    time.sleep(0.5)
    assert not told
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("words", "worker", "becomes"),
    [
        (["python", "-m", "da6401", "train", "--multirun", "sweep=part_a"], False, "the command"),
        (["python", "-m", "da6401", "train", "-m"], False, "the command"),
        (["python", "-m", "da6401", "train", "--multirun"], True, "killed"),
        (["python", "-m", "ipykernel_launcher"], False, "killed"),
    ],
)
def test_who_is_started_anew(words: list[str], worker: bool, becomes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def execv(path: str, words: list[str]) -> None:
        calls.append(words)
        raise SystemExit  # nobody returns from execv

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(os, "kill", lambda pid, signum: calls.append(signum))
    monkeypatch.setattr(sys, "orig_argv", words)
    if worker:
        monkeypatch.setenv(worker_pool.SLOT, "1")
    if becomes == "killed":
        start_over(Path("sweeps/s"))
        assert calls == [signal.SIGKILL]
    else:
        with pytest.raises(SystemExit):
            start_over(Path("sweeps/s"))
        assert calls == [[*words, "study=s", "hydra.sweep.dir='sweeps/s'"]]
