"""Sweeps that are killed, in whole or in part: everything is there once, and what was begun goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from da6401.cli import main
from da6401.config.compose import saved_config
from da6401.runs.run_folder import read_metrics, read_result
from da6401.sweep.leases import ATTEMPTS, Worker
from da6401.training.run import run
from tests.forked import Command, begun
from tests.sweep.sweeps import FOLDER, RANDOM, RATE, SWEEP, N, states, trials, wait_until

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("DA6401_KILLS", "4"))  # `make kill-test` has more
TOTAL, EPOCHS = 5, 12
WORDS = (
    *SWEEP, f"trainer.epochs={EPOCHS}", "trainer.checkpoint_minutes=0.0001", f"{N}{TOTAL}", "sweep.retries=1000",
    "sweep.keep_checkpoints=100",
)  # fmt: skip
TIMINGS = {"seconds", "images_per_second"}


def numbers(run_folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run_folder)]


def has_epochs(run_folder: Path, count: int) -> bool:
    return (run_folder / "metrics.jsonl").exists() and len(read_metrics(run_folder)) >= count


def finished_once() -> list[optuna.trial.FrozenTrial]:
    """The trials of a finished sweep, checked against their folders."""
    assert states() == ["COMPLETE"] * TOTAL
    assert {path.name for path in FOLDER.glob("trial-*")} == {f"trial-{trial.number}" for trial in trials()}
    for trial in trials():
        path = FOLDER / f"trial-{trial.number}"
        assert read_result(path).val_accuracy == trial.value
        assert [line["epoch"] for line in read_metrics(path)] == list(range(1, EPOCHS + 1))
        assert sorted(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    return trials()


def kill_at_a_random_moment(words: Sequence[str], rng: random.Random) -> None:
    with begun(words, cwd=Path.cwd()) as killed:
        if rng.random() < 0.7:  # in mid trial; otherwise while it starts
            wait_until(lambda: " starts, " in killed.out.read_text() or not killed.process.is_alive())
        time.sleep(rng.uniform(0.0, 1.0))


def test_a_sweep_killed_at_random_moments_ends_with_its_total() -> None:
    rng, words = random.Random(1), (*WORDS, RATE, RANDOM)
    for _ in range(KILLS):
        kill_at_a_random_moment(words, rng)
    assert main([*words]) == 0
    finished = finished_once()
    assert sum(int(trial.user_attrs[ATTEMPTS]) for trial in finished) > TOTAL, "no kill hit a trial"
    # A trial that was resumed has the numbers of one that never stopped.
    resumed = max(finished, key=lambda trial: int(trial.user_attrs[ATTEMPTS]))
    before = FOLDER / f"trial-{resumed.number}"
    run(saved_config(before / "config.yaml"), Path("again"))
    assert numbers(before) == numbers(Path("again"))


def test_two_slots_share_a_grid_and_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    own_threads = [word for word in WORDS if "threads" not in word]  # each slot gets its own
    words = [*own_threads, "optimizer.lr=0.1,0.2,0.3,0.4,0.5", "hydra.sweeper.n_jobs=2"]
    with begun(words, cwd=tmp_path) as leader:
        wait_until(lambda: len(_children(leader)) == 2 and list(FOLDER.glob("trial-*/checkpoints/last.pt")))
        os.kill(_children(leader)[0], signal.SIGKILL)
        code, out, errors = leader.end(90)
    assert code == 0, errors
    assert sorted(trial.params["optimizer.lr"] for trial in finished_once()) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert "retrain it: da6401 reproduce" in out


def test_a_sweep_that_is_stopped_requeues_its_trial_and_resumes_it(tmp_path: Path) -> None:
    words, run_folder = (*WORDS, "trainer.epochs=25", RATE, f"{N}1"), FOLDER / "trial-0"
    for stop, code, epochs in ((signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 6)):
        with begun(words, cwd=tmp_path) as running:
            wait_until(partial(has_epochs, run_folder, epochs))
            running.send(stop)
            assert running.end()[0] == code
        assert states() == ["WAITING"]
    assert main([*words]) == 0
    (trial,) = trials()
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


def _children(of: Command) -> list[int]:
    found = Path(f"/proc/{of.process.pid}/task/{of.process.pid}/children")  # Linux
    return [int(word) for word in found.read_text().split()]
