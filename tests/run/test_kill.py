"""SIGKILL at random moments: the run goes on and ends with the same bits. `make kill-test` does it 25 times."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from da6401.config.schema import RunConfig
from da6401.runs.run_folder import LAST, RESULT, read_metrics, read_result
from da6401.training.run import run
from tests.forked import start
from tests.outcomes import outcome
from tests.run.test_resume import HARD
from tests.tiny_runs import compose

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("DA6401_KILLS", "3"))


def _begun(cfg: RunConfig, folder: Path) -> BaseProcess:
    """A training in its own process, from the moment that its folder is there."""
    process = start(run, cfg, folder)  # not a function of this module, which would be imported there
    while not folder.exists():
        assert process.is_alive()
        time.sleep(0.001)
    return process


def _until_the_end(cfg: RunConfig, folder: Path) -> float:
    """Seconds."""
    process = _begun(cfg, folder)
    started = time.perf_counter()
    process.join(120)
    assert process.exitcode == 0
    return time.perf_counter() - started


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = compose(*HARD, "trainer.epochs=6", "trainer.checkpoint_minutes=0.0005", "trainer.patience=5")
    _until_the_end(cfg, tmp_path / "whole")
    seconds = _until_the_end(cfg, tmp_path / "again")  # the first paid for what a process does once
    expected, weights = outcome(tmp_path / "whole"), read_result(tmp_path / "whole").weights_sha256
    rng, same = random.Random(6401), 0
    rows: list[str] = []
    for number in range(KILLS):
        while True:  # a run that ends before its kill is not counted
            folder = tmp_path / f"run-{number}-{len(rows)}-{rng.random():.6f}"
            process = _begun(cfg, folder)
            moment = rng.uniform(0, seconds)
            time.sleep(moment)
            process.kill()
            process.join()
            if not (folder / RESULT).exists():
                break
        epochs = len(read_metrics(folder)) if (folder / "metrics.jsonl").exists() else 0
        had = "a checkpoint" if (folder / LAST).exists() else "no checkpoint yet"
        _until_the_end(cfg, folder)
        result = read_result(folder)
        equal = outcome(folder) == expected and result.weights_sha256 == weights
        same += equal
        rows.append(f"kill {number + 1:2}: after {moment:5.2f} s, {epochs:2} epochs, {had}: {result.weights_sha256}")
        assert [line["epoch"] for line in read_metrics(folder)] == list(range(1, result.epochs_run + 1))
        assert not list(folder.rglob("*.tmp"))
    with capsys.disabled():
        if KILLS > 3:
            print(f"\nwhole run, {seconds:.2f} s: {weights}", *rows, sep="\n")
            print(f"{same} of {KILLS}")
    assert same == KILLS, rows
