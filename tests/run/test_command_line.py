"""The command as a user types it: quick, without torch where none is needed, one screen for every mistake."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from da6401.cli import main
from da6401.config.command_line import check_command_line
from da6401.config.schema import CnnConfig
from da6401.config.search_path import CONFIG_NAME, SearchPath, conf_dir
from da6401.errors import ConfigError
from tests.tiny_runs import DIVERGING, SMALL, compose, typed

MISTAKES = {
    "a key": (["model.droput=0.3"], ["model.droput", "did you mean model.dropout?"]),
    "a +key": (["+trainer.epoch=3"], ["trainer.epoch:", "did you mean trainer.epochs?"]),
    "a ++key": (["++sead=3"], ["sead", "did you mean seed?"]),
    "a group": (["modle=cnn"], ["modle", "did you mean model?"]),
    "an option": (["optimizer=adamww"], ["optimizer=adamww", "did you mean adamw?"]),
    "a range": (["optimizer.lr=-1"], ["optimizer.lr=-1", "(0, 100]"]),
    "a type": (["trainer.epochs=many"], ["trainer.epochs='many'", "whole number"]),
    "shapes": (["model.blocks=9"], ["model.blocks=9", "data.image_size"]),
    "freeze depth": (["model=resnet18", "model.freeze_depth=6"], ["0..5", "layer1"]),
    "a root for digits": (["data.root=x"], ["data.root", "data=folder"]),
    "no root": (["data=folder"], ["data.root", "folder"]),
    "a sweep without --multirun": (["seed=1,2"], ["seed=1,2", "--multirun"]),
    "no override": (["seed"], ["seed: not an override"]),
    "Hydra's own key": (["hydra.sweeper.n_trial=3"], ["n_trial", "n_trials"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_screen(name: str) -> None:
    overrides, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        check_command_line(overrides, config_dir=None, multirun=False)
    for words in expected:
        assert words in str(caught.value)


def test_all_mistakes_of_a_command_come_together(tmp_path: Path) -> None:
    left_out = {"Hydra's own key", "freeze depth", "a sweep without --multirun"}
    overrides = [text for name, (words, _) in MISTAKES.items() if name not in left_out for text in words]
    with pytest.raises(ConfigError) as caught:
        check_command_line(overrides, config_dir=None, multirun=False)
    assert len(caught.value.problems) >= 9


def test_a_typo_in_a_users_yaml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\nmodel:\n  dropuot: 0.3\n")
    with pytest.raises(ConfigError) as caught:
        check_command_line(["experiment=mine"], config_dir=str(tmp_path), multirun=False)
    (problem,) = caught.value.problems
    assert "model.dropuot" in problem
    assert str(file) in problem
    assert "did you mean model.dropout?" in problem


def test_a_users_yaml_is_used(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "quick.yaml").write_text("epochs: 3\n")
    config = check_command_line(["trainer=quick"], config_dir=str(tmp_path), multirun=False).config
    assert config is not None
    assert config.trainer.epochs == 3


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("optimizer.lr=interval(-1,1)", "optimizer.lr=-1"),
        ("model.dropuot=choice(0.1,0.2)", "did you mean model.dropout"),
        ("model.dropout=choice(0.1,1.0)", "model.dropout=1"),
        ("model.blocks=interval(1,4)", "int(interval(1, 4))"),
        ("model=choice(cnn,resnet19)", "did you mean resnet18"),
        ("model.freeze_depth=choice(0,1)", "model=cnn has no such key"),
    ],
)
def test_a_search_space_that_cannot_work_is_refused(space: str, words: str) -> None:
    with pytest.raises(ConfigError, match="problem") as caught:
        check_command_line([space], config_dir=None, multirun=True)
    assert words in str(caught.value)


OPTIONS = SearchPath().options()


@pytest.mark.parametrize("group", OPTIONS)
def test_every_option_of_every_group_composes(group: str) -> None:
    for name in OPTIONS[group]:
        extra = {
            "inception_v3": ["data.image_size=96"], "timm": ["model.arch=resnet18"],
            "torchvision": ["data.name=MNIST", "data.root=x"] if group == "data" else ["model.arch=resnet18"],
        }.get(name, ["data.root=x"] if group == "data" and name not in ("digits", "synthetic") else [])  # fmt: skip
        extra += ["sweep.minutes=1"] if name.startswith("tune") else []  # a race has a limit
        check_command_line([f"{group}={name}", *extra], multirun=True)


def test_every_group_of_the_readme_is_there() -> None:
    wanted = {"model", "data", "optimizer", "schedule", "augmentation", "trainer", "tracking", "experiment", "sweep"}
    wanted |= {"callbacks"}  # whose options are those of plugins
    assert set(OPTIONS) == wanted
    assert (conf_dir() / f"{CONFIG_NAME}.yaml").exists()


def test_experiments_can_be_overridden() -> None:
    config = compose("experiment=part_a", "optimizer.lr=0.5", "model.filters=[8,16]", "augmentation=none")
    assert config.optimizer.lr == 0.5
    assert isinstance(config.model, CnnConfig)
    assert config.model.filters == [8, 16]


def test_mistakes_end_in_exit_code_2_within_three_seconds_without_torch(tmp_path: Path) -> None:
    words = ["train", "model.droput=0.3", "trainer.epochs=0"]
    code = (
        f"import sys; from da6401.cli import main; code = main({words!r}); "
        "assert not {'torch', 'torchvision', 'optuna', 'wandb'} & set(sys.modules), 'a heavy import'; sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - started < 3
    assert "2 problems" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_cfg_import_no_torch(tmp_path: Path) -> None:
    shown = [["--help"], ["train", "--help"], ["train", "--cfg", "job"], ["data", "check", "--help"]]
    code = (
        f"import sys\nfrom da6401.cli import main\nfor words in {shown!r}:\n    print('\\f', words)\n"
        "    try:\n        assert main(words) == 0, words\n"
        "    except SystemExit as leaving:\n        assert not leaving.code, words\n"
        "assert not {'torch', 'torchvision', 'wandb'} & set(sys.modules), 'a heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(len(text) > 100 for text in done.stdout.split("\f")[1:])


def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    code, out, errors = typed("train", *SMALL, "hydra.run.dir=out", cwd=tmp_path)
    assert code == 0, errors
    assert "multiply-accumulates" in out
    assert "validation accuracy" in out
    assert (tmp_path / "out" / "result.json").exists()
    assert (tmp_path / "out" / ".hydra" / "overrides.yaml").exists()
    assert "epoch 2/2" in (tmp_path / "out" / "train.log").read_text()


def test_a_working_folder_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["train", *SMALL]) == 2
    assert capsys.readouterr().err == "da6401: the folder that you are in was removed: cd to another\n"


def test_divergence_ends_in_exit_code_3(tmp_path: Path) -> None:
    code, _, errors = typed("train", *DIVERGING, "hydra.run.dir=out", cwd=tmp_path)
    assert code == 3, errors
    assert errors.startswith("da6401: training diverged")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "words",
    [
        ["model=timm", "model.arch=resnet18,resnet10t"],  # whose default names no architecture
        ["model=cnn", "data=synthetic", "data.image_size=16", "model.filters=[4],[8]"],  # a list sets the blocks, too
        ["model=cnn", "data=synthetic", "data.image_size=16", "model.blocks=2,3"],
    ],
)
def test_what_the_searched_values_replace_need_not_fit(words: list[str]) -> None:
    assert check_command_line(words, multirun=True).space.parameters
    with pytest.raises(ConfigError, match="block5 receives a 1 x 1 map"):
        check_command_line(["model=cnn", "data=synthetic", "data.image_size=16", "model.blocks=8,9"], multirun=True)
