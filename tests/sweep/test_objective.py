"""What is optimised, asked from the sampler to best.yaml: the studies are opened again, the runs read again."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from da6401.api import load_sweep
from da6401.cli import main
from da6401.config.schema import SweepConfig
from da6401.config.search_space import SearchSpace
from da6401.errors import BusyError, PrunedError, RunError
from da6401.report.collect import read_sweep
from da6401.runs.atomic_files import write_yaml
from da6401.runs.run_folder import RunResult, read_metrics, read_result, write_result
from da6401.study.objective import ATTRIBUTE, Objective
from da6401.sweep.confirm import Confirmed, confirm
from da6401.sweep.jobs import Ended, Job
from da6401.sweep.trial import earlier_end
from tests.sweep.sweeps import FOLDER, GRID, RANDOM, SWEEP, N, folder, open_study, states, summary, sweep

RATES = "optimizer.lr=choice(1e-6,1e-3,0.01,0.1)"

DONE = RunResult(
    status="completed", val_accuracy=0.5, val_loss=1.0, best_epoch=1, epochs_run=1, test_accuracy=None, test_loss=None,
    parameters=1000, macs=1, seconds=1.0, reason="",
)  # fmt: skip


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said to a sweep that does not begin."""
    capfd.readouterr()
    assert main([*SWEEP, f"{N}2", *words]) == 2
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return said.err


def result(number: int) -> RunResult:
    return read_result(FOLDER / f"trial-{number}")


def test_a_winner_without_searched_values_has_no_comma_behind_it(capfd: pytest.CaptureFixture[str]) -> None:
    study = sweep(f"{N}1")
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("winner: ")]
    assert line == f"winner: trial 0, val_accuracy {study.trials[0].value:.4f}"


def test_the_lowest_loss_wins_everywhere(capfd: pytest.CaptureFixture[str]) -> None:
    study = sweep(RATES, "sweep.objectives=val_loss", "sweep.keep_checkpoints=1", "trainer.epochs=2", f"{N}4")
    losses = {trial.number: result(trial.number).val_loss for trial in study.trials}
    assert study.direction.name == "MINIMIZE"
    assert {trial.number: trial.value for trial in study.trials} == losses
    assert len(set(losses.values())) > 1
    best = min(losses, key=lambda number: losses[number] or 0.0)
    assert study.user_attrs[ATTRIBUTE]["objectives"] == ["val_loss"]
    found = summary()
    assert [entry["trial"] for entry in found["best"]] == [best]
    assert found["winner"] == f"{FOLDER}/trial-{best}"
    assert found["objective"]["directions"] == ["minimize"]
    saved = yaml.safe_load((FOLDER / "best.yaml").read_text())
    assert saved["optimizer"]["lr"] == study.trials[best].params["optimizer.lr"]
    assert [path.parent.name for path in FOLDER.glob("trial-*/checkpoints")] == [f"trial-{best}"]
    out = capfd.readouterr().out
    assert f"winner: trial {best}, val_loss {losses[best]:.4f}" in out
    page = read_sweep(FOLDER, None)
    assert page.objective.names == ("val_loss",)
    assert [trial.number for trial in page.best] == [best]
    notebook = load_sweep(FOLDER)
    assert notebook.best.folder == FOLDER / f"trial-{best}"
    assert f"best trial-{best}, val_loss {losses[best]:.4f}" in repr(notebook)
    assert notebook._repr_html_().index(f"<th>{best}</th>") < min(
        notebook._repr_html_().index(f"<th>{number}</th>") for number in losses if number != best
    )


