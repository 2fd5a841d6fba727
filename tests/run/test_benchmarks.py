"""Parts of the benchmarks that reach into the package: they run, with small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data, pruning
from da6401.data.cache.cache_folder import FOLDER_VARIABLE
from da6401.runs.run_folder import read_result


def test_the_start_of_a_trial_is_timed_up_to_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SMALL_FILES", 60)
    monkeypatch.setattr(data, "ROUNDS", 2)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    row = data.startup_row(tmp_path)
    assert len(row.ratios) == 2
    assert max(row.ratios) < 60
    for trial in range(3):
        result = read_result(tmp_path / f"trial-{trial}")
        assert (result.status, result.epochs_run) == ("failed", 0)
        assert "FirstStepError" in result.reason


@pytest.mark.parametrize("pruner", pruning.PRUNERS)
def test_a_pruner_is_replayed_on_recorded_curves(pruner: str) -> None:
    rising = [[(trial + epoch) / 100 for epoch in range(pruning.EPOCHS)] for trial in range(8)]
    best, epochs = pruning.replay(rising, pruner)
    assert best == rising[-1][-1]
    assert epochs <= 8 * pruning.EPOCHS
    if pruner == "none":
        assert epochs == 8 * pruning.EPOCHS
