"""The folder of a trial's run: its name, who may have it, and finding it again."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from da6401.errors import UserError
from da6401.runs.run_folder import CONFIG
from da6401.runs.trial_folders import FOLDER, check_name, found_runs, order, sweep_of, template_problems, trial_folder


def trial(number: int, folder: str | None = None) -> optuna.trial.FrozenTrial:
    made = create_trial(value=0.0, user_attrs={} if folder is None else {FOLDER: folder})
    made.number = number
    return made


def test_a_trial_is_in_the_folder_that_its_study_names() -> None:
    assert trial_folder(Path("s"), trial(3)) == Path("s/trial-3")  # also in a sweep of an older version
    assert trial_folder(Path("s"), trial(3, "lr=0.1/3")) == Path("s/lr=0.1/3")


@pytest.mark.parametrize(
    "template",
    ["trial-${hydra.job.num}", "${hydra:job.num}", "a/${hydra.job.id}", "${hydra.job.override_dirname}",
     "${hydra_override_dirname:}", "${optimizer.lr}-${hydra.job.num}"],
)  # fmt: skip
def test_a_template_with_the_trials_own_number_or_values_is_taken(template: str) -> None:
    assert template_problems(template) == []


@pytest.mark.parametrize("template", ["run", "${optimizer.lr}", "${now:%H-%M-%S}", "${hydra.job.name}", "${study}"])
def test_a_template_that_gives_two_trials_one_folder_is_refused(template: str) -> None:
    (problem,) = template_problems(template)
    assert template in problem
    assert "trial-${hydra.job.num}" in problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/tmp/x", "not a folder within"),
        ("../x", "not a folder within"),
        ("a/../../x", "not a folder within"),
        (".", "not a folder within"),
        ("confirm/trial-1", "confirm is the sweep's own"),
        (".workers/x", ".workers is the sweep's own"),
        ("a/b/c/d/e", "more than 4 folders deep"),
        ("x" * 300, "a name of 300 bytes"),
        ("a/" + "é" * 200, "a name of 400 bytes"),
        ("b/1", "the folder of trial 1"),
        ("b//1/", "the folder of trial 1"),
        ("trial-2", "the folder of trial 2"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=r"hydra\.sweep\.subdir") as caught:
        check_name(name, 7, [trial(1, "b/1"), trial(2), trial(7, name)])
    assert words in str(caught.value)


def test_a_name_of_ones_own_is_taken() -> None:
    for name in ("b/2", "lr=0.1,seed=3", "trial-7"):
        check_name(name, 7, [trial(1, "b/1"), trial(2), trial(7, "b/2")])


def test_runs_are_found_without_a_study(tmp_path: Path) -> None:
    runs = ["trial-10", "trial-2", "lr=0.1/seed=0", "lr=0.1/seed=1", "z"]
    others = ["confirm/trial-2-seed-1000003", "wandb/offline-run-1/files", ".workers/slot-1", "explain"]
    for name in [*runs, *others]:
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / CONFIG).touch()
    (tmp_path / "trial-3").mkdir()  # has only just begun
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep.json").touch()
    found = sorted(found_runs(tmp_path), key=lambda run: order(run, tmp_path))
    names = [run.relative_to(tmp_path).as_posix() for run in found]
    assert names == ["trial-2", "trial-3", "trial-10", "lr=0.1/seed=0", "lr=0.1/seed=1", "z"]
    assert sweep_of(tmp_path / "lr=0.1/seed=1") == tmp_path
    assert sweep_of(tmp_path / "confirm/trial-2-seed-1000003") == tmp_path
    assert sweep_of(tmp_path) is None
