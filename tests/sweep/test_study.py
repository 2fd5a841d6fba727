"""Sweeps through Hydra: the study is opened again in its database, and agrees with the folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from da6401.runs.run_folder import read_result
from tests.tiny_runs import SMALL, command, da6401

SWEEP = ("train", "--multirun", *SMALL, "study=s", "trainer.epochs=1")
SPACE = ("optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.dropout=choice(0.0,0.3)")


def study(folder: Path, name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/outputs/sweeps/{name}/study.db")


def test_a_sweep_leaves_its_study_its_runs_and_its_winner(tmp_path: Path) -> None:
    done = da6401(*SWEEP, *SPACE, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = study(tmp_path).trials
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    for trial in trials:
        run = folder / f"trial-{trial.number}"
        assert read_result(run).val_accuracy == trial.value
        saved = yaml.safe_load((run / "config.yaml").read_text())
        assert saved["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert saved["model"]["dropout"] == trial.params["model.dropout"]
    best = study(tmp_path).best_trial
    summary = json.loads((folder / "sweep.json").read_text())
    assert summary["best"][0]["trial"] == best.number
    assert summary["trials"]["complete"] == 4
    assert summary["epochs_run"] == 4
    assert yaml.safe_load((folder / "best.yaml").read_text())["optimizer"]["lr"] == best.params["optimizer.lr"]
    printed = f"da6401 reproduce outputs/sweeps/s/trial-{best.number}"
    assert printed in done.stdout
    again = da6401(*printed.split()[1:], cwd=tmp_path)  # the one command that retrains the winner
    assert again.returncode == 0, again.stderr
    assert "identical metrics" in again.stdout


def test_the_same_command_again_goes_on_to_the_total_with_new_points(tmp_path: Path) -> None:
    for total in (2, 4):
        done = da6401(*SWEEP, *SPACE, f"hydra.sweeper.n_trials={total}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    trials = study(tmp_path).trials
    assert len(trials) == 4
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4
    folders = sorted(path.name for path in (tmp_path / "outputs" / "sweeps" / "s").glob("trial-*"))
    assert folders == [f"trial-{number}" for number in range(4)]


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    diverging = ("optimizer=sgd", "optimizer.momentum=0.99", "schedule=constant", "model.batch_norm=false")
    done = da6401(
        *SWEEP, *diverging, "trainer.epochs=30", "optimizer.lr=choice(0.001,100)", "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_rate = {trial.params["optimizer.lr"]: trial for trial in study(tmp_path).trials}
    assert by_rate[0.001].state is TrialState.COMPLETE
    assert by_rate[100].state is TrialState.FAIL
    assert "DivergedError" in by_rate[100].user_attrs["reason"]
    failed = tmp_path / "outputs" / "sweeps" / "s" / f"trial-{by_rate[100].number}"
    assert read_result(failed).status == "diverged"


def test_a_sweep_over_both_parts_gives_each_only_its_own_keys(tmp_path: Path) -> None:
    done = da6401(
        "train", "--multirun", "sweep=both", "study=s", "model=choice(cnn,resnet18)", "model.weights=none",
        "model.filters=choice(4,8)", "model.organisation=same", "data=synthetic", "data.classes=3",
        "data.images_per_class=8", "data.image_size=32", "trainer.epochs=1", "trainer.threads=1",
        "hydra/sweeper/sampler=random", "seed=5", "hydra.sweeper.n_trials=5", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = study(tmp_path).trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    models = {trial.params["model"] for trial in trials}
    assert models == {"cnn", "resnet18"}
    for trial in trials:
        is_cnn = trial.params["model"] == "cnn"
        assert ("model.filters" in trial.params) == is_cnn
        assert ("model.freeze_depth" in trial.params) == (not is_cnn)
    assert "best cnn" in done.stdout
    assert "best resnet18" in done.stdout


@pytest.mark.parametrize("name", ["part_a", "part_b"])
def test_the_shipped_sweeps_run(tmp_path: Path, name: str) -> None:
    model = ("model=resnet18", "model.weights=none") if name == "part_b" else ("model.filters=choice(4,8)",)
    done = da6401(
        "train", "--multirun", f"sweep={name}", "study=s", *model, "data=synthetic", "data.classes=3",
        "data.images_per_class=8", "data.image_size=32", "trainer.epochs=1", "trainer.threads=1",
        "hydra.sweeper.n_trials=2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [trial.state for trial in study(tmp_path).trials] == [TrialState.COMPLETE] * 2


def test_ctrl_c_puts_the_trial_back(tmp_path: Path) -> None:
    words = [*SWEEP[:-1], "trainer.epochs=10000", *SPACE, "hydra.sweeper.n_trials=3"]
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        last = tmp_path / "outputs" / "sweeps" / "s" / "trial-0" / "checkpoints" / "last.pt"
        while not last.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert [trial.state for trial in study(tmp_path).trials] == [TrialState.WAITING]


def test_the_official_sweeper_still_works(tmp_path: Path) -> None:
    done = da6401(
        "train", "--multirun", *SMALL, "study=s", "trainer.epochs=1", *SPACE, "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = yaml.safe_load((tmp_path / "outputs" / "sweeps" / "s" / "optimization_results.yaml").read_text())
    assert results["name"] == "optuna"
    assert 0 <= results["best_value"] <= 1


def test_a_storage_that_cannot_be_opened_is_a_message(tmp_path: Path) -> None:
    done = da6401(*SWEEP, *SPACE, "hydra.sweeper.storage=sqlite:////nowhere/at/all/x.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "hydra.sweeper.storage" in done.stderr
    assert "Traceback" not in done.stderr
