"""What people know from Hydra works here: their own folders of YAML, nested options, interpolations, modes, flags."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from da6401 import train
from da6401.config.command_line import check_command_line, hydra_problem
from da6401.config.schema import CnnConfig, RunConfig
from da6401.config.search_path import SearchPath, conf_dir
from da6401.errors import ConfigError
from da6401.registry import SCHEDULES
from da6401.runs.run_folder import read_yaml
from tests.tiny_runs import SMALL, typed

NESTED = "# @package _global_\ndefaults:\n  - override /optimizer: sgd\ntrainer:\n  epochs: 1\n"
SMALL_CNN = "defaults:\n  - /schema/model/cnn@_here_\n  - _self_\nfilters: 4\nblocks: 2\n"
TINY = ("trainer.epochs=1", "trainer.threads=1", "study=s")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder of YAML files."""
    files = {
        "experiment/lab/x": NESTED,
        "experiment/a": "# @package _global_\nseed: 3\n",
        "experiment/b": "# @package _global_\ndevice: cpu\n",
        "model/small": SMALL_CNN,
        "model/own/tiny": SMALL_CNN.replace("4", "3"),
        "sweep/mine": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: choice(0, 1)\n",
    }
    for name, text in files.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "mine"


def checked(*overrides: str, mine: Path | None = None, multirun: bool = False) -> RunConfig:
    cfg = check_command_line(overrides, config_dir=str(mine) if mine else None, multirun=multirun).config
    assert cfg is not None
    return cfg


def problem(*overrides: str, mine: Path | None = None, multirun: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        checked(*overrides, mine=mine, multirun=multirun)
    (only,) = caught.value.problems
    return only


def test_an_option_in_a_subfolder_is_an_option(mine: Path) -> None:
    cfg = checked("experiment=lab/x", "model=own/tiny", mine=mine)
    assert (cfg.trainer.epochs, cfg.optimizer) == (1, checked("optimizer=sgd").optimizer)
    assert isinstance(cfg.model, CnnConfig)
    assert cfg.model.filters == 3
    assert "did you mean lab/x" in problem("experiment=lab/y", mine=mine)


def test_several_experiments_at_once(mine: Path) -> None:
    cfg = checked("experiment=[a,b]", mine=mine)
    assert (cfg.seed, cfg.device) == (3, "cpu")
    assert problem("experiment=[a,c]", mine=mine).startswith("experiment=c: no such option")


def test_the_trials_of_a_sweep_have_them_too(mine: Path, tmp_path: Path) -> None:
    words = ("train", "-m", "--config-dir", str(mine), *SMALL[:4], *TINY, "hydra.sweeper.n_trials=2")
    code, _, said = typed(
        *words, "experiment=[a,b]", "model=own/tiny,small", "hydra/sweeper/sampler=grid", cwd=tmp_path
    )
    assert code == 0, said
    trials = [read_yaml(file) for file in sorted(tmp_path.glob("outputs/sweeps/s/trial-*/config.yaml"))]
    assert sorted(trial["model"]["filters"] for trial in trials) == [3, 4]
    assert {(trial["seed"], trial["device"]) for trial in trials} == {(3, "cpu")}


def test_the_search_path_of_a_command_is_hydras(mine: Path) -> None:
    assert checked(f"hydra.searchpath=[file://{mine}]", "experiment=a").seed == 3
    missing = mine / "nowhere"
    assert f"{missing}: no such folder" in problem(mine=missing)
    assert f"path={missing} is not available" in problem(f"hydra.searchpath=[file://{missing}]")
    assert SearchPath(str(mine)).options()["experiment"][-1] == "lab/x"


def test_a_file_that_hydra_would_not_read_is_no_silent_one(mine: Path) -> None:
    """Hydra takes ours first, so a file of the same name would be left out without a word."""
    hidden = mine / "experiment" / "part_a.yaml"
    hidden.write_bytes((conf_dir() / "experiment" / "part_a.yaml").read_bytes())
    checked("experiment=part_a", mine=mine)
    hidden.write_text("# @package _global_\nseed: 77\n")
    checked("experiment=part_b", mine=mine)
    for choice in ("experiment=part_a", "experiment=[part_a,a]"):
        assert f"{hidden}: is hidden by {conf_dir()}" in problem(choice, mine=mine)
    cfg = check_command_line(
        ["experiment=part_a"], files=SearchPath(config_path=str(conf_dir())), multirun=False
    ).config
    assert cfg == checked("experiment=part_a")


def test_a_primary_config_of_ones_own(mine: Path, tmp_path: Path) -> None:
    (mine / "paper.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 9\nhydra:\n  mode: MULTIRUN\n")
    files = SearchPath(str(mine), config_name="paper")
    assert files.is_multirun([], flag=False)
    assert not files.is_multirun(["hydra.mode=RUN"], flag=False)
    cfg = check_command_line([], files=files, multirun=True).config
    assert cfg is not None
    assert cfg.seed == 9
    words = ("train", "--config-dir", "mine", "--config-name", "paper", *SMALL, *TINY, "hydra.sweeper.n_trials=1")
    code, _, said = typed(*words, "optimizer.lr=choice(0.01)", cwd=tmp_path)
    assert code == 0, said
    assert read_yaml(tmp_path / "outputs/sweeps/s/trial-0/config.yaml")["seed"] == 9


@pytest.mark.parametrize("words", [["sweep=part_a"], ["experiment=freeze_curve", "model=resnet18"]])
def test_a_search_without_multirun_is_refused_with_the_command_to_type(words: list[str], tmp_path: Path) -> None:
    code, _, said = typed("train", *words, cwd=tmp_path)
    assert code == 2
    assert f"needs --multirun: da6401 train --multirun {' '.join(words)}\n" in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"train\(\.\.\., multirun=True\)"):
        train(*words)


