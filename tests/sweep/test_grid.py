"""What a sweep tries: plain lists as a grid, no configuration twice, samplers by name, warm starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from da6401.cli import main
from da6401.config.domains import Choices
from da6401.config.search_space import Parameter, SearchSpace
from da6401.runs.run_folder import read_yaml
from da6401.study.roles import GIVEN, SAMPLED, role_of
from da6401.sweep.suggest import next_point
from tests.sweep.sweeps import FOLDER, GRID, RANDOM, RATE, SWEEP, N, folder, open_study, states, sweep
from tests.tiny_runs import SMALL

TINY = ("model.blocks=1", "data.images_per_class=6", "trainer.epochs=1")


def points(study: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials]


def test_plain_lists_are_a_grid_in_order_under_a_name_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--multirun", *SMALL, *TINY, "seed=0,1", "optimizer=sgd,adamw"]) == 0
    (made,) = Path("outputs/sweeps").iterdir()
    assert made.name.startswith("sweep_")
    study = optuna.load_study(study_name=made.name, storage=f"sqlite:///{made}/study.db")
    pairs = [(0, "sgd"), (0, "adamw"), (1, "sgd"), (1, "adamw")]
    assert points(study) == [{"seed": seed, "optimizer": name} for seed, name in pairs]
    saved = [read_yaml(made / f"trial-{number}" / "config.yaml") for number in range(4)]
    assert [(each["seed"], each["optimizer"]["name"]) for each in saved] == pairs
    assert "4 of 4 configurations" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("sampler", "total", "count", "said"),
    [
        ("auto", 2, 2, "2 of 3 configurations"),
        *((name, 12, 3, "has 3 configurations") for name in ("auto", "random", "tpe_joint", "nsgaii", "qmc")),
        ("bruteforce", 3, 3, "3 of 3 configurations"),
    ],
)
def test_no_configuration_is_trained_twice(
    sampler: str, total: int, count: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    study = sweep(*TINY, "model.filters=choice(2,4,6)", f"hydra/sweeper/sampler={sampler}", f"{N}{total}")
    assert len(study.trials) == count
    assert len({trial.params["model.filters"] for trial in study.trials}) == count
    assert set(states()) == {"COMPLETE"}
    assert said in capfd.readouterr().out


def test_nothing_searched_is_one_trial(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(sweep(*TINY).trials) == 1
    assert "no key is searched" in capfd.readouterr().out


def test_an_extended_grid_runs_what_is_new() -> None:
    sweep(*TINY, "model.filters=range(2,6,2)")
    study = sweep(*TINY, "model.filters=range(2,10,2)", "sweep.on_space_change=extend")
    assert [trial.params["model.filters"] for trial in study.trials] == [2, 4, 6, 8]


def test_a_named_grid_takes_ranges_and_conditions_and_ends_though_its_last_trial_fails() -> None:
    entry = 'hydra.sweeper.conditional=[{when: "optimizer=sgd", params: {optimizer.lr: "choice(0.01, 100)"}}]'
    words = ("optimizer=adamw,sgd", "model.dropout=range(0.0,0.2,0.1)", entry, GRID)
    study = sweep(*TINY, *words, "model.batch_norm=false", "trainer.batch_size=1", "optimizer.momentum=0.99",
                  "schedule=constant", "trainer.epochs=4")  # fmt: skip
    assert [(trial.params["optimizer"], trial.params.get("optimizer.lr")) for trial in study.trials] == [
        ("adamw", None), ("adamw", None), ("sgd", 0.01), ("sgd", 100), ("sgd", 0.01), ("sgd", 100),
    ]  # fmt: skip
    assert study.trials[-1].state is TrialState.FAIL
    assert study.trials[0].state is TrialState.COMPLETE


def test_a_key_has_other_choices_under_another_condition() -> None:
    sgd = '{when: "optimizer=sgd", params: {optimizer.lr: "choice(0.1,0.05)"}}'
    adamw = '{when: "optimizer=adamw", params: {optimizer.lr: "choice(0.001,0.002)"}}'
    words = ("optimizer=choice(sgd,adamw)", f"hydra.sweeper.conditional=[{sgd},{adamw}]", "sweep.confirm_top=1")
    study = sweep(*TINY, *words, "sweep.confirm_seeds=1", RANDOM, f"{N}4")
    rates = {(t.params["optimizer"], *[v for k, v in t.params.items() if k != "optimizer"]) for t in study.trials}
    assert rates == {("sgd", 0.1), ("sgd", 0.05), ("adamw", 0.001), ("adamw", 0.002)}
    for trial in study.trials:
        saved = read_yaml(folder(trial.number) / "config.yaml")["optimizer"]
        assert (saved["name"], saved["lr"]) in rates
    (confirmed,) = (FOLDER / "confirm").iterdir()
    again = read_yaml(confirmed / "config.yaml")["optimizer"]
    first = read_yaml(folder(int(confirmed.name.split("-")[1])) / "config.yaml")["optimizer"]
    assert again == first


def test_texts_reach_the_trial_as_they_are_typed_and_each_fingerprint_is_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = ["x (z)", "c=d,e", "1e3", "it's"]
    rng = np.random.default_rng(0)
    for name in names:
        for index in range(12):
            file = Path(name, "train", "ab"[index % 2], f"{index}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(file)
    roots = ",".join(f'"{name}"' for name in names)
    words = [word for word in SMALL if not word.startswith("data")]
    assert main(["train", "--multirun", *words, *TINY[::2], "study=s", "data=folder", "data.image_size=16",
                 f"data.root=choice({roots})"]) == 0  # fmt: skip
    assert [trial.params["data.root"] for trial in open_study().trials] == names
    assert set(states()) == {"COMPLETE"}
    assert [read_yaml(folder(number) / "config.yaml")["data"]["root"] for number in range(4)] == names
    out = capfd.readouterr().out
    for number, name in enumerate(names):
        fingerprint = json.loads((folder(number) / "receipt.json").read_text())["data_fingerprint"]
        assert f"data {fingerprint[:12]}: trial {number} (data.root={name})" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("hydra/sweeper/sampler=motpe",), "write hydra/sweeper/sampler=tpe"),
        (("hydra/sweeper/sampler=tpe", "+hydra.sweeper.sampler.foo=3"), "foo"),
        (("+hydra.sweeper.sampler.n_startup_trial=3",), "n_startup_trial"),
        (("hydra.sweeper.sampler.n_startup_trials=many",), "n_startup_trials"),
        (("hydra/sweeper/sampler=nsgaii", "hydra.sweeper.sampler.population_size=0"), "population_size"),
        (("hydra/sweeper/sampler=grid",), "needs values that can be counted"),
    ],
)
def test_a_sampler_that_cannot_be_built_is_one_screen(
    words: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*SWEEP, "optimizer.lr=interval(0.001,0.1)", *words]) == 2
    shown = capfd.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err
    assert not folder(0).exists()


def test_cmaes_needs_its_package_before_trial_0(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("optimizer.lr=interval(0.001,0.1)", "model.dropout=interval(0,0.5)", "hydra/sweeper/sampler=cmaes")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*SWEEP, *words]) == 2
    assert "pip install 'da6401[cmaes]'" in capfd.readouterr().err
    monkeypatch.undo()


def test_cmaes_searches_with_its_package() -> None:
    pytest.importorskip("cmaes", reason="pip install 'da6401[cmaes]'")
    words = ("optimizer.lr=interval(0.001,0.1)", "model.dropout=interval(0,0.5)", "hydra/sweeper/sampler=cmaes")
    sweep(*TINY, *words, f"{N}3")
    assert states() == ["COMPLETE"] * 3


def test_a_warm_start_takes_the_best_of_a_study_in_the_same_storage(capfd: pytest.CaptureFixture[str]) -> None:
    database = f"hydra.sweeper.storage=sqlite:///{Path('all.db').absolute()}"
    words = [*SWEEP, *TINY, database, RATE]
    assert main([*words, "study=first", f"{N}4"]) == 0
    assert main([*words, "study=second", "sweep.warm_start=first", f"{N}3"]) == 0
    first, second = (optuna.load_study(study_name=name, storage="sqlite:///all.db") for name in ("first", "second"))
    best = sorted(first.trials, key=lambda trial: (-(trial.value or 0), trial.number))
    assert best[0].params["optimizer.lr"] in {trial.params["optimizer.lr"] for trial in second.trials[:2]}
    assert main([*words, "study=third", "sweep.warm_start=nowhere"]) == 2
    assert "it has first, second" in capfd.readouterr().err


def test_a_grid_takes_given_points_first_and_each_of_its_points_once() -> None:
    words = (*TINY, "optimizer.lr=choice(0.01,0.001,0.1)", "model.dropout=choice(0.0,0.1)")
    assert main([*SWEEP, *TINY, "study=first", "optimizer.lr=0.1", "model.dropout=choice(0.1)"]) == 0
    study = sweep(*words, "hydra.sweeper.first=[{optimizer.lr: 0.001}]", "sweep.warm_start=first")
    tried = [(trial.params["optimizer.lr"], trial.params["model.dropout"]) for trial in study.trials]
    assert tried == [(0.001, 0.0), (0.01, 0.1), (0.01, 0.0), (0.001, 0.1), (0.1, 0.0), (0.1, 0.1)]
    assert [role_of(trial) for trial in study.trials] == [GIVEN] * 2 + [SAMPLED] * 4


def test_a_slot_of_a_grid_leaves_a_given_point_to_its_trial() -> None:
    choices = CategoricalDistribution((1, 2, 3))
    space = SearchSpace((Parameter("seed", "seed", Choices((1, 2, 3))),), {}, {})
    given = create_trial(state=TrialState.RUNNING, system_attrs={"fixed_params": {"seed": 2}})
    begun = create_trial(state=TrialState.RUNNING)
    done = create_trial(state=TrialState.COMPLETE, value=1, params={"seed": 1}, distributions={"seed": choices})
    assert next_point(space, [given, begun, begun], 1) == {"seed": 1}
    assert next_point(space, [given, begun, begun], 2) == {"seed": 3}
    assert next_point(space, [given, done, begun], 2) == {"seed": 3}


@pytest.mark.parametrize("values", ["choice(0.01,0.1)", "interval(0.01,0.1)"])
def test_a_study_to_start_from_must_be_one_that_can_be_read(values: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [*SWEEP, *TINY, f"optimizer.lr={values}", f"{N}1"]
    damaged, several = FOLDER.with_name("damaged"), FOLDER.with_name("several")
    for place, content in ((damaged, b"no database"), (FOLDER.with_name("empty"), b"")):
        place.mkdir(parents=True)
        (place / "study.db").write_bytes(content)
    several.mkdir()
    for name in ("x", "y"):
        optuna.create_study(study_name=name, storage=f"sqlite:///{several}/study.db")
    for name, told in (
        ("none", "there is no study at"), ("damaged", "damaged/study.db cannot be read (file is not a database)"),
        ("empty", "empty/study.db cannot be read"), ("several", "holds the studies x, y, and none is called several"),
    ):  # fmt: skip
        assert main([*words, f"sweep.warm_start={name}"]) == 2
        assert told in " ".join(capfd.readouterr().err.split())
    assert FOLDER.with_name("empty").joinpath("study.db").read_bytes() == b""
    optuna.create_study(study_name="several", storage=f"sqlite:///{several}/study.db")
    assert main([*words, "sweep.warm_start=several"]) == 0


def test_a_key_that_the_command_line_fixes_is_said_not_to_be_searched(capfd: pytest.CaptureFixture[str]) -> None:
    params = "hydra.sweeper.params={model.filters: 'choice(2,4)', seed: 'choice(0,1)'}"
    conditional = "hydra.sweeper.conditional=[{when: 'seed=0', params: {model.dropout: 'choice(0,0.1)'}}]"
    study = sweep(params, conditional, "model.filters=3", "model.dropout=0.2")
    assert [line for line in capfd.readouterr().out.splitlines() if "not searched" in line] == [
        "not searched, since the command line gives one value: model.filters=3, model.dropout=0.2"
    ]
    assert [trial.params for trial in study.trials] == [{"seed": 0}, {"seed": 1}]