def test_the_pruner_sees_the_loss_and_prunes_the_poor_trials() -> None:
    words = ("optimizer.lr=choice(1e-6,1e-7,1e-8,0.01)", "sweep.objectives=val_loss", "hydra/sweeper/pruner=median")
    study = sweep(
        *words, "hydra.sweeper.direction=minimize", "hydra.sweeper.pruner.startup_trials=2", RANDOM,
        "hydra.sweeper.sampler.seed=1", "data.images_per_class=40", "trainer.epochs=4", f"{N}10",
    )  # fmt: skip
    states: dict[bool, set[TrialState]] = {True: set(), False: set()}
    for trial in study.trials:
        lines = read_metrics(folder(trial.number))
        assert trial.intermediate_values == {int(line["epoch"]): line["val_loss"] for line in lines}
        states[trial.params["optimizer.lr"] == 0.01].add(trial.state)
    assert states[True] == {TrialState.COMPLETE}
    assert TrialState.PRUNED in states[False]
    assert study.best_trial.params["optimizer.lr"] == 0.01


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sweep.objectives=[val_accuracy,parameters]", "hydra/sweeper/pruner=median"], "hydra/sweeper/pruner=none"),
        (["sweep.objectives=parameters", "hydra/sweeper/pruner=hyperband"], "hydra/sweeper/pruner=none"),
        (["sweep.objectives=[val_accuracy,parameters]", "hydra.sweeper.direction=maximize"],
         "'hydra.sweeper.direction=[maximize,minimize]'"),
        (["sweep.objectives=val_loss", "hydra.sweeper.direction=maximize"], "hydra.sweeper.direction=minimize"),
        (["hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"], "hydra.sweeper.direction=maximize"),
        (["sweep.objectives=[val_loss,macs]", "sweep.confirm_top=2"], "sweep.confirm_top=0"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_before_anything_is_there(
    words: list[str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert f"type {line}" in refused(capfd, RATES, *words)
    assert not Path("outputs").exists()


def test_only_trials_within_the_limits_are_confirmed(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    space, distribution = SearchSpace((), {}, {"model": "cnn"}), FloatDistribution(0, 1)
    for rate, accuracy, excess in ((0.1, 0.9, 5.0), (0.2, 0.6, -5.0), (0.3, 0.7, 0.0)):
        trial = create_trial(
            params={"optimizer.lr": rate}, distributions={"optimizer.lr": distribution}, value=accuracy
        )
        trial.set_constraint("parameters", excess)
        study.add_trial(trial)
    launched: list[int] = []

    def launch(jobs: Sequence[Job]) -> Sequence[Ended]:
        for job in jobs:
            launched.append(job.number)
            (tmp_path / job.folder).mkdir(parents=True)
            write_result(tmp_path / job.folder, dataclasses.replace(DONE, val_accuracy=job.number / 10))
        return [Ended() for _ in jobs]

    settings = SweepConfig(max_parameters=1000, confirm_top=2, confirm_seeds=1)
    found = confirm(study, space, tmp_path, settings, launch)
    assert sorted(launched) == [1, 2]
    assert [(item.trial, item.mean) for item in found] == [(2, 0.2), (1, 0.1)]


def winners(*accuracies: float) -> optuna.Study:
    """A study of these completed trials."""
    study = optuna.create_study(direction="maximize")
    for number, accuracy in enumerate(accuracies):
        distribution = {"optimizer.lr": FloatDistribution(0, 1)}
        study.add_trial(
            create_trial(params={"optimizer.lr": number / 10}, distributions={**distribution}, value=accuracy)
        )
    return study


def test_of_two_commands_that_confirm_one_trains_and_both_have_all_seeds(tmp_path: Path) -> None:
    space, settings = SearchSpace((), {}, {"model": "cnn"}), SweepConfig(confirm_top=1, confirm_seeds=2)
    study, launched, trains, may_end = winners(0.5, 0.9), list[str](), threading.Event(), threading.Event()

    def launch(jobs: Sequence[Job]) -> Sequence[Ended]:
        trains.set()
        may_end.wait(60)
        for job in jobs:
            launched.append(job.folder)
            (tmp_path / job.folder).mkdir(parents=True)
            write_result(tmp_path / job.folder, dataclasses.replace(DONE, val_accuracy=0.7))
        return [Ended() for _ in jobs]

    found = list[list[Confirmed]]()
    commands = [
        threading.Thread(target=lambda: found.append(confirm(study, space, tmp_path, settings, launch)))
        for _ in range(2)
    ]
    commands[0].start()
    assert trains.wait(60)
    assert confirm(study, space, tmp_path, settings, launch, seconds=0.1) == []  # it has no time to wait
    commands[1].start()
    may_end.set()
    for command in commands:
        command.join()
    assert len(launched) == len(set(launched)) == 2
    assert [[len(item.values) for item in each] for each in found] == [[2], [2]]


def test_a_retraining_that_another_machine_runs_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da6401.sweep.confirm.POLL_SECONDS", 0.01)
    space, settings, asked = (
        SearchSpace((), {}, {"model": "cnn"}),
        SweepConfig(confirm_top=1, confirm_seeds=2),
        list[int](),
    )

    def launch(jobs: Sequence[Job]) -> Sequence[Ended]:
        asked.append(len(jobs))
        done, busy = (jobs, []) if len(asked) == 3 else (jobs[:-1], jobs[-1:])
        for job in done:
            (tmp_path / job.folder).mkdir(parents=True)
            write_result(tmp_path / job.folder, dataclasses.replace(DONE, val_accuracy=0.7))
        return [*(Ended() for _ in done), *(Ended(error=BusyError("busy")) for _ in busy)]

    (found,) = confirm(winners(0.9), space, tmp_path, settings, launch)
    assert asked == [2, 1, 1]
    assert len(found.values) == 2


def test_two_objectives_follow_their_directions_within_the_limits() -> None:
    study = sweep(
        "model.filters=choice(2,4,8,16)", "sweep.objectives='val_accuracy,parameters'", "sweep.max_parameters=1500",
        "hydra.sweeper.direction=[maximize,minimize]",
        RANDOM, "hydra.sweeper.sampler.seed=3", f"{N}6",
    )  # fmt: skip
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert set(states()) == {"COMPLETE"}
    inside = []
    for trial in study.trials:
        run = result(trial.number)
        assert trial.values == [run.val_accuracy, run.parameters]
        assert trial.constraints == {"parameters": run.parameters - 1500}
        if run.parameters <= 1500:
            inside.append(trial)
    assert 0 < len(inside) < len(study.trials)
    front = {
        one.number for one in inside
        if not any(
            other.values != one.values and other.values[0] >= one.values[0] and other.values[1] <= one.values[1]
            for other in inside
        )
    }  # fmt: skip
    assert {entry["trial"] for entry in summary()["best"]} == front
    assert {trial.number for trial in read_sweep(FOLDER, None).best} == front
    frame = load_sweep(FOLDER).trials()
    assert frame["parameters"].tolist() == [result(number).parameters for number in frame.index]
    assert frame["val_accuracy"].tolist() == [result(number).val_accuracy for number in frame.index]


@pytest.mark.parametrize(("objective", "best"), [("val_accuracy", max), ("val_loss", min)])
def test_the_official_sweeper_follows_the_objective(objective: str, best: Any) -> None:
    words = ["hydra/sweeper=optuna", GRID, f"sweep.objectives={objective}"]
    learns = ["optimizer.lr=choice(1e-7,0.01)", "data.images_per_class=40", "trainer.epochs=3"]
    assert main([*SWEEP, *words, *learns]) == 0
    found = yaml.safe_load((FOLDER / "optimization_results.yaml").read_text())
    values = [getattr(result(number), objective) for number in range(2)]
    assert len(set(values)) > 1
    assert (found["name"], found["best_value"]) == ("optuna", best(values))


def test_the_official_sweeper_takes_several_objectives() -> None:
    words = ["hydra/sweeper=optuna", RANDOM, "sweep.objectives=[val_accuracy,parameters]"]
    space = "model.filters=choice(2,4)"
    assert main([*SWEEP, *words, space, f"{N}2"]) == 0
    found = yaml.safe_load((FOLDER / "optimization_results.yaml").read_text())
    assert {solution["values"][1] for solution in found["solutions"]} <= {float(result(n).parameters) for n in (0, 1)}


def test_a_sweep_over_seeds_names_its_winner_by_the_mean(capfd: pytest.CaptureFixture[str]) -> None:
    study = sweep("model.filters=choice(2,4,8)", "seed=choice(0,1,2)", GRID, f"{N}9")
    groups: dict[int, dict[int, float]] = {}
    for trial in study.trials:
        groups.setdefault(trial.params["model.filters"], {})[trial.number] = result(trial.number).val_accuracy or 0.0
    assert sorted(map(len, groups.values())) == [3, 3, 3]
    means = {filters: statistics.fmean(values.values()) for filters, values in groups.items()}
    (entry,) = summary()["best"]
    chosen = groups[entry["params"]["model.filters"]]
    assert entry["mean"] == max(means.values())
    assert sorted(entry["seeds"]) == sorted(chosen)
    assert entry["value"] == statistics.median(chosen.values())
    saved = yaml.safe_load((FOLDER / "best.yaml").read_text())
    assert saved == yaml.safe_load((FOLDER / f"trial-{entry['trial']}" / "config.yaml").read_text())
    out = capfd.readouterr().out
    said = f"winner: trial {entry['trial']}, the median of 3 seeds, by their mean, val_accuracy {entry['mean']:.4f}"
    assert said in out
    assert all((FOLDER / f"trial-{number}" / "checkpoints" / "best.pt").exists() for number in chosen)


@pytest.mark.parametrize("objective", ["val_loss", "latency_ms", "[val_accuracy,macs]"])
def test_a_finished_run_whose_worker_died_is_told_its_objective(objective: str) -> None:
    words = ("optimizer.lr=choice(0.01)", f"sweep.objectives={objective}")
    before = sweep(*words, f"{N}1").trials[0]
    written = (FOLDER / "trial-0" / "result.json").stat().st_mtime_ns
    (FOLDER / "study.db").unlink()
    (after,) = sweep(*words, f"{N}1").trials
    assert after.state is TrialState.COMPLETE
    assert (FOLDER / "trial-0" / "result.json").stat().st_mtime_ns == written
    if objective == "latency_ms":
        assert after.value is not None
        assert 0 < after.value < 1000
    else:
        assert after.values == before.values


def test_a_latency_that_can_no_longer_be_measured_is_said() -> None:
    words = ("optimizer.lr=choice(0.01)", "sweep.objectives=latency_ms")
    sweep(*words, f"{N}1")
    (FOLDER / "study.db").unlink()
    shutil.rmtree(FOLDER / "trial-0" / "checkpoints")
    (trial,) = sweep(*words, f"{N}1", code=1).trials
    assert trial.state is TrialState.FAIL
    assert "latency_ms cannot be measured" in trial.user_attrs["reason"]
    assert "holds a run already" not in trial.user_attrs["reason"]


@pytest.mark.parametrize(
    ("status", "saved", "outcome"),
    [
        ("completed", "val_accuracy", (0.75,)),  # whoever ran it: its losses are there
        ("pruned", "val_loss", PrunedError),
        ("pruned", "val_accuracy", RunError),  # another objective's end
        ("diverged", "val_accuracy", RunError),
        ("interrupted", "val_loss", None),
    ],
)
def test_what_a_finished_folder_tells_of_the_loss(status: Any, saved: str, outcome: Any, tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", {"sweep": {"objectives": saved}})
    write_result(tmp_path, dataclasses.replace(DONE, status=status, val_loss=0.75))
    ended = earlier_end(tmp_path, Objective.of(SweepConfig(objectives=["val_loss"])))
    told = None if ended is None else ended.error or ended.value
    assert told == outcome if not isinstance(outcome, type) else type(told) is outcome
    if status == "pruned" and saved == "val_accuracy":
        assert "pruned for its val_accuracy, and this study optimises val_loss" in str(told)


def test_a_study_goes_on_with_its_own_objective_alone(capfd: pytest.CaptureFixture[str]) -> None:
    sweep(RATES, "sweep.objectives=val_loss", f"{N}1")
    assert "the study s optimises val_loss" in refused(
        capfd, RATES, "sweep.objectives=macs", "sweep.on_space_change=extend"
    )
    assert "the study s has minimize" in refused(capfd, RATES, "sweep.on_space_change=extend")
    limited = refused(
        capfd, RATES, "sweep.objectives=val_loss", "sweep.max_parameters=9", "sweep.on_space_change=extend"
    )
    assert "sweep.max_parameters=9: the study s has judged its trials by sweep.max_parameters=0" in limited
    assert len(open_study().trials) == 1


def test_a_study_without_trials_binds_nobody() -> None:
    FOLDER.mkdir(parents=True)
    optuna.create_study(study_name="s", storage=f"sqlite:///{FOLDER}/study.db", direction="maximize")
    study = sweep(RATES, "sweep.objectives=val_loss", f"{N}1")
    assert (study.direction.name, len(study.trials)) == ("MINIMIZE", 1)


def test_a_study_of_an_older_version_goes_on() -> None:
    FOLDER.mkdir(parents=True)
    old = optuna.create_study(study_name="s", storage=f"sqlite:///{FOLDER}/study.db", direction="maximize")
    old.add_trial(create_trial(value=0.25, intermediate_values={1: 0.25}))
    assert Objective.of_study(old.user_attrs, ["maximize"]).names == ("val_accuracy",)
    study = sweep(RATES, f"{N}2")
    assert states() == ["COMPLETE"] * 2
    assert study.user_attrs[ATTRIBUTE]["objectives"] == ["val_accuracy"]


def test_a_study_of_an_older_version_keeps_the_objective_that_was_typed(capfd: pytest.CaptureFixture[str]) -> None:
    FOLDER.mkdir(parents=True)
    old = optuna.create_study(study_name="s", storage=f"sqlite:///{FOLDER}/study.db", direction="minimize")
    old.set_user_attr("space", {"sweep.objectives (fixed)": "macs"})
    old.add_trial(create_trial(value=1000.0))
    assert "the study s optimises macs" in refused(
        capfd, RATES, "sweep.objectives=parameters", "sweep.on_space_change=extend"
    )


def test_a_loss_that_an_older_version_pruned_by_accuracy_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    FOLDER.mkdir(parents=True)
    old = optuna.create_study(study_name="s", storage=f"sqlite:///{FOLDER}/study.db", direction="minimize")
    old.add_trial(create_trial(value=1.5, intermediate_values={1: 0.25}))
    assert "its pruner used the accuracy" in refused(capfd, RATES, "sweep.objectives=val_loss")


def test_a_warm_start_takes_the_lowest_losses() -> None:
    first = sweep(RATES, "sweep.objectives=val_loss", "trainer.epochs=2", RANDOM, f"{N}5")
    rates = [t.params["optimizer.lr"] for t in sorted(first.trials, key=lambda t: (t.value or 0.0, t.number))][:3]
    sweep(RATES, "sweep.objectives=val_loss", "sweep.warm_start=s", "study=new", RANDOM, f"{N}4")
    given = [trial.system_attrs.get("fixed_params", {}).get("optimizer.lr") for trial in open_study("new").trials]
    assert {rate for rate in given if rate is not None} == {1e-3, *rates}
