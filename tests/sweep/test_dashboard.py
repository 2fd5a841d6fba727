"""optuna-dashboard opens the study of a sweep as it is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_runs import SMALL, da6401

pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard")


def test_optuna_dashboard_shows_the_trials(tmp_path: Path) -> None:
    ended = da6401(
        "train", "--multirun", *SMALL, "study=shown", "trainer.epochs=1", "optimizer.lr=interval(0.01,0.1)",
        "hydra.sweeper.n_trials=2", cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    words = ["sqlite:///outputs/sweeps/shown/study.db", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        studies = _json(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert [each["study_name"] for each in studies] == ["shown"]
        trials = _json(f"http://127.0.0.1:{port}/api/studies/{studies[0]['study_id']}?after=0")["trials"]
    finally:
        server.kill()
        server.wait()
    assert [trial["state"] for trial in trials] == ["Complete", "Complete"]
    assert all(param["name"] == "optimizer.lr" for trial in trials for param in trial["params"])


def _json(address: str) -> dict[str, Any]:
    """The answer, once the server is up."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"{address} does not answer")
