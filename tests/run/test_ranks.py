"""Several processes train one run together: the same numbers as one process, and the same bits each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from da6401 import train
from da6401.errors import ConfigError, InterruptedRun, MachineError, UserError
from da6401.machine.torchrun import ADDRESS, COUNT, PORT, RANK
from da6401.runs.run_folder import RECEIPT, read_metrics, read_result
from da6401.training import follower, ranks
from da6401.training.ranks import Ranks
from da6401.training.run import run
from tests.forked import Popen
from tests.outcomes import TIMINGS, outcome, stop_at
from tests.tiny_runs import SMALL, SMALL_BACKBONE, compose, typed

pytestmark = pytest.mark.integration

# On a CPU batch norm sees a part of the batch, and dropout differs by process: without both the numbers are the same.
PLAIN = (
    *SMALL, "model.batch_norm=false", "augmentation=strong", "augmentation.cutmix=0.5", "augmentation.mixup=0.3",
    "trainer.ema_decay=0.9", "trainer.clip_norm=1", "trainer.batch_size=7", "trainer.label_smoothing=0.1",
)  # fmt: skip
HEAD = (
    *SMALL_BACKBONE, "data.image_size=32", "model=resnet18", "model.weights=none", "model.freeze_depth=5",
    "model.feature_cache=on", "model.dropout=0",
)  # fmt: skip
TWO = ("trainer.devices=2", "device=cpu")


def follow(environment: dict[str, str]) -> None:
    """What `python -m da6401.training.follower` does."""
    os.environ.update(environment)
    sys.exit(follower.follow([]))


@pytest.fixture
def forked_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks start in a moment; a program of their own is proven by the tests without this."""

    def start(rank: int, count: int, port: int) -> Popen:
        place = {RANK: rank, COUNT: count, ADDRESS: "127.0.0.1", PORT: port}
        return Popen(follow, {name: str(value) for name, value in place.items()})

    monkeypatch.setattr(ranks, "_start", start)


@pytest.mark.parametrize("words", [PLAIN, HEAD], ids=["part a", "cached features"])
def test_two_processes_reach_the_numbers_of_one(tmp_path: Path, words: tuple[str, ...]) -> None:
    alone = run(compose(*words, "device=cpu"), tmp_path / "alone")
    both = run(compose(*words, *TWO), tmp_path / "both")
    assert both.status == "completed"
    assert both.weights_sha256 is not None
    for one, two in zip(read_metrics(tmp_path / "alone"), read_metrics(tmp_path / "both"), strict=True):
        assert {k: v for k, v in two.items() if k not in TIMINGS} == pytest.approx(
            {k: v for k, v in one.items() if k not in TIMINGS}, rel=1e-4
        )
    assert both.val_loss == pytest.approx(alone.val_loss, rel=1e-4)
    facts = json.loads((tmp_path / "both" / RECEIPT).read_text())["features"]
    assert [fact["on"] for fact in facts] == [True] * len(facts)
    assert bool(facts) == (words is HEAD)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_ranks")
def test_it_resumes_and_torchrun_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(*PLAIN, *TWO, "model.dropout=0.3", "model.batch_norm=true")
    run(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(6, patch)
        with pytest.raises(InterruptedRun):
            run(cfg, tmp_path / "run")
    run(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "da6401", "train",
        *PLAIN, *TWO, "model.dropout=0.3", "model.batch_norm=true", f"hydra.run.dir={tmp_path / 'torchrun'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "torchrun").weights_sha256 == read_result(tmp_path / "whole").weights_sha256
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()].count("outputs") == 0  # one run folder


def test_a_process_that_fails_ends_the_run_which_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import sys, time; time.sleep(1); sys.exit(3)"])

    with monkeypatch.context() as patch:
        patch.setattr(ranks, "_start", failing)
        patch.setattr(ranks, "WAIT", timedelta(seconds=3))
        with pytest.raises(MachineError, match="another process of the run ended with exit code 3"):
            run(compose(*PLAIN, *TWO), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()  # unfinished


def test_each_image_counts_once_whatever_the_batch() -> None:
    for size in range(1, 12):
        for count in range(1, 6):
            every = [Ranks(rank, count) for rank in range(count)]
            rows = [row for each in every if each.share(size) for row in range(size)[each.part(size)]]
            assert sorted(rows) == list(range(size))
            assert sum(each.share(size) for each in every) == pytest.approx(1)
            assert all(each.part(size).stop > each.part(size).start for each in every)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("device=cpu", "trainer.compile=true"), {}, "trainer.compile is for one device"),
        (("device=cuda",), {}, "this machine has 0 CUDA devices"),
        (
            ("device=cpu",),
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "0"},
            "torchrun has started 3 processes",
        ),
        (
            ("device=cpu", "--multirun"),
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"},
            "without torchrun",
        ),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "device=cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = typed("train", *SMALL, "trainer.devices=2", *words, cwd=tmp_path)
    assert code == 2, err
    assert re.search(said, err)
    assert not list(tmp_path.rglob("config.yaml"))  # nothing has begun


def test_objects_of_python_stay_in_one_process(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stay in this process"):
        train(*SMALL, *TWO, metrics={"own": lambda labels, probabilities: 1.0}, out=tmp_path / "run")
    assert ConfigError.exit_code == 2
    assert os.environ.get("RANK") is None
