"""A trial's time limit: heard by Python, unheard in a hang, and what then becomes of the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from da6401.sweep import limits, pool
from da6401.sweep.limits import TrialTimeoutError, start_over, time_limit


def test_an_endless_loop_is_interrupted() -> None:
    with pytest.raises(TrialTimeoutError, match=r"sweep\.trial_minutes=0\.001"), time_limit(0.001, print):
        time.sleep(30)


def test_a_hang_that_hears_no_signal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_SECONDS", 0.1)
    told, heard = [], threading.Event()

    def hung(reason: str) -> None:
        told.append(reason)
        heard.set()

    def hang() -> None:  # as code outside Python that does not return
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        try:
            assert heard.wait(20), "nobody noticed"
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])

    with pytest.raises(TrialTimeoutError), time_limit(0.001, hung):
        hang()
    assert told == ["took longer than sweep.trial_minutes=0.001, and hung"]


def test_what_ends_in_time_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_SECONDS", 0.0)
    told: list[str] = []
    with time_limit(0.005, told.append):
        pass
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
        monkeypatch.setenv(pool.SLOT, "1")
    if becomes == "killed":
        start_over(Path("sweeps/s"))
        assert calls == [signal.SIGKILL]
    else:
        with pytest.raises(SystemExit):
            start_over(Path("sweeps/s"))
        assert calls == [[*words, "study=s", "hydra.sweep.dir='sweeps/s'"]]
