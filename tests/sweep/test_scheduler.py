"""The scheduler: pruning, resuming, limits, goals, confirmation. Sweeps run in this process, so each takes a second."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from da6401.cli import main
from da6401.config.schema import SweepConfig
from da6401.errors import PrunedError
from da6401.runs.run_folder import read_metrics, read_result
from da6401.study.objective import Objective
from da6401.study.trial_store import TrialStore
from da6401.sweep.trial import TrialWatcher
from tests.sweep.sweeps import FOLDER, GRID, RATE, SWEEP, N, folder, open_study, states, summary, sweep

pytestmark = pytest.mark.integration


def test_a_trial_that_has_run_all_its_epochs_is_not_pruned_any_more() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=3))
    for accuracy in (0.9, 0.8, 0.7, 0.6):
        good = study.ask()
        good.report(accuracy, 3)
        good.should_prune()
        study.tell(good, accuracy)
    poor = study.ask()
    objective, line = Objective.of(SweepConfig()), {"val_accuracy": 0.1, "val_loss": 2.0}
    TrialWatcher(study, TrialStore(study), poor._trial_id, objective=objective, steps=3, owner=None).epoch_done(3, line)
    assert study.trials[poor.number].intermediate_values == {3: 0.1}
    watcher = TrialWatcher(study, TrialStore(study), poor._trial_id, objective=objective, steps=4, owner=None)
    with pytest.raises(PrunedError, match=r"val_accuracy 0\.1000"):
        watcher.epoch_done(3, line)


@pytest.mark.parametrize("pruner", ["median", "percentile", "successive_halving", "hyperband", "patient", "none"])
def test_pruned_trials_stop_and_say_so(pruner: str) -> None:
    prunes = pruner in ("median", "successive_halving")
    own = ["hydra.sweeper.pruner.startup_trials=1"] if pruner in ("median", "percentile") else []
    words = [RATE, f"hydra/sweeper/pruner={pruner}", *own, f"{N}{8 if prunes else 4}", "trainer.epochs=4"]
    study = sweep(*words, "optimizer=sgd", "schedule=constant")
    assert set(states()) <= {"COMPLETE", "PRUNED"}
    if prunes:
        assert "PRUNED" in states()
    if pruner == "none":
        assert "PRUNED" not in states()
    for trial in study.trials:
        result = read_result(folder(trial.number))
        lines = read_metrics(folder(trial.number))
        assert result.status == ("pruned" if trial.state is TrialState.PRUNED else "completed")
        assert trial.intermediate_values == {int(line["epoch"]): line["val_accuracy"] for line in lines}
        assert len(lines) == result.epochs_run
        if trial.state is TrialState.PRUNED:
            assert result.epochs_run < 4
    assert summary()["epochs_run"] == sum(len(trial.intermediate_values) for trial in study.trials)


def test_reproducing_a_trial_does_not_touch_its_study() -> None:
    study = sweep(RATE, "hydra/sweeper/pruner=median", f"{N}2")
    before = [(trial.state, trial.intermediate_values, trial.user_attrs) for trial in study.trials]
    assert main(["reproduce", str(folder(0))]) == 0
    assert [(t.state, t.intermediate_values, t.user_attrs) for t in open_study().trials] == before


def test_the_defaults_of_the_config_are_the_first_trial() -> None:
    study = sweep(RATE, "model.dropout=choice(0.0,0.5)", "model.block_dropout=interval(0.1,0.5)", f"{N}2")
    first = study.trials[0].params
    assert first["optimizer.lr"] == 1e-3
    assert first["model.dropout"] == 0.0
    assert 0.1 <= first["model.block_dropout"] <= 0.5  # its default, 0, is outside the space


def test_a_warm_start_from_nowhere_is_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, RATE, "sweep.warm_start=nothing", f"{N}1"]) == 2  # and leaves no study
    assert "sweep.warm_start=nothing" in capfd.readouterr().err


def test_failures_beyond_the_limit_stop_the_sweep(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("da6401.training.run.fit", broken)
    study = sweep(RATE, f"{N}8", "hydra.sweeper.max_failure_rate=0.25", code=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    assert "RuntimeError: no such luck" in study.trials[0].user_attrs["reason"]
    assert "in broken" in study.trials[0].user_attrs["traceback"]
    assert read_result(folder(0)).status == "failed"
    assert "max_failure_rate" in capfd.readouterr().err


def test_a_trial_beyond_its_time_fails_between_two_steps_and_the_sweep_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = sweep("trainer.epochs=choice(1,100000)", GRID, "sweep.trial_minutes=0.02")
    assert [trial.params["trainer.epochs"] for trial in study.trials] == [1, 100000]
    assert states() == ["COMPLETE", "FAIL"]
    assert study.trials[1].user_attrs["reason"] == "TrialTimeoutError: took longer than sweep.trial_minutes=0.02"
    assert read_result(folder(1)).reason == "took longer than sweep.trial_minutes=0.02"
    assert read_result(folder(1)).epochs_run > 1
    assert "Traceback" not in capfd.readouterr().err


def test_patience_and_hours_end_a_sweep_early() -> None:
    study = sweep("seed=range(20)", "optimizer.lr=1e-9", "sweep.patience=3")
    assert 4 <= len(study.trials) < 20
    assert len(sweep(RATE, f"{N}5", "sweep.max_hours=1e-9", name="none").trials) <= 1


def test_the_confirmed_winner_has_the_lowest_mean_of_the_loss(capfd: pytest.CaptureFixture[str]) -> None:
    words = (RATE, f"{N}3", "sweep.objectives=val_loss", "sweep.confirm_top=2", "sweep.confirm_seeds=2")
    ranked = sorted(sweep(*words).trials, key=lambda trial: (trial.value or 0.0, trial.number))
    confirmed = summary()["confirmed"]
    assert {item["trial"] for item in confirmed} == {trial.number for trial in ranked[:2]}
    assert confirmed[0]["mean"] <= confirmed[1]["mean"]
    for item in confirmed:
        runs = sorted((FOLDER / "confirm").glob(f"trial-{item['trial']}-seed-*"))
        losses = [read_result(run).val_loss or 0.0 for run in runs]
        assert sorted(item["values"]) == sorted(losses)
        assert read_result(Path(item["run"])).val_loss == min(losses)  # of two the better one
        assert item["mean"] == pytest.approx(sum(item["values"]) / 2)
    assert summary()["winner"] == confirmed[0]["run"]
    printed = capfd.readouterr().out
    assert "regression to the mean" in printed
    assert f"winner, confirmed: trial {confirmed[0]['trial']}, val_loss {confirmed[0]['mean']:.4f}" in printed
    assert f"da6401 reproduce {confirmed[0]['run']}" in printed
    assert len(open_study().trials) == 3  # the confirmation is not part of the search
    assert main(["evaluate", str(folder(0))]) == 2
    assert f"da6401 evaluate {confirmed[0]['run']}" in capfd.readouterr().err
    assert main(["explain", str(folder(0)), "--split", "test"]) == 2
    assert f"da6401 evaluate {confirmed[0]['run']}" in capfd.readouterr().err
    assert main(["evaluate", confirmed[0]["run"]]) == 0
    before = {run: (run / "result.json").stat().st_mtime_ns for run in (FOLDER / "confirm").iterdir()}
    sweep(*words)
    assert {run: (run / "result.json").stat().st_mtime_ns for run in before} == before


def test_a_choice_after_a_look_at_test_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    lost = "test accuracy is no longer an honest estimate"
    words = (RATE, f"{N}2")
    sweep(*words)
    assert main(["evaluate", str(folder(0))]) == 0
    assert lost not in "".join(capfd.readouterr()), "the first look is what test is for"
    assert main(["evaluate", str(folder(0))]) == 0
    assert "test split looked at once" in capfd.readouterr().out, "recorded, and not looked at again"
    assert main(["report", str(FOLDER)]) == 0
    page = FOLDER / "report.html"
    assert "The test split was looked at once" in page.read_text()
    assert lost not in page.read_text()

    capfd.readouterr()
    assert main(["evaluate", str(folder(1))]) == 0
    told = capfd.readouterr().err
    assert "The test split has been looked at once for sweep s (trial-0)." in told
    assert lost in told
    assert main(["report", str(FOLDER)]) == 0
    assert "The test split has been looked at 2 times for sweep s (trial-0, trial-1)." in page.read_text()
    assert lost in page.read_text()

    capfd.readouterr()
    sweep(*words[:1], f"{N}3", "sweep.on_space_change=extend")
    assert "looked at 2 times for sweep s (trial-0, trial-1)." in capfd.readouterr().out
    sweep(RATE, f"{N}1", "sweep.warm_start=s", name="warm")
    assert "2 times for sweep s, which this one starts from" in capfd.readouterr().out
    sweep(RATE, f"{N}1", name="other")
    out = capfd.readouterr().out
    assert "2 times for other sweeps on the same data (s/trial-0, s/trial-1)." in out
    sweep(RATE, f"{N}1", "data.split_seed=5", name="unlike")
    assert lost not in capfd.readouterr().out


def test_a_sweep_that_goes_on_after_a_look_says_so_on_its_page() -> None:
    sweep(RATE, f"{N}1")
    assert main(["explain", str(folder(0)), "--split", "test"]) == 0
    page = FOLDER / "report.html"
    assert main(["report", str(FOLDER)]) == 0
    assert "honest" not in page.read_text()
    time.sleep(1.1)  # looks have whole seconds
    sweep(RATE, f"{N}2")
    assert main(["report", str(FOLDER)]) == 0
    assert "The test split has been looked at once for sweep s (trial-0)." in page.read_text()
