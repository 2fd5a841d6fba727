"""What a run takes from the process that it runs in, and that it leaves that process as it was."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import da6401
from da6401 import runtime
from da6401.data.sources import load_training_data
from da6401.rundir import RECEIPT
from tests.small import SMALL

# ---- the code that was loaded -----------------------------------------------------------------------------------


@pytest.fixture
def _fresh_process() -> Iterator[None]:
    runtime.program.cache_clear()
    yield
    runtime.program.cache_clear()


def git(checkout: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.usefixtures("_fresh_process")
def test_a_commit_made_during_a_sweep_is_in_no_trials_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "da6401").mkdir(parents=True)
    code = checkout / "da6401" / "model.py"
    code.write_text("WIDTH = 1\n")
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "first")
    loaded = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setattr(runtime, "CHECKOUT", checkout)
    versions = itertools.count()

    def committed_meanwhile(*values: Any) -> Any:
        code.write_text(f"WIDTH = {next(versions)}\nDEPTH = 1\n")
        git(checkout, "commit", "-qam", "while the data is loaded")
        code.write_text("WIDTH = 0\n")  # and dirty
        return load_training_data(*values)

    monkeypatch.setattr("da6401.run.load_training_data", committed_meanwhile)
    da6401.train(
        *SMALL, "trainer.epochs=1", "study=s", "seed=choice(1,2)", "hydra.sweeper.n_trials=2", multirun=True,
        out=tmp_path / "sweep",
    )  # fmt: skip
    receipts = [json.loads((tmp_path / "sweep" / f"trial-{number}" / RECEIPT).read_text()) for number in (0, 1)]
    assert [(receipt["git_commit"], receipt["git_dirty"]) for receipt in receipts] == [(loaded, None)] * 2
    assert git(checkout, "rev-parse", "HEAD") != loaded