def test_the_command_to_type_has_the_users_folder_and_quotes(mine: Path) -> None:
    said = problem("sweep=mine", "model.filters=[4, 8]", mine=mine)
    assert said.endswith(f"da6401 train --multirun --config-dir {mine} sweep=mine 'model.filters=[4, 8]'")


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--info"], ["--info", "defaults"], ["--help"]])
def test_a_sweep_can_be_looked_at(flags: list[str], tmp_path: Path) -> None:
    code, out, said = typed("train", "sweep=part_a", *flags, cwd=tmp_path)
    assert code == 0, said
    assert "weight_decay" in out or "sweep/part_a" in out or "part_a" in out
    assert list(tmp_path.iterdir()) == []


def test_hydra_mode_is_the_flag(tmp_path: Path) -> None:
    words = ["train", "hydra.mode=MULTIRUN", *SMALL, *TINY, "model.filters=choice(2,4)", "seed=${hydra:job.num}"]
    code, _, said = typed(*words, "hydra/sweeper/sampler=grid", cwd=tmp_path)
    assert code == 0, said
    trials = [read_yaml(tmp_path / f"outputs/sweeps/s/trial-{number}/config.yaml") for number in (0, 1)]
    assert sorted(trial["model"]["filters"] for trial in trials) == [2, 4]
    assert [trial["seed"] for trial in trials] == [0, 1]
    with pytest.raises(ConfigError, match="expected RUN or MULTIRUN"):
        SearchPath().is_multirun(["hydra.mode=multirun"], flag=False)


def test_hydras_interpolations_in_one_run() -> None:
    assert checked("experiment=part_b", "study=${hydra:runtime.choices.experiment}").study == "part_b"
    assert "it needs --multirun" in problem("seed=${hydra:job.num}")
    assert checked("seed=${hydra:job.num}", multirun=True).seed == 0


