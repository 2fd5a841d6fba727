"""Hydra's launchers start a sweep's workers and train its confirmations.

Ray on a real local cluster, submitit and joblib in processes of this machine.
"""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from da6401.runs.run_folder import read_json, read_result, read_yaml
from tests.tiny_runs import SMALL, da6401

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


def confirmed(folder: Path, seeds: int) -> None:
    """The winner was trained again, by the launcher, and `evaluate` takes what it left."""
    sweep = folder / "outputs/sweeps/s"
    (first,) = read_json(sweep / "sweep.json")["confirmed"]
    runs = sorted((sweep / "confirm").iterdir())
    assert len(runs) == len(first["values"]) == seeds
    assert sorted(first["values"]) == sorted(read_result(run).val_accuracy or 0.0 for run in runs)
    trial = read_yaml(sweep / f"trial-{first['trial']}" / "config.yaml")
    for number, run in enumerate(runs):
        assert read_yaml(run / "config.yaml") == {**trial, "seed": 1_000_003 + number}
    done = da6401("evaluate", read_json(sweep / "sweep.json")["winner"], cwd=folder)
    assert done.returncode == 0, done.stderr


def test_two_workers_on_a_ray_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'da6401[ray]'")
    words = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=0.5")
    done = da6401(*WORDS, *words, "sweep.confirm_top=1", "sweep.confirm_seeds=1", cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    trials = shared_by_two_workers(tmp_path)
    confirmed(tmp_path, seeds=1)
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
    words = ("hydra/launcher=submitit_local", "sweep.confirm_top=1", "sweep.confirm_seeds=2")
    done = da6401(*WORDS, *words, cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    shared_by_two_workers(tmp_path)
    confirmed(tmp_path, seeds=2)


def test_a_sweep_of_ours_by_joblib(tmp_path: Path) -> None:
    """Its YAML sets keys of hydra.sweeper and an interpolation of ours, which the launcher's processes must know."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install 'da6401[joblib]'")
    words = ("sweep=part_b", "model=resnet18", "model.weights=none", "data=synthetic", "data.classes=2",
             "data.images_per_class=8", "data.image_size=32", "trainer.epochs=1", "trainer.threads=1", "study=s",
             "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=2",
             "sweep.confirm_top=1", "sweep.confirm_seeds=1")  # fmt: skip
    done = da6401("train", "--multirun", *words, cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "2 workers by hydra/launcher" in done.stdout
    confirmed(tmp_path, seeds=1)


def test_a_worker_that_fails_is_a_message(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'da6401[slurm]'")
    words = (
        "hydra/launcher=submitit_local", "optimizer=sgd", "optimizer.lr=100", "optimizer.momentum=0.99",
        "schedule=constant", "model.batch_norm=false", "model.dropout=choice(0.1,0.2)",
        "hydra.sweeper.max_failure_rate=0",
    )  # fmt: skip
    done = da6401(*(word for word in WORDS if "lr=" not in word), *words, cwd=tmp_path, timeout=180)
    assert done.returncode == 2, done.stderr
    assert "failed, more than hydra.sweeper.max_failure_rate allows: DivergedError" in done.stderr
    assert "Traceback" not in done.stderr
