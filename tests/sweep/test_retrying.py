"""sweep.retry_failed: failed trials run again with their parameters, on top of the study's total."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from da6401.cli import main
from da6401.runs.run_folder import read_result, read_yaml
from da6401.runs.trial_folders import FOLDER as FOLDER_OF
from da6401.runs.trial_folders import folder_name
from da6401.study.roles import CANDIDATE, EPOCHS, PHASE, PLANNED
from da6401.study.storage import open_storage
from da6401.sweep.failures import RETRY_OF, retry_failed
from da6401.sweep.leases import ATTEMPTS, REASON, RESUMABLE
from da6401.training.loop import fit
from tests.sweep.sweeps import FOLDER, RATE, SWEEP, N, states, trials

pytestmark = pytest.mark.integration

RETRY = "sweep.retry_failed=true"
SPACES = {
    "a grid": ("optimizer.lr=0.1,0.2,0.3,0.4",),
    "tpe": (RATE, "hydra.sweeper.sampler.n_startup_trials=1"),
    "a journal": ("optimizer.lr=choice(0.1,0.2,0.3,0.4)", "hydra.sweeper.storage=journal:///PLACE/log"),
}


class Broken:
    """Lets the runs fail whose folder has one of these names."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.fit = fit

    def __call__(self, *given: Any, **named: Any) -> None:
        if named["out"].name in self.names:
            raise RuntimeError("no such luck")
        self.fit(*given, **named)


@pytest.mark.parametrize("space", SPACES)
def test_failed_trials_run_again_with_their_parameters(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*SWEEP, *(word.replace("/PLACE", str(tmp_path)) for word in SPACES[space])]
    address = f"journal://{tmp_path}/log" if space == "a journal" else f"sqlite:///{FOLDER}/study.db"

    def trials() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=open_storage(address, minutes=0)).trials

    def states() -> list[str]:
        return [trial.state.name for trial in trials()]

    broken = Broken("trial-0", "trial-1")
    monkeypatch.setattr("da6401.training.run.fit", broken)
    assert main([*words, N + "2"]) == 1
    assert states() == ["FAIL", "FAIL"]
    broken.names = {"trial-3"}
    assert main([*words, N + "2", RETRY]) == 0
    assert states() == ["FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert [trial.params for trial in trials()[2:]] == [trial.params for trial in trials()[:2]]
    assert [trial.user_attrs.get(RETRY_OF) for trial in trials()] == [None, None, 0, 1]
    for number, lr in enumerate(trial.params["optimizer.lr"] for trial in trials()):
        assert read_yaml(FOLDER / f"trial-{number}" / "config.yaml")["optimizer"]["lr"] == lr
    broken.names = set()
    assert main([*words, N + "3"]) == 0
    assert states() == ["FAIL", "FAIL", "COMPLETE", "FAIL", "COMPLETE"], "a larger total: one trial more"
    capfd.readouterr()
    assert main([*words, N + "3", RETRY, "sweep.dry_run=true"]) == 0
    assert f"trial 5: optimizer.lr={trials()[3].params['optimizer.lr']} " in capfd.readouterr().out
    assert len(trials()) == 5
    for _ in range(2):
        assert main([*words, N + "3", RETRY]) == 0
        assert states()[5:] == ["COMPLETE"], "once"
    assert trials()[5].params == trials()[3].params
    assert trials()[5].value == read_result(FOLDER / "trial-5").val_accuracy
    ours = [trial.params["optimizer.lr"] for trial in trials() if trial.state.name == "COMPLETE"]
    assert len(set(ours)) == len(ours) == 3


def test_what_runs_again_is_no_failure_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken("trial-0")
    monkeypatch.setattr("da6401.training.run.fit", broken)
    words = [*SWEEP, "optimizer.lr=0.1,0.2", "hydra.sweeper.max_failure_rate=0"]
    assert main(words) == 2
    assert main(words) == 2
    broken.names = set()
    assert main([*words, RETRY]) == 0


def test_what_runs_again_does_so_with_a_total_below_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken("trial-1", "trial-2")
    monkeypatch.setattr("da6401.training.run.fit", broken)
    assert main([*SWEEP, "optimizer.lr=0.1,0.2,0.3"]) == 0
    broken.names = set()
    assert main([*SWEEP, "optimizer.lr=0.1,0.2,0.3", RETRY, N + "1"]) == 0
    assert states() == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_retry_has_a_folder_of_its_own_where_folders_are_named_by_values(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ",".join(sorted({word.partition("=")[0] for word in (*SWEEP, RETRY) if "=" in word}))
    words = [
        *SWEEP, "optimizer.lr=0.1,0.2", "hydra.sweep.subdir=${hydra:job.override_dirname}",
        f"hydra.job.config.override_dirname.exclude_keys=[{keys}]",
    ]  # fmt: skip
    broken = Broken("optimizer.lr=0.1")
    monkeypatch.setattr("da6401.training.run.fit", broken)
    assert main(words) == 0
    broken.names = set()
    assert main([*words, RETRY]) == 0
    assert states() == ["FAIL", "COMPLETE", "COMPLETE"]
    names = ["optimizer.lr=0.1", "optimizer.lr=0.2", "optimizer.lr=0.1-retry-2"]
    assert [folder_name(trial) for trial in trials()] == names
    assert [read_result(FOLDER / name).val_accuracy for name in names[1:]] == [trial.value for trial in trials()[1:]]


def test_a_copy_stays_a_training_of_its_race_and_resumes_where_images_had_changed() -> None:
    study = optuna.create_study()
    of_race = {CANDIDATE: 2, EPOCHS: 7, PHASE: "long", PLANNED: 3.0}
    for attributes in ({**of_race, RESUMABLE: True}, {REASON: "diverged"}):
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes))
    retry_failed(study)
    first, second = study.trials[2:]
    assert {name: first.user_attrs[name] for name in of_race} == of_race
    assert first.user_attrs[FOLDER_OF] == "trial-0"
    assert second.user_attrs == {ATTEMPTS: 1, RETRY_OF: 1}
