"""The scheduler: pruning, resuming, limits, goals, confirmation. Sweeps run in this process, so each takes a second."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from da6401.cli import main
from da6401.config.schema import SweepConfig
from da6401.errors import PrunedError
from da6401.runs.run_folder import read_metrics, read_result
from da6401.study.objective import Objective
from da6401.sweep.trial import TrialWatcher
from tests.tiny_runs import SMALL

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def sweep(*words: str, name: str = "s", code: int = 0, epochs: int = 1) -> optuna.Study:
    """Run a sweep and open its study again."""
    ended = main(["train", "--multirun", *SMALL, f"trainer.epochs={epochs}", f"study={name}", *words])
    assert ended == code
    return open_study(name)


def open_study(name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///outputs/sweeps/{name}/study.db")


def folder(number: int, name: str = "s") -> Path:
    return Path(f"outputs/sweeps/{name}/trial-{number}")


def summary(name: str = "s") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(f"outputs/sweeps/{name}/sweep.json").read_text())
    return loaded


def test_a_trial_that_has_run_all_its_epochs_is_not_pruned_any_more() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=3))
    for accuracy in (0.9, 0.8, 0.7, 0.6):
        good = study.ask()
        good.report(accuracy, 3)
        good.should_prune()
        study.tell(good, accuracy)
    poor = study.ask()
    objective, line = Objective.of(SweepConfig()), {"val_accuracy": 0.1, "val_loss": 2.0}
    TrialWatcher(study, poor.number, objective=objective, epochs=3, owner=None).epoch_done(3, line)
    assert study.trials[poor.number].intermediate_values == {3: 0.1}
    watcher = TrialWatcher(study, poor.number, objective=objective, epochs=4, owner=None)
    with pytest.raises(PrunedError, match=r"val_accuracy 0\.1000"):
        watcher.epoch_done(3, line)


@pytest.mark.parametrize("pruner", ["median", "percentile", "successive_halving", "hyperband", "patient", "none"])
def test_pruned_trials_stop_and_say_so(pruner: str) -> None:
    own = {"median": ["hydra.sweeper.pruner.startup_trials=1"], "percentile": ["hydra.sweeper.pruner.startup_trials=1"]}
    words = [RATE, f"hydra/sweeper/pruner={pruner}", *own.get(pruner, []), "hydra.sweeper.n_trials=8"]
    study = sweep(*words, "optimizer=sgd", "schedule=constant", epochs=4)
    states = [trial.state for trial in study.trials]
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}
    if pruner in ("median", "successive_halving"):
        assert TrialState.PRUNED in states
    if pruner == "none":
        assert TrialState.PRUNED not in states
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
    study = sweep(RATE, "hydra/sweeper/pruner=median", "hydra.sweeper.n_trials=2")
    before = [(trial.state, trial.intermediate_values, trial.user_attrs) for trial in study.trials]
    assert main(["reproduce", str(folder(0))]) == 0
    assert [(t.state, t.intermediate_values, t.user_attrs) for t in open_study().trials] == before


def test_the_defaults_of_the_config_are_the_first_trial() -> None:
    study = sweep(
        RATE, "model.dropout=choice(0.0,0.5)", "model.block_dropout=interval(0.1,0.5)", "hydra.sweeper.n_trials=2"
    )
    first = study.trials[0].params
    assert first["optimizer.lr"] == 1e-3
    assert first["model.dropout"] == 0.0
    assert 0.1 <= first["model.block_dropout"] <= 0.5  # its default, 0, is outside the space


def test_a_warm_start_tries_the_best_of_another_study() -> None:
    best = sweep(RATE, "hydra.sweeper.n_trials=4", name="old").best_trial
    study = sweep(RATE, "sweep.warm_start=old", "hydra.sweeper.n_trials=3", name="new")
    assert best.params["optimizer.lr"] in [trial.params["optimizer.lr"] for trial in study.trials]


def test_a_warm_start_from_nowhere_is_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    sweep(RATE, "sweep.warm_start=nothing", "hydra.sweeper.n_trials=1", code=2)
    assert "sweep.warm_start=nothing" in capfd.readouterr().err


def test_a_changed_space_is_refused_with_the_difference(capfd: pytest.CaptureFixture[str]) -> None:
    sweep(RATE, "hydra.sweeper.n_trials=1")
    wider = "optimizer.lr=tag(log,interval(1e-5,1e-1))"
    study = sweep(wider, "hydra.sweeper.n_trials=2", code=2)
    message = capfd.readouterr().err
    assert "optimizer.lr: was float" in message
    assert "sweep.on_space_change=extend" in message
    assert len(study.trials) == 1
    assert len(sweep(wider, "sweep.on_space_change=extend", "hydra.sweeper.n_trials=2").trials) == 2


def test_failures_beyond_the_limit_stop_the_sweep(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("da6401.training.run.fit", broken)
    study = sweep(RATE, "hydra.sweeper.n_trials=8", "hydra.sweeper.max_failure_rate=0.25", code=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    assert "RuntimeError: no such luck" in study.trials[0].user_attrs["reason"]
    assert "in broken" in study.trials[0].user_attrs["traceback"]
    assert read_result(folder(0)).status == "failed"
    assert "max_failure_rate" in capfd.readouterr().err


def test_a_trial_beyond_its_time_fails_between_two_steps_and_the_sweep_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("trainer.epochs=choice(1,100000)", "hydra/sweeper/sampler=grid", "sweep.trial_minutes=0.05")
    trials = sweep(*words, "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=0").trials
    states = {trial.params["trainer.epochs"]: trial.state for trial in trials}
    assert states == {1: TrialState.COMPLETE, 100000: TrialState.FAIL}
    (late,) = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert late.user_attrs["reason"] == "TrialTimeoutError: took longer than sweep.trial_minutes=0.05"
    assert read_result(folder(late.number)).reason == "took longer than sweep.trial_minutes=0.05"
    assert read_result(folder(late.number)).epochs_run > 1
    assert "Traceback" not in capfd.readouterr().err


def test_two_goals_give_a_pareto_set() -> None:
    study = sweep(
        "model.filters=choice(2,4,8)", "hydra.sweeper.direction=[maximize,minimize]", "hydra.sweeper.n_trials=5",
        "sweep.objectives='val_accuracy,parameters'",
    )  # fmt: skip
    for trial in study.trials:
        result = read_result(folder(trial.number))
        assert trial.values == [result.val_accuracy, result.parameters]
    assert {entry["trial"] for entry in summary()["best"]} == {trial.number for trial in study.best_trials}


def test_the_winner_keeps_the_hard_limits() -> None:
    words = ("model.filters=choice(2,16)", "hydra.sweeper.n_trials=6", "sweep.max_parameters=1500")
    study = sweep(*words, epochs=2)
    sizes = {trial.number: read_result(folder(trial.number)).parameters for trial in study.trials}
    assert max(sizes.values()) > 1500
    assert sizes[summary()["best"][0]["trial"]] <= 1500


def test_latency_can_be_a_goal() -> None:
    study = sweep("model.filters=choice(2,4)", "hydra.sweeper.direction=minimize", "sweep.objectives=latency_ms",
                  "hydra.sweeper.n_trials=1")  # fmt: skip
    assert 0 < study.trials[0].values[0] < 1000


def test_only_the_best_keep_their_checkpoints() -> None:
    study = sweep(RATE, "hydra.sweeper.n_trials=5", "sweep.keep_checkpoints=2")
    kept = {trial.number for trial in study.trials if (folder(trial.number) / "checkpoints").exists()}
    assert len(kept) == 2
    assert study.best_trial.number in kept
    assert {path.name for path in folder(study.best_trial.number).glob("checkpoints/*")} >= {"best.pt"}


def test_the_best_checkpoint_stays_where_there_is_no_room() -> None:
    study = sweep(RATE, "hydra.sweeper.n_trials=3", "sweep.checkpoint_gb=1e-9")
    kept = [trial.number for trial in study.trials if (folder(trial.number) / "checkpoints").exists()]
    assert kept == [study.best_trial.number]


def test_patience_and_hours_end_a_sweep_early() -> None:
    study = sweep("seed=range(20)", "optimizer.lr=1e-9", "sweep.patience=3")
    assert 4 <= len(study.trials) < 20
    assert len(sweep(RATE, "hydra.sweeper.n_trials=5", "sweep.max_hours=1e-9", name="none").trials) <= 1


def test_the_confirmed_winner_is_ranked_by_its_mean(capfd: pytest.CaptureFixture[str]) -> None:
    words = (RATE, "hydra.sweeper.n_trials=3", "sweep.confirm_top=2", "sweep.confirm_seeds=2")
    sweep(*words)
    confirmed = summary()["confirmed"]
    assert len(confirmed) == 2
    assert confirmed[0]["mean"] >= confirmed[1]["mean"]
    for item in confirmed:
        runs = sorted(Path("outputs/sweeps/s/confirm").glob(f"trial-{item['trial']}-seed-*"))
        assert sorted(item["values"]) == sorted(read_result(run).val_accuracy or 0 for run in runs)
        assert item["mean"] == pytest.approx(sum(item["values"]) / 2)
    assert summary()["winner"] == confirmed[0]["run"]
    printed = capfd.readouterr().out
    assert "regression to the mean" in printed
    assert f"da6401 reproduce {confirmed[0]['run']}" in printed
    assert len(open_study().trials) == 3  # the confirmation is not part of the search
    assert main(["evaluate", "outputs/sweeps/s/trial-0"]) == 2
    assert f"da6401 evaluate {confirmed[0]['run']}" in capfd.readouterr().err
    assert main(["explain", "outputs/sweeps/s/trial-0", "--split", "test"]) == 2
    assert f"da6401 evaluate {confirmed[0]['run']}" in capfd.readouterr().err
    assert main(["evaluate", confirmed[0]["run"]]) == 0
    before = {run: (run / "result.json").stat().st_mtime_ns for run in Path("outputs/sweeps/s/confirm").iterdir()}
    sweep(*words)
    assert {run: (run / "result.json").stat().st_mtime_ns for run in before} == before


def test_a_choice_after_a_look_at_test_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    lost = "test accuracy is no longer an honest estimate"
    words = (RATE, "hydra.sweeper.n_trials=2")
    sweep(*words)
    assert main(["evaluate", str(folder(0))]) == 0
    assert lost not in "".join(capfd.readouterr()), "the first look is what test is for"
    assert main(["evaluate", str(folder(0))]) == 0
    assert "test split looked at once" in capfd.readouterr().out, "recorded, and not looked at again"
    assert main(["report", "outputs/sweeps/s"]) == 0
    page = Path("outputs/sweeps/s/report.html")
    assert "The test split was looked at once" in page.read_text()
    assert lost not in page.read_text()

    capfd.readouterr()
    assert main(["evaluate", str(folder(1))]) == 0
    told = capfd.readouterr().err
    assert "The test split has been looked at once for sweep s (trial-0)." in told
    assert lost in told
    assert main(["report", "outputs/sweeps/s"]) == 0
    assert "The test split has been looked at 2 times for sweep s (trial-0, trial-1)." in page.read_text()
    assert lost in page.read_text()

    capfd.readouterr()
    sweep(*words[:1], "hydra.sweeper.n_trials=3", "sweep.on_space_change=extend")
    assert "looked at 2 times for sweep s (trial-0, trial-1)." in capfd.readouterr().out
    sweep(RATE, "hydra.sweeper.n_trials=1", "sweep.warm_start=s", name="warm")
    assert "2 times for sweep s, which this one starts from" in capfd.readouterr().out
    sweep(RATE, "hydra.sweeper.n_trials=1", name="other")
    out = capfd.readouterr().out
    assert "2 times for other sweeps on the same data (s/trial-0, s/trial-1)." in out
    sweep(RATE, "hydra.sweeper.n_trials=1", "data.split_seed=5", name="unlike")
    assert lost not in capfd.readouterr().out


def test_a_sweep_that_goes_on_after_a_look_says_so_on_its_page() -> None:
    sweep(RATE, "hydra.sweeper.n_trials=1")
    assert main(["explain", str(folder(0)), "--split", "test"]) == 0
    page = Path("outputs/sweeps/s/report.html")
    assert main(["report", "outputs/sweeps/s"]) == 0
    assert "honest" not in page.read_text()
    time.sleep(1.1)  # looks have whole seconds
    sweep(RATE, "hydra.sweeper.n_trials=2")
    assert main(["report", "outputs/sweeps/s"]) == 0
    assert "The test split has been looked at once for sweep s (trial-0)." in page.read_text()