def test_environment_variables(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    monkeypatch.setenv("RATE", "0.02")
    unset = "the environment variable NOPE is not set; set it, or give a default: ${oc.env:NOPE,DEFAULT}"
    assert problem("optimizer.lr=${oc.env:NOPE}") == f"optimizer.lr: {unset}"
    assert f"hydra.run.dir: {unset}" in typed("train", *SMALL, "hydra.run.dir=${oc.env:NOPE}", cwd=tmp_path)[2]
    (mine / "experiment/a.yaml").write_text("# @package _global_\noptimizer:\n  lr: ${oc.env:RATE}\n")
    said = problem("experiment=a", mine=mine)
    assert said.startswith("optimizer.lr='0.02': must be a number in (0, 100] per step; ")
    assert "write ${oc.decode:${oc.env:RATE}}, on" in said
    decoded = said.rpartition("in quotes: optimizer.lr=")[2]
    assert checked(f"optimizer.lr={decoded[1:-1]}").optimizer.lr == 0.02
    assert "oc.decode" not in problem("seed=${oc.env:NOPE,no}"), "it would be no number then, either"


def test_a_required_key_may_be_searched() -> None:
    cfg = checked("data=folder", "data.root=choice(/one,/two)", multirun=True)
    assert cfg.data == checked("data=folder", "data.root=/one").data
    assert "data.root=" in problem("data=folder", "data.val_fraction=choice(0.1,0.2)", multirun=True)


def rehearsed(tmp_path: Path, *words: str) -> list[str]:
    """The first trials of a sweep, as it would run them."""
    fixed = ("data=synthetic", "data.image_size=32", *TINY, "sweep.dry_run=true")
    code, out, said = typed("train", "-m", *fixed, *words, cwd=tmp_path)
    assert code == 0, said
    return [line for line in out.splitlines() if line.startswith("trial ")]


def test_glob_is_every_option_that_fits(tmp_path: Path) -> None:
    trials = rehearsed(tmp_path, "optimizer=glob([a*,s*],exclude=adam)")
    assert sorted(word for trial in trials for word in trial.split() if word.startswith("optimizer=")) == [
        "optimizer=adamw", "optimizer=sgd",
    ]  # fmt: skip
    trials = rehearsed(tmp_path, "schedule=glob(*)", "study=another")
    schedules = {word for trial in trials for word in trial.split() if "schedule=" in word}
    assert schedules == {f"schedule={name}" for name in SCHEDULES}
    assert "matches none of" in problem("optimizer=glob(z*)", multirun=True)


def test_an_option_of_model_has_the_keys_of_its_network(mine: Path, tmp_path: Path) -> None:
    """A user's option, and ours that bear another name than their network, are that network in a search."""
    words = ("model=own/tiny,part_a,resnet18", "model.filters=2,4", "model.freeze_depth=3", "model.weights=none")
    trials = rehearsed(tmp_path, "--config-dir", str(mine), *words)
    assert len(trials) == 5
    for trial in trials:
        is_resnet = "model=resnet18" in trial
        assert ("model.freeze_depth=3" in trial, "model.weights=none" in trial) == (is_resnet, is_resnet)
        assert ("model.filters=" in trial) != is_resnet


def test_hydras_own_logging_options_work(tmp_path: Path) -> None:
    words = ["train", *SMALL, *TINY, "hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "hydra.run.dir=r"]
    code, out, said = typed(*words, cwd=tmp_path)
    assert (code, out, said) == (0, "", "")
    assert (tmp_path / "r" / "result.json").exists()
    assert not (tmp_path / "r" / "train.log").exists()


def test_what_a_launcher_needs_and_what_has_no_effect_is_said() -> None:
    assert "a run writes .hydra/" in problem("hydra.output_subdir=meta")
    assert "no such option of hydra/launcher" in problem("hydra/launcher=nope")
    assert "hydra.sweep.subdir=same: gives every trial the same folder" in problem(
        "hydra.sweep.subdir=same", multirun=True
    )
    assert checked("hydra.sweep.subdir=same").seed == 0, "one run has no trials"
    absent = MissingConfigException("", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    assert "pip install 'da6401[joblib]'" in hydra_problem(absent)
