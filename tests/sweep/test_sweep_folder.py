"""A run folder counts as a trial's only if it has the trial's configuration; another's is kept, and in nobody's way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from da6401.cli import main
from da6401.errors import BusyError
from da6401.runs.atomic_files import write_yaml
from da6401.runs.run_folder import CONFIG, LOCK, RESULT, holds_run, read_result, read_yaml
from da6401.sweep.sweep_folder import move_other_run
from tests.forked import begun
from tests.sweep.sweeps import FOLDER, SWEEP, states, trials, wait_until


def rate(run: Path) -> Any:
    return read_yaml(run / CONFIG)["optimizer"]["lr"]


def test_runs_of_a_study_that_is_gone_are_not_this_ones(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "optimizer.lr=1e-6,1e-5"]) == 0
    before = {number: (FOLDER / f"trial-{number}" / RESULT).read_bytes() for number in (0, 1)}
    (FOLDER / "study.db").unlink()
    assert main([*SWEEP, "optimizer.lr=0.01,1e-5"]) == 0
    first, second = trials()
    assert rate(FOLDER / "trial-0") == first.params["optimizer.lr"] == 0.01
    assert read_result(FOLDER / "trial-0").val_accuracy == first.value
    assert "optimizer.lr: was 1e-06, is 0.01" in capfd.readouterr().out
    assert (FOLDER / "earlier" / "trial-0" / RESULT).read_bytes() == before[0]
    assert (FOLDER / "trial-1" / RESULT).read_bytes() == before[1], "the same configuration is not trained again"
    assert second.value == read_result(FOLDER / "trial-1").val_accuracy
    assert not (FOLDER / "earlier" / "trial-1").exists()


def test_two_studies_do_not_share_a_folder(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "optimizer.lr=choice(1e-6)", "hydra.sweeper.study_name=a"]) == 0
    assert main([*SWEEP, "optimizer.lr=choice(0.01)", "hydra.sweeper.study_name=b"]) == 2
    message = capfd.readouterr().err
    assert "holds the trials of the study a" in message
    assert "study=b" in message
    assert rate(FOLDER / "trial-0") == 1e-6
    (FOLDER / ".study").unlink()  # as an older version leaves it
    assert main([*SWEEP, "optimizer.lr=choice(0.01)", "hydra.sweeper.study_name=b"]) == 2
    assert main([*SWEEP, "optimizer.lr=choice(1e-6)", "hydra.sweeper.study_name=a"]) == 0
    (trial,) = optuna.load_study(study_name="a", storage=f"sqlite:///{FOLDER}/study.db").trials
    assert trial.state is TrialState.COMPLETE


def test_a_killed_trial_is_trained_anew_where_its_configuration_has_changed(capfd: pytest.CaptureFixture[str]) -> None:
    words = (*SWEEP, "optimizer.lr=choice(0.1,0.2)", "hydra.sweeper.n_trials=1")
    with begun([*words, "trainer.epochs=100000"], cwd=Path.cwd()):  # killed when the block ends
        wait_until((FOLDER / "trial-0" / "checkpoints" / "last.pt").exists)
    assert states() == ["RUNNING"]
    assert main([*words, "sweep.on_space_change=extend", "trainer.epochs=2", "trainer.threads=2"]) == 0
    (trial,) = trials()
    assert trial.state is TrialState.COMPLETE
    assert read_result(FOLDER / "trial-0").epochs_run == 2
    assert "trainer.epochs: was 100000, is 2" in capfd.readouterr().out
    assert read_yaml(FOLDER / "earlier" / "trial-0" / CONFIG)["trainer"]["epochs"] == 100000


CASES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "the same": (lambda run: None, True),
    "other words for the same": (lambda run: write_yaml(run / CONFIG, {"seed": 0, "device": "cuda"}), True),
    "another seed": (lambda run: write_yaml(run / CONFIG, {"seed": 1, "device": "cpu"}), False),
    "no config": (lambda run: (run / CONFIG).unlink(), False),
    "a damaged config": (lambda run: (run / CONFIG).write_text("]"), False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_room(case: str, tmp_path: Path) -> None:
    spoil, stays = CASES[case]
    for _ in range(2):
        run = tmp_path / "trial-0"
        run.mkdir(exist_ok=True)
        write_yaml(run / CONFIG, {"seed": 0, "device": "cpu"})
        (run / "metrics.jsonl").touch()
        spoil(run)
        move_other_run(run, {"seed": 0, "device": "cpu"}, sweep=tmp_path)
        assert holds_run(run) is stays
    kept = sorted(path.name for path in tmp_path.glob("earlier/*"))
    assert kept == ([] if stays else ["trial-0", "trial-0-2"])


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "trial-0"
    run.mkdir()
    write_yaml(run / CONFIG, {"seed": 1})
    with FileLock(run / LOCK), pytest.raises(BusyError):
        move_other_run(run, {"seed": 0}, sweep=tmp_path)
    assert holds_run(run)
