"""Checkpoints that wait for their write: one write for many short epochs, and files that belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from da6401.config.schema import RunConfig
from da6401.runs.run_folder import BEST, LAST, read_result
from da6401.training import checkpoint_writer
from da6401.training.checkpoint import load_checkpoint, save_checkpoint
from da6401.training.run import run
from tests.outcomes import outcome
from tests.tiny_runs import SMALL, compose


def _noting(names: list[str]) -> Callable[..., None]:
    def save(path: Path, content: Any, *, previous: Path) -> None:
        names.append(path.name)
        save_checkpoint(path, content, previous=previous)

    return save


def _killed(cfg: RunConfig, folder: Path, writes: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies right after these writes, as by SIGKILL: nothing of what waits is written."""
    left = list(writes)

    class Killed(BaseException):
        pass

    def save(path: Path, content: Any, *, previous: Path) -> None:
        if not left:
            raise Killed
        save_checkpoint(path, content, previous=previous)
        assert path.name == left.pop(0), path
        if not left:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "save_checkpoint", save)
        patch.setattr(checkpoint_writer, "PATIENCE", 0)
        with pytest.raises(Killed):
            run(cfg, folder)
    (folder / "result.json").unlink(missing_ok=True)


def test_best_and_last_never_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several epochs are better than all before here: a kill between best.pt and last.pt is the hard case."""
    cfg = compose(*SMALL, "trainer.epochs=4", "optimizer.lr=0.02")
    run(cfg, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    order: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "PATIENCE", 0)
        patch.setattr(checkpoint_writer, "save_checkpoint", _noting(order))
        run(cfg, tmp_path / "eager")
    assert outcome(tmp_path / "eager") == expected
    assert order.count("best.pt") >= 2, "the hard case needs a second best epoch"
    for writes in range(1, len(order)):
        folder = tmp_path / f"killed-{writes}"
        _killed(cfg, folder, order[:writes], monkeypatch)
        if (folder / LAST).exists():
            history = load_checkpoint(folder / LAST)["history"]
            checkpoint_writer.settle_best(folder, history["best_epoch"])
            assert load_checkpoint(folder / BEST)["epoch"] == history["best_epoch"]
        run(cfg, folder)
        assert outcome(folder) == expected
        assert load_checkpoint(folder / BEST)["epoch"] == read_result(folder).best_epoch
        assert not list(folder.rglob("*.prev.pt"))


def test_short_epochs_wait_for_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", _noting(written))
    monkeypatch.setattr(checkpoint_writer, "PATIENCE", 10**9)
    result = run(compose(*SMALL, "trainer.epochs=3"), tmp_path / "run")
    assert written == ["best.pt", "last.pt"]
    assert load_checkpoint(tmp_path / "run" / LAST)["history"]["epochs_run"] == 3
    assert load_checkpoint(tmp_path / "run" / BEST)["epoch"] == result.best_epoch
