"""A study that goes on searches the same; what does not change a result's meaning may differ, and a space may grow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from da6401.cli import main
from da6401.config.domains import Interval
from da6401.config.read_space import NOT_SEARCHED
from da6401.config.search_space import Parameter, SearchSpace
from da6401.config.validate import documented_keys
from da6401.runs.run_folder import MAY_CHANGE_ON_RESUME, read_yaml
from da6401.study.roles import CANDIDATE, ENQUEUED
from da6401.sweep.failures import RETRY_OF
from da6401.sweep.leases import ATTEMPTS, OWNER, REASON
from da6401.sweep.same_space import BASE, SPACE, _trim_enqueued
from tests.sweep.sweeps import FOLDER, SWEEP, N, states, trials
from tests.sweep.sweeps import open_study as study
from tests.tiny_runs import SMALL

pytestmark = pytest.mark.integration


def values(key: str) -> list[Any]:
    """Of a key in the trials, as their folders have it; checked against the study."""
    found = []
    for trial in trials():
        node: Any = read_yaml(FOLDER / f"trial-{trial.number}" / "config.yaml")
        for part in key.split("."):
            node = node[part]
        assert trial.params.get(key, node) == node
        found.append(node)
    return found


TEST_SPLIT = re.compile(r"data\.(val_role|test_fraction|group_by|exclude|layout|class_depth)")  # what decides it


def test_what_may_differ_is_what_cannot_be_searched() -> None:
    """One idea, in two places: keys that change no result. (Who may see the test split is a matter of its own.)"""
    for key in {name for name, _, _ in documented_keys()}:
        searched = not any(re.fullmatch(pattern, key) for pattern, _ in NOT_SEARCHED)
        is_of_the_trials = TEST_SPLIT.fullmatch(key) or key == "trainer.metric"
        assert bool(MAY_CHANGE_ON_RESUME.fullmatch(key)) is (not searched and not is_of_the_trials), key


def test_a_study_goes_on_whatever_changes_no_result() -> None:
    assert main([*SWEEP, "optimizer.lr=choice(0.1,0.2)", N + "1"]) == 0
    base = study().user_attrs[BASE]
    other = (
        "sweep.max_hours=1", "sweep.patience=9", "sweep.confirm_seeds=1", "sweep.retries=1", "sweep.keep_checkpoints=1",
        "trainer.progress=false", "trainer.threads=2", "tracking.project=p", "device=cpu",
        "trainer.checkpoint_minutes=1", "optimizer.weight_decay=0.01",  # typed, and what it was
    )  # fmt: skip
    assert main([*SWEEP, "optimizer.lr=choice(0.2,0.1)", *other, N + "2"]) == 0
    assert states() == ["COMPLETE"] * 2
    assert study().user_attrs[BASE] == base


CHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "a value": (("optimizer.weight_decay=0.5",), "optimizer.weight_decay: was 0.01, is 0.5"),
    "a typed value": (("trainer.epochs=2",), "trainer.epochs: was 1, is 2"),
    "an option": (("optimizer=sgd",), "optimizer.name: was adamw, is sgd"),
    "what comes with a searched option": (("augmentation.flip=0.25",), "augmentation.flip"),
    "the space": (("optimizer.lr=choice(0.1,0.3)",), "optimizer.lr: was categorical"),
    "what is searched": (("optimizer.lr=0.1",), "optimizer.lr: was categorical {'choices': [0.1, 0.2]}, is absent"),
}


def test_whatever_changes_a_result_is_refused_with_the_difference(capfd: pytest.CaptureFixture[str]) -> None:
    words = (*SWEEP, "optimizer.lr=choice(0.1,0.2)", "augmentation=choice(none,light)", N + "1")
    assert main([*words]) == 0
    before = study().user_attrs
    capfd.readouterr()
    for change, message in CHANGES.values():
        assert main([*words, *change, N + "2"]) == 2
        told = capfd.readouterr().err
        assert message in told
        assert "sweep.on_space_change=extend" in told
    assert study().user_attrs == before
    assert len(trials()) == 1


@pytest.mark.parametrize("where", ["sweep", "option"])
def test_a_changed_yaml_is_refused_as_a_changed_command_is(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    texts = {
        "sweep/mine": "# @package _global_\nstudy: s\ntrainer: {epochs: EPOCHS}\nhydra: {sweeper: {n_trials: 1, "
        "params: {optimizer.lr: 'choice(0.1,0.2)', augmentation: 'choice(own,none)'}}}\n",
        "augmentation/own": "flip: FLIP\n",
    }

    def write(**given: object) -> None:
        for name, text in texts.items():
            for word, value in given.items():
                text = text.replace(word, str(value))
            path = Path("conf", f"{name}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    small = [word for word in SMALL if "epochs" not in word]
    words = ["train", "--multirun", *small, "--config-dir", "conf", "sweep=mine"]
    write(EPOCHS=1, FLIP=0.5)
    assert main(words) == 0
    write(**({"EPOCHS": 2, "FLIP": 0.5} if where == "sweep" else {"EPOCHS": 1, "FLIP": 0.25}))
    assert main([*words, N + "2"]) == 2
    message = capfd.readouterr().err
    assert ("trainer.epochs: was 1, is 2" if where == "sweep" else "augmentation.flip with augmentation=own") in message
    write(EPOCHS=1, FLIP=0.5)
    assert main([*words, N + "2"]) == 0


@pytest.mark.parametrize("sampler", ["tpe_joint", "tpe", "grid"])
def test_a_choice_grows_shrinks_and_grows_again(sampler: str) -> None:
    words = [*SWEEP, f"hydra/sweeper/sampler={sampler}", "model.dropout=choice(0.0,0.1)"]
    if sampler.startswith("tpe"):
        words.append("hydra.sweeper.sampler.n_startup_trials=1")
    assert main([*words, "model.filters=choice(2,3)", N + "2"]) == 0
    before = [trial.params for trial in trials()]
    wider = [*words, "model.filters=choice(8,3,2)", N + "6"]
    assert main([*wider, "sweep.on_space_change=extend"]) == 0
    assert main([*wider]) == 0, "the space is the study's now"
    assert [trial.params for trial in trials()][:2] == before, "what is stored keeps its meaning"
    assert 8 in values("model.filters")
    assert {trial.distributions["model.filters"] for trial in trials()} == {CategoricalDistribution([2, 3, 8])}
    points = [(trial.params["model.filters"], trial.params["model.dropout"]) for trial in trials()]
    assert sorted(points) == [(filters, dropout) for filters in (2, 3, 8) for dropout in (0.0, 0.1)]
    assert main([*words, "model.filters=choice(8,16)", N + "8", "sweep.on_space_change=extend"]) == 0
    assert values("model.filters")[6:] == [16, 16]
    assert len({json.dumps(trial.params, sort_keys=True) for trial in trials()}) == 8


def test_another_kind_of_values_is_refused_before_anything_changes(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "optimizer.lr=choice(0.1,0.2)", N + "1"]) == 0
    before = study().user_attrs
    for space in ("interval(0.1,0.2)", "tag(log,interval(0.1,0.2))"):
        assert main([*SWEEP, f"optimizer.lr={space}", "sweep.on_space_change=extend", N + "2"]) == 2
        assert "sweep.warm_start=s" in capfd.readouterr().err
    assert study().user_attrs == before
    wider = "interval(0.01,0.3)"
    assert main([*SWEEP, f"optimizer.lr={wider}", "study=t", N + "1"]) == 0
    assert main([*SWEEP, "optimizer.lr=interval(0.001,1)", "study=t", "sweep.on_space_change=extend", N + "2"]) == 0


def test_a_study_whose_trials_have_not_begun_binds_nobody() -> None:
    first = ("optimizer.lr=interval(1e-4,1e-2)", "model.dropout=choice(0.0,0.5)", "sweep.max_hours=1e-9")
    assert main([*SWEEP, *first]) == 0
    (waiting,) = trials()
    assert waiting.state is TrialState.WAITING, "the defaults are to be tried first"
    assert main([*SWEEP, "optimizer.lr=interval(1e-2,1e-1)", "model.dropout=choice(0.0,0.1)", N + "1"]) == 0
    (trial,) = trials()
    assert trial.state is TrialState.COMPLETE
    assert trial.params["model.dropout"] == 0.0
    assert trial.params["optimizer.lr"] >= 1e-2, "the default of then is outside"


def older(attributes: Mapping[str, Any], typed: Mapping[str, str]) -> None:
    """Let the study be one of a version that wrote down the overrides that were typed, and no others."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{FOLDER}/study.db")
    number = storage.get_study_id_from_name("s")
    fixed = {f"{key} (fixed)": text for key, text in typed.items()}
    storage.set_study_user_attr(number, SPACE, {**attributes[SPACE], **fixed})
    storage.set_study_user_attr(number, BASE, None)


