"""Trials whose folders the user names (hydra.sweep.subdir): Hydra makes them there, and everyone finds them there."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from da6401 import load_sweep
from da6401.cli import main
from da6401.report.collect import read_sweep
from da6401.runs.run_folder import CONFIG, RESULT, read_json, read_result, read_yaml
from da6401.runs.trial_folders import FOLDER, trial_folder
from da6401.sweep.curve import read_points
from da6401.sweep.leases import OWNER
from tests.sweep.sweeps import FOLDER as FOLDER_OF_S
from tests.sweep.sweeps import SWEEP, open_study, states, trials
from tests.tiny_runs import SMALL


def agrees(names: list[str]) -> None:
    """Each trial's run is in its folder, and whoever asks for it is told so."""
    folders = [trial_folder(FOLDER_OF_S, trial).relative_to(FOLDER_OF_S).as_posix() for trial in trials()]
    assert folders == names
    for trial in trials():
        run = trial_folder(FOLDER_OF_S, trial)
        assert trial.state is TrialState.COMPLETE
        assert read_result(run).val_accuracy == trial.value
        assert read_yaml(run / CONFIG)["optimizer"]["lr"] == trial.params["optimizer.lr"]
    sweep = load_sweep(FOLDER_OF_S)
    assert sweep.trials()["folder"].tolist() == [str(FOLDER_OF_S / name) for name in names]
    assert sorted(str(run.folder) for run in sweep.runs()) == sorted(str(FOLDER_OF_S / name) for name in names)
    page = read_sweep(FOLDER_OF_S, None)
    assert [trial.run.folder for trial in page.trials] == [FOLDER_OF_S / name for name in names]
    assert all(trial.run.result is not None for trial in page.trials)
    assert sum(len(point.results) for point in read_points(FOLDER_OF_S, "optimizer.lr")) == len(names)


def test_a_folder_named_by_values_and_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    words = (*SWEEP, "optimizer.lr=0.1,0.01", "hydra.sweep.subdir=lr=${optimizer.lr}/${hydra.job.num}")
    more = ("sweep.confirm_top=1", "sweep.confirm_seeds=1", "sweep.keep_checkpoints=1", "sweep.plot_by=optimizer.lr")
    assert main([*words, *more]) == 0
    agrees(["lr=0.1/0", "lr=0.01/1"])
    best = open_study().best_trial
    summary = read_json(FOLDER_OF_S / "sweep.json")
    assert summary["best"][0]["run"] == str(trial_folder(FOLDER_OF_S, best))
    assert summary["epochs_run"] == 2
    (confirmed,) = (FOLDER_OF_S / "confirm").iterdir()
    assert summary["winner"] == str(confirmed)
    assert load_sweep(FOLDER_OF_S).best.folder == confirmed
    kept = [trial.number for trial in trials() if (trial_folder(FOLDER_OF_S, trial) / "checkpoints").is_dir()]
    assert kept == [best.number]
    assert main(["evaluate", str(trial_folder(FOLDER_OF_S, best))]) == 2
    assert f"only the confirmed winner of s is evaluated on test: da6401 evaluate {confirmed}" in capfd.readouterr().err
    assert main(["evaluate", str(confirmed)]) == 0
    (deleted,) = (trial_folder(FOLDER_OF_S, trial) for trial in trials() if trial.number != best.number)
    for verb, *images in (["predict", "a.png"], ["evaluate"], ["explain"]):
        assert main([verb, str(deleted), *images]) == 2
        told = capfd.readouterr().err
        assert (
            f"{deleted}/checkpoints/best.pt: was deleted: a sweep keeps the checkpoints of its best trial (sweep."
            in told
        )
        assert f"da6401 reproduce {deleted} trains the run again" in told
    FOLDER_OF_S.rename("elsewhere")
    assert main(["evaluate", str(trial_folder(Path("elsewhere"), best))]) == 2
    assert f"da6401 evaluate elsewhere/confirm/{confirmed.name}" in capfd.readouterr().err
    assert load_sweep("elsewhere").best.folder == Path("elsewhere/confirm", confirmed.name)


def test_a_sweep_that_goes_on_under_another_name_keeps_its_folders() -> None:
    assert main([*SWEEP, "optimizer.lr=0.1,0.01,0.001", "hydra.sweeper.n_trials=2"]) == 0
    more = ("hydra.sweeper.n_trials=3", "hydra.sweep.subdir=run_${hydra:job.num}")
    assert main([*SWEEP, "optimizer.lr=0.1,0.01,0.001", *more]) == 0
    agrees(["trial-0", "trial-1", "run_2"])
    assert [FOLDER in trial.user_attrs for trial in trials()] == [False, False, True]


def test_a_trial_that_goes_on_is_where_it_began() -> None:
    """A trial that an older version began has no name in its study; one of this version has."""
    words = [*SWEEP, "optimizer.lr=0.1,0.01", "hydra.sweeper.n_trials=2"]
    storage = optuna.storages.get_storage("sqlite:///study.db")
    made = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    for number, attributes in enumerate([{OWNER: ""}, {OWNER: "", FOLDER: "begun/here"}]):
        made.enqueue_trial({"optimizer.lr": [0.1, 0.01][number]}, user_attrs=attributes)
    subdir = "hydra.sweep.subdir=x${hydra.job.num}"
    assert main([*words, subdir, "hydra.sweeper.storage=sqlite:///study.db", "sweep.on_space_change=extend"]) == 0
    assert sorted(path.parent.relative_to(FOLDER_OF_S).as_posix() for path in FOLDER_OF_S.rglob(RESULT)) == [
        "begun/here", "trial-0",
    ]  # fmt: skip


def test_hydras_name_of_the_overrides_is_as_they_are_typed() -> None:
    keys = [word.partition("=")[0] for word in (*SMALL, "study=s")]
    words = [*SWEEP, "optimizer.lr=0.1,0.01", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    assert main([*words, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"]) == 0
    agrees(["optimizer.lr=0.1", "optimizer.lr=0.01"])


def test_two_trials_never_share_a_folder(capfd: pytest.CaptureFixture[str]) -> None:
    words = [*SWEEP, "optimizer.lr=0.1,0.01"]
    assert main([*words, "hydra.sweep.subdir=${optimizer.lr}"]) == 2
    assert "gives every trial the same folder; put the trial's number into it" in capfd.readouterr().err
    assert not FOLDER_OF_S.exists(), "refused before anything runs"
    keys = [word.partition("=")[0] for word in (*SMALL, "optimizer.lr=")]
    excluded = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]"
    assert main([*words, "hydra.sweep.subdir=${hydra.job.override_dirname}", excluded]) == 2
    said = capfd.readouterr().err
    assert "trial 1 would be in 'study=s', which is the folder of trial 0" in said
    assert "Traceback" not in said
    assert states() == ["COMPLETE", "WAITING"]
    assert main([*words, "hydra.sweep.subdir=again-${hydra.job.num}"]) == 0
    agrees(["study=s", "again-1"])


def test_hydras_own_way_of_running_jobs_names_them_so_too() -> None:
    """env_set, chdir and callbacks take Hydra's launcher instead of the shorter way in this process."""
    words = [*SWEEP, "optimizer.lr=0.1,0.01", "hydra.sweep.subdir=${optimizer.lr}-${hydra.job.num}"]
    assert main([*words, "+hydra.job.env_set.DA6401_TEST=1"]) == 0
    agrees(["0.1-0", "0.01-1"])
