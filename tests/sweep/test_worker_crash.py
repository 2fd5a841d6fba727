"""Sweeps that are killed, in whole or in part: everything is there once, and what was begun goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import optuna
from optuna.trial import TrialState

from da6401.config.compose import saved_config
from da6401.runs.run_folder import read_metrics, read_result
from da6401.sweep.leases import ATTEMPTS, Worker
from da6401.training.run import run
from tests.tiny_runs import SMALL, command, da6401

TOTAL = 5
WORDS = (
    "train", "--multirun", *SMALL, "study=s", "trainer.epochs=25", "trainer.checkpoint_minutes=0.0001",
    "optimizer.lr=tag(log,interval(1e-3,1e-1))", f"hydra.sweeper.n_trials={TOTAL}", "sweep.retries=1000",
    "hydra/sweeper/sampler=random", "sweep.keep_checkpoints=100",
)  # fmt: skip
TIMINGS = {"seconds", "images_per_second"}


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/outputs/sweeps/s/study.db")


def numbers(run_folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run_folder)]


def finished_once(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of a finished sweep, checked against their folders."""
    trials = study(folder).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TOTAL
    runs = sorted((folder / "outputs" / "sweeps" / "s").glob("trial-*"))
    assert {path.name for path in runs} == {f"trial-{trial.number}" for trial in trials}
    for trial in trials:
        path = folder / "outputs" / "sweeps" / "s" / f"trial-{trial.number}"
        assert read_result(path).val_accuracy == trial.value
        assert [line["epoch"] for line in read_metrics(path)] == list(range(1, 26))
        assert sorted(trial.intermediate_values) == list(range(1, 26))
    return trials


def test_a_sweep_killed_at_ten_random_moments_ends_with_its_total(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(command(*WORDS), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started = time.monotonic()
        database = tmp_path / "outputs" / "sweeps" / "s" / "study.db"
        while process.poll() is None and not database.exists() and time.monotonic() - started < 60:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 5.0))
        process.kill()
        process.wait()
    done = da6401(*WORDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = finished_once(tmp_path)
    assert sum(int(trial.user_attrs[ATTEMPTS]) for trial in trials) > TOTAL, "no kill hit a trial"
    # A trial that was taken up has the numbers of one that never stopped.
    taken_up = max(trials, key=lambda trial: int(trial.user_attrs[ATTEMPTS]))
    before = tmp_path / "outputs" / "sweeps" / "s" / f"trial-{taken_up.number}"
    run(saved_config(before / "config.yaml"), tmp_path / "again")
    plain = [
        [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(p)]
        for p in (before, tmp_path / "again")
    ]
    assert plain[0] == plain[1]


def test_two_slots_share_one_total_and_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*(word for word in WORDS if "threads" not in word), "hydra.sweeper.n_jobs=2"),  # each slot gets its own
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline, killed = time.monotonic() + 100, False
        while process.poll() is None and time.monotonic() < deadline:
            workers = _children(process.pid)
            begun = list((tmp_path / "outputs" / "sweeps" / "s").glob("trial-*/checkpoints/last.pt"))
            if not killed and len(workers) == 2 and begun:
                os.kill(workers[0], signal.SIGKILL)
                killed = True
            time.sleep(0.1)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert killed
    assert process.returncode == 0, errors
    finished_once(tmp_path)
    assert "retrain it: da6401 reproduce" in out


def test_a_sweep_that_is_terminated_puts_its_trial_back_and_goes_on(tmp_path: Path) -> None:
    words = (*WORDS, "hydra.sweeper.n_trials=1")
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "outputs" / "sweeps" / "s" / "trial-0" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert [trial.state for trial in study(tmp_path).trials] == [TrialState.WAITING]
    assert da6401(*words, cwd=tmp_path).returncode == 0
    (trial,) = study(tmp_path).trials
    assert trial.state is TrialState.COMPLETE
    assert sorted(trial.intermediate_values) == list(range(1, 26))


def worker(study: optuna.Study, folder: Path) -> Worker:
    return Worker(study, folder, retries=2, lease_seconds=0)


def test_a_trial_that_kills_its_worker_too_often_fails(tmp_path: Path) -> None:
    study = optuna.create_study()
    for attempt in (1, 2, 3):
        dead = worker(study, tmp_path)
        claimed = dead.claim(total=1)
        assert claimed is not None
        assert (claimed.number, study.trials[0].user_attrs[ATTEMPTS]) == (0, attempt)
        dead.lock.release()  # what the end of its process does
    assert worker(study, tmp_path).claim(total=1) is None
    assert study.trials[0].state is TrialState.FAIL
    assert study.trials[0].user_attrs["reason"] == "killed 3 times"


def test_a_living_worker_keeps_its_trial(tmp_path: Path) -> None:
    study = optuna.create_study()
    first, second = worker(study, tmp_path), worker(study, tmp_path)
    one, two = first.claim(total=2), second.claim(total=2)
    assert one is not None
    assert two is not None
    assert one.number != two.number
    assert first.claim(total=2) is None
    assert first.others_running()
    second.close()
    again = first.claim(total=2)
    assert again is not None
    assert again.number == two.number
    assert first.owns(again)
    assert not second.owns(again)


def _children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]