def test_a_study_of_an_older_version_goes_on_and_is_held_to_what_it_knows(capfd: pytest.CaptureFixture[str]) -> None:
    words = (*SWEEP, "optimizer.lr=choice(0.1,0.2)", "model.batch_norm=false", "optimizer=sgd")
    assert main([*words, N + "1"]) == 0
    typed = {key: value for key, _, value in (word.partition("=") for word in (*SMALL, *words[-2:])) if value}
    typed |= {"trainer.epochs": "1", "model.batch_norm": "False", "sweep.max_hours": "3", "trainer.threads": "9"}
    older(study().user_attrs, typed)
    capfd.readouterr()
    for changed, told in (("trainer.epochs=2", "trainer.epochs: was 1, is 2"), ("seed=4", "seed: was absent, is 4")):
        assert main([*words, changed, N + "2"]) == 2
        assert told in capfd.readouterr().err
    assert main([*words, N + "2"]) == 0
    assert main([*words, "optimizer.weight_decay=0.5", N + "2"]) == 2, "from now on all of it is known"


def test_a_trial_that_has_begun_gives_its_place_to_one_of_the_new_space() -> None:
    made = optuna.create_study()
    begun = {"optimizer.a": 0.001, "model.dropout": 0.25}
    distributions: dict[str, BaseDistribution] = dict.fromkeys(begun, FloatDistribution(0.0, 1.0))
    made.add_trial(optuna.trial.create_trial(
        state=TrialState.WAITING, params=begun, distributions=distributions, user_attrs={CANDIDATE: 3, OWNER: "x"},
    ))  # fmt: skip
    space = SearchSpace((Parameter("model.dropout", "model.dropout", Interval(0.0, 0.5)),), {}, {})
    _trim_enqueued(made, made.trials, space)
    before, after = made.trials
    assert before.state is TrialState.FAIL
    assert before.user_attrs[REASON] == "the search space has changed; trial 1 takes its place"
    assert (after.state, after.params) == (TrialState.WAITING, {})
    assert after.system_attrs[ENQUEUED] == {"model.dropout": 0.25}
    assert after.user_attrs == {CANDIDATE: 3, ATTEMPTS: 1, RETRY_OF: 0}
    _trim_enqueued(made, made.trials, space)
    assert len(made.trials) == 2
