"""Which trials keep their checkpoints, and workers that clear away together."""

from __future__ import annotations

import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from da6401.config.schema import SweepConfig
from da6401.study.roles import CANDIDATE
from da6401.sweep.checkpoint_retention import Checkpoints

TRIALS = 40


def study_of(folder: Path) -> optuna.Study:
    """A study of completed trials, the last the best, each with two files of checkpoints."""
    study = optuna.create_study(direction="maximize")
    for number in range(TRIALS):
        study.add_trial(create_trial(value=float(number)))
        checkpoints = folder / f"trial-{number}" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for name in ("best.pt", "last.pt"):
            (checkpoints / name).write_bytes(b"0" * 1000)
    return study


def prune_together(study: optuna.Study, workers: list[Checkpoints]) -> list[Exception]:
    """Let all workers prune at the same moment; what they raised."""
    trials, together, errors = study.get_trials(), threading.Barrier(len(workers)), list[Exception]()

    def prune(checkpoints: Checkpoints) -> None:
        together.wait()
        try:
            checkpoints.prune(trials)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=prune, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_workers_that_prune_at_once_leave_the_same_checkpoints_and_no_error(tmp_path: Path) -> None:
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        study = study_of(folder)
        workers = [Checkpoints(folder, SweepConfig(keep_checkpoints=3)) for _ in range(2)]
        assert prune_together(study, workers) == []
        left = {path.parent.name for path in folder.glob("trial-*/checkpoints")}
        assert left == {f"trial-{number}" for number in range(TRIALS - 3, TRIALS)}
        assert workers[0].deleted == workers[1].deleted == set(range(TRIALS - 3))


@pytest.mark.parametrize(("gb", "kept"), [(7e-6, 3), (1e-9, 1)])  # 2,000 bytes each; the best stays without room
def test_the_room_counts_what_is_there(gb: float, kept: int, tmp_path: Path) -> None:
    study = study_of(tmp_path)
    Checkpoints(tmp_path, SweepConfig(keep_checkpoints=100, checkpoint_gb=gb)).prune(study.get_trials())
    left = {path.parent.name for path in tmp_path.glob("trial-*/checkpoints")}
    assert left == {f"trial-{number}" for number in range(TRIALS - kept, TRIALS)}


def test_a_race_keeps_those_of_the_candidates_that_its_model_may_be_made_of(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    for number, (value, candidate) in enumerate([(0.9, 1), (0.8, 1), (0.7, 0), (0.6, 0), (0.5, 2), (0.4, 3)]):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={CANDIDATE: candidate}))
        (tmp_path / f"trial-{number}/checkpoints").mkdir(parents=True)
    Checkpoints(tmp_path, SweepConfig(strategy="race", members=3, keep_checkpoints=1)).prune(study.get_trials())
    assert [number for number in range(6) if (tmp_path / f"trial-{number}/checkpoints").is_dir()] == [0, 2, 4]
