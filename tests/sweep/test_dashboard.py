"""optuna-dashboard opens the study of a sweep as it is."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from tests.sweep.sweeps import FOLDER, RATE, N, sweep

pytestmark = pytest.mark.integration

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard")


def test_optuna_dashboard_shows_the_trials() -> None:
    sweep(RATE, f"{N}2")
    served = optuna_dashboard.wsgi(f"sqlite:///{FOLDER}/study.db")

    def answer(path: str, query: str = "") -> Any:
        asked: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
        setup_testing_defaults(asked)
        return json.loads(b"".join(served(asked, lambda *_: None)))

    (study,) = answer("/api/studies")["study_summaries"]
    assert study["study_name"] == "s"
    trials = answer(f"/api/studies/{study['study_id']}", "after=0")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete"]
    assert all(param["name"] == "optimizer.lr" for trial in trials for param in trial["params"])
