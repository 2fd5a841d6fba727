"""Hydra's launchers start a sweep's workers: Ray on a real local cluster, submitit in processes of this machine."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from da6401.rundir import read_result
from tests.small import SMALL, da6401

TOTAL = 6
WORDS = (
    "train", "--multirun", *SMALL, "study=s", "trainer.epochs=10", "optimizer.lr=tag(log,interval(1e-3,1e-1))",
    f"hydra.sweeper.n_trials={TOTAL}", "hydra.sweeper.n_jobs=2",
)  # fmt: skip


def shared_by_two_workers(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the sweep, which agree with their folders and were run by both workers."""
    address = f"sqlite:///{folder}/outputs/sweeps/s/study.db"
    trials = optuna.load_study(study_name="s", storage=address).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TOTAL
    for trial in trials:
        assert read_result(folder / f"outputs/sweeps/s/trial-{trial.number}").val_accuracy == trial.value
    assert {trial.user_attrs["owner"].partition("-")[0] for trial in trials} == {"1", "2"}
    return trials


def test_two_workers_on_a_ray_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'da6401[ray]'")
    words = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=0.5")
    done = da6401(*WORDS, *words, cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    trials = shared_by_two_workers(tmp_path)
    overlaps = [
        (one.number, two.number)
        for one in trials
        for two in trials
        if one.number < two.number
        and one.datetime_start is not None
        and two.datetime_start is not None
        and one.datetime_complete is not None
        and two.datetime_start < one.datetime_complete
    ]
    assert overlaps, "the two workers took turns"


def test_two_workers_by_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'da6401[slurm]'")
    done = da6401(*WORDS, "hydra/launcher=submitit_local", cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    shared_by_two_workers(tmp_path)


def test_a_worker_that_fails_is_a_message(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'da6401[slurm]'")
    words = (
        "hydra/launcher=submitit_local", "optimizer=sgd", "optimizer.lr=100", "optimizer.momentum=0.99",
        "schedule=constant", "model.batch_norm=false", "model.dropout=choice(0.1,0.2)",
        "hydra.sweeper.max_failure_rate=0",
    )  # fmt: skip
    done = da6401(*(word for word in WORDS if "lr=" not in word), *words, cwd=tmp_path, timeout=180)
    assert done.returncode == 2, done.stderr
    assert "hydra/launcher: a worker has failed" in done.stderr
    assert "Traceback" not in done.stderr
