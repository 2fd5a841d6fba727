"""trainer.average_end: the mean of the last epochs' weights, beside the best epoch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from da6401.commands.reproduce import reproduce_run
from da6401.errors import InterruptedRun, TrialTimeoutError
from da6401.runs.run_folder import AVERAGE, BEST, LAST, read_result
from da6401.training import loop, validation
from da6401.training.checkpoint import load_checkpoint, model_state
from da6401.training.run import run
from tests.outcomes import outcome
from tests.tiny_runs import SMALL, compose

CONSTANT = (*SMALL, "schedule=constant", "augmentation=none")  # an epoch is the same however many come after it


def test_it_is_the_mean_of_the_weights_after_each_of_the_last_epochs(tmp_path: Path) -> None:
    after = [_last(tmp_path, epochs) for epochs in (2, 3, 4)]
    result = run(compose(*CONSTANT, "trainer.epochs=4", "trainer.average_end=0.75"), tmp_path / "averaged")
    assert result.weights_sha256 == read_result(tmp_path / "4").weights_sha256, "training is the same with it"
    assert result.best_weights_sha256 == read_result(tmp_path / "4").best_weights_sha256
    kept = load_checkpoint(tmp_path / "averaged" / AVERAGE)
    for name, value in model_state(kept).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([each[name] for each in after]).mean(0))
    best = load_checkpoint(tmp_path / "averaged" / BEST)
    assert kept["probabilities"].shape == best["probabilities"].shape
    assert not torch.equal(kept["probabilities"], best["probabilities"])
    assert kept["class_names"] == best["class_names"]


def _last(folder: Path, epochs: int) -> dict[str, torch.Tensor]:
    run(compose(*CONSTANT, f"trainer.epochs={epochs}"), folder / str(epochs))
    return model_state(load_checkpoint(folder / str(epochs) / LAST))


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.average_end=0.25",),  # one epoch of four, which is the last one itself
        ("trainer.average_end=1", "trainer.train_on=all"),  # no image is left to judge it
        ("trainer.average_end=1", "trainer.patience=1", "optimizer.lr=1e-9"),  # the last epochs are not reached
    ],
)
def test_no_mean_is_kept_where_it_says_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(compose(*CONSTANT, "trainer.epochs=4", *words), tmp_path / "run")
    assert result.status == "completed"
    assert not (tmp_path / "run" / AVERAGE).exists()


@pytest.fixture
def fails_last(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the fifth validation, that of the mean after four epochs, raise an error."""
    whole, seen = validation.evaluate, []

    def use(error: BaseException) -> None:
        def evaluate(*given: Any, **named: Any) -> Any:
            seen.append(1)
            if len(seen) == 5:
                raise error
            return whole(*given, **named)

        monkeypatch.setattr(loop, "evaluate", evaluate)

    return use


def test_a_run_interrupted_as_it_validates_the_mean_goes_on_with_that(tmp_path: Path, fails_last: Any) -> None:
    cfg = compose(*SMALL, "trainer.epochs=4", "trainer.average_end=0.5")
    run(cfg, tmp_path / "whole")
    fails_last(InterruptedRun(15))
    with pytest.raises(InterruptedRun):
        run(cfg, tmp_path / "run")
    assert read_result(tmp_path / "run").status == "interrupted"
    run(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert (tmp_path / "run" / AVERAGE).is_file()


def test_a_time_limit_that_ends_the_validation_of_the_mean_leaves_the_training_complete(
    tmp_path: Path, fails_last: Any
) -> None:
    fails_last(TrialTimeoutError("time is over"))
    result = run(compose(*SMALL, "trainer.epochs=4", "trainer.average_end=0.5"), tmp_path / "run")
    assert result.status == "completed"
    assert not (tmp_path / "run" / AVERAGE).exists()


@pytest.mark.parametrize(("first", "then", "kept"), [("1", "0", False), ("0", "1", False), ("0", "0.5", True)])
def test_it_may_be_switched_off_or_on_in_a_run_that_goes_on(tmp_path: Path, first: str, then: str, kept: bool) -> None:
    """On before the last epochs begin; later it would lack epochs."""

    class Stop:
        def epoch_done(self, epoch: int, values: Any) -> None:
            if epoch == 2:
                raise InterruptedRun(15)

    with pytest.raises(InterruptedRun):
        run(compose(*SMALL, "trainer.epochs=4", f"trainer.average_end={first}"), tmp_path / "run", Stop())
    cfg = compose(*SMALL, "trainer.epochs=4", f"trainer.average_end={then}")
    result = run(cfg, tmp_path / "run")
    assert (result.status, result.epochs_run) == ("completed", 4)
    assert (tmp_path / "run" / AVERAGE).exists() is kept
    if kept:
        run(cfg, tmp_path / "whole")
        assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_the_averaged_weights_are_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(compose(*SMALL, "trainer.epochs=2", "trainer.average_end=1"), tmp_path / "run")
    assert reproduce_run(tmp_path / "run", []) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "weights, averaged" in line]
    assert "agrees" in row, row
