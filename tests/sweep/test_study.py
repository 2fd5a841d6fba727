"""Sweeps through Hydra: the study is opened again in its database, and agrees with the folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from da6401.cli import main
from da6401.runs.run_folder import read_result
from tests.image_trees import image_tree
from tests.outcomes import stop_at
from tests.sweep.sweeps import (
    DIVERGES,
    FOLDER,
    GRID,
    RANDOM,
    RATE,
    SWEEP,
    N,
    folder,
    open_study,
    states,
    summary,
    sweep,
    trials,
)
from tests.tiny_runs import SMALL, da6401

SPACE = (RATE, "model.dropout=choice(0.0,0.3)")


def test_a_sweep_leaves_its_study_its_runs_and_its_winner(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = da6401(*SWEEP, *SPACE, f"{N}4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert states() == ["COMPLETE"] * 4
    for trial in trials():
        run = FOLDER / f"trial-{trial.number}"
        assert read_result(run).val_accuracy == trial.value
        saved = yaml.safe_load((run / "config.yaml").read_text())
        assert saved["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert saved["model"]["dropout"] == trial.params["model.dropout"]
    best = open_study().best_trial
    assert open_study().user_attrs["space"]["optimizer.lr"]["attributes"]["log"] is True
    assert summary()["best"][0]["trial"] == best.number
    assert summary()["trials"]["complete"] == 4
    assert summary()["epochs_run"] == 4
    assert yaml.safe_load((FOLDER / "best.yaml").read_text())["optimizer"]["lr"] == best.params["optimizer.lr"]
    printed = f"da6401 reproduce outputs/sweeps/s/trial-{best.number}"
    assert printed in done.stdout
    assert main(printed.split()[1:]) == 0  # the one command that retrains the winner
    assert "identical metrics" in capfd.readouterr().out


def test_the_same_command_again_goes_on_to_the_total_with_new_points() -> None:
    for total in (2, 4):
        sweep(*SPACE, f"{N}{total}")
    assert len({trial.params["optimizer.lr"] for trial in trials()}) == len(trials()) == 4
    assert sorted(path.name for path in FOLDER.glob("trial-*")) == [f"trial-{number}" for number in range(4)]


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on() -> None:
    assert main([*DIVERGES, "optimizer.lr=choice(0.001,100)", GRID]) == 0
    fine, failed = trials()
    assert (fine.params["optimizer.lr"], fine.state) == (0.001, TrialState.COMPLETE)
    assert (failed.params["optimizer.lr"], failed.state) == (100, TrialState.FAIL)
    assert "DivergedError" in failed.user_attrs["reason"]
    assert read_result(FOLDER / f"trial-{failed.number}").status == "diverged"


def test_a_sweep_over_both_parts_gives_each_only_its_own_keys(
    tiny_resnet18: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    own = ("model=choice(cnn,resnet18)", "model.filters=choice(4,8)", "model.organisation=same", "seed=5")
    assert main(["train", "--multirun", "sweep=both", "study=s", *tiny_resnet18, *own, RANDOM, f"{N}5"]) == 0
    assert states() == ["COMPLETE"] * 5
    assert {trial.params["model"] for trial in trials()} == {"cnn", "resnet18"}
    for trial in trials():
        is_cnn = trial.params["model"] == "cnn"
        assert ("model.filters" in trial.params) == is_cnn
        assert ("model.freeze_depth" in trial.params) == (not is_cnn)
    out = capfd.readouterr().out
    assert "best cnn" in out
    assert "best resnet18" in out


@pytest.mark.parametrize(
    "words", [("sweep=part_a", "model.filters=choice(4,8)"), ("sweep=part_b", "model=resnet18")], ids="ab"
)
def test_the_shipped_sweeps_run(words: tuple[str, ...], tiny_resnet18: tuple[str, ...]) -> None:
    small = [word for word in tiny_resnet18 if words[1] == "model=resnet18" or "model." not in word]
    assert main(["train", "--multirun", *words, "study=s", *small, f"{N}2"]) == 0
    assert states() == ["COMPLETE"] * 2


def test_images_that_changed_during_a_study_are_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = image_tree(Path("data"), splits=["."], names=[f"{number}.png" for number in range(6)])
    words = ["train", "--multirun", *(word for word in SMALL if not word.startswith("data")), "study=s", "data=folder",
             "data.image_size=16", f"data.root={root}", "data.val_fraction=0.4", "trainer.epochs=4", RATE]  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at(3, patch)  # in the first trial
        assert main([*words, f"{N}2"]) == 143
    kept = {path: path.read_bytes() for path in folder(0).rglob("*.pt")}
    assert kept
    assert main([*words, f"{N}2"]) == 0
    told = "The images changed between these trials"
    assert told not in capfd.readouterr().out
    for label in ("cat", "dog"):
        shutil.copy(root / label / "0.png", root / label / "6.png")
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert main([*words, f"{N}4"]) == 143
    shutil.copy(root / "cat" / "0.png", root / "cat" / "7.png")
    last = folder(2) / "checkpoints" / "last.pt"
    before = last.read_bytes()
    assert main([*words, f"{N}4"]) == 0
    assert last.read_bytes() == before
    assert states() == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert "the data has changed since this run began" in trials()[2].user_attrs["reason"]
    out = capfd.readouterr().out
    assert told in out
    assert ": trial 0, 1\n" in out
