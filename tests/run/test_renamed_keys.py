"""Old names of keys go on working, wherever a key is written; what comes out has the new names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from da6401 import load_run, train
from da6401.cli import main
from da6401.commands.completion import ask_hydra
from da6401.config.reference import document
from da6401.config.validate import documented_keys
from da6401.config.yaml_files import package_of
from da6401.errors import ConfigError
from da6401.runs import renamed_keys
from da6401.runs.renamed_keys import RENAMED, renamed_tree, renamed_words
from tests.tiny_runs import SMALL

QUICK = (*SMALL, "trainer.epochs=1")
SWEEP = ("train", "--multirun", *QUICK, "study=s")
NEW = "augmentation.trivial_augment"
FOLDER = Path("outputs/sweeps/s")
VALUES = {  # of each old name: one, and another
    "resume": ("extend", "same"),
    "warm_start": ("s", "t"),
    "sweep.curve": ("seed", "study"),
    "data.on_bad": ("skip", "stop"),
    "augmentation.trivial": ("true", "false"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["da6401"])
    monkeypatch.setattr(renamed_keys, "_told", set())


def told(logged: pytest.LogCaptureFixture, old: str) -> list[str]:
    """The lines that tell of an old name."""
    lines = [record.getMessage() for record in logged.records if record.name == renamed_keys.__name__]
    return [line for line in lines if f"{old} is now called {RENAMED[old]}" in line]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What --cfg job prints."""
    assert main(["train", *words, "--cfg", "job"]) == 0
    tree: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return tree


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def write(path: Path, tree: Any, header: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + yaml.safe_dump(tree))


def test_new_names_are_keys_and_old_ones_are_none_and_are_shown_nowhere() -> None:
    keys = {name for name, _, _ in documented_keys()}
    assert set(RENAMED.values()) <= keys
    assert not set(RENAMED) & keys
    assert VALUES.keys() == RENAMED.keys()
    page = document()
    assert not [old for old in RENAMED if f"`{old}`" in page]


def test_the_page_of_versions_has_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "versions.md").read_text()
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    assert {old: new for what, _, old, new in rows if what == "key"} == RENAMED


@pytest.mark.parametrize("old", RENAMED)
def test_on_the_command_line(
    old: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    data = ("data=folder", f"data.root={tmp_path}")
    value = VALUES[old][0]
    for sign in ("", "++"):
        tree = shown(capsys, *data, f"{sign}{old}={value}")
        assert at(tree, RENAMED[old]) == yaml.safe_load(value)
    with pytest.raises(KeyError):
        at(tree, old)
    assert len(told(caplog, old)) == 1, "once in a process"
    assert main(["train", *data, f"{old}={value}", f"{RENAMED[old]}={value}"]) == 2
    assert (
        f"{old}: is the old name of {RENAMED[old]}, and both are given on the command line" in capsys.readouterr().err
    )


@pytest.mark.parametrize("old", RENAMED)
def test_in_a_users_yaml(
    old: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    value, other = VALUES[old]
    experiment = tmp_path / "my" / "experiment" / "mine.yaml"
    *groups, name = old.split(".")
    tree: dict[str, Any] = {name: yaml.safe_load(value)}
    for group in reversed(groups):
        tree = {group: tree}
    write(experiment, tree, "# @package _global_\n")
    words = ("--config-dir", "my", "experiment=mine", "data=folder", f"data.root={tmp_path}")
    assert at(shown(capsys, *words), RENAMED[old]) == yaml.safe_load(value)
    assert len(told(caplog, old)) == 1
    for key in (old, RENAMED[old]):  # the command line is stronger than a file, by either name
        assert at(shown(capsys, *words, f"{key}={other}"), RENAMED[old]) == yaml.safe_load(other)

    node: Any = tree
    for part in RENAMED[old].split(".")[:-1]:
        node = node.setdefault(part, {})
    node[RENAMED[old].rpartition(".")[2]] = yaml.safe_load(value)
    write(experiment, tree, "# @package _global_\n")
    assert main(["train", *words]) == 2
    assert f"and both are given in {tmp_path}/my/experiment/mine.yaml" in capsys.readouterr().err


def test_in_an_option_of_a_group_and_as_an_interpolation(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("my/augmentation/mine.yaml"), {"trivial": True, "flip": 0.5})
    write(
        Path("my/augmentation/lab/deep.yaml"), {"defaults": ["/augmentation/strong@_here_", "_self_"], "trivial": False}
    )
    write(Path("my/tracking/mine.yaml"), {"project": "${warm_start}", "entity": "resume"})
    words = ("--config-dir", "my", "warm_start=other", "tracking=mine")
    tree = shown(capsys, *words, "augmentation=mine")
    assert (tree["augmentation"]["trivial_augment"], tree["augmentation"]["flip"]) == (True, 0.5)
    assert (tree["tracking"]["project"], tree["tracking"]["entity"]) == ("${sweep.warm_start}", "resume")
    assert shown(capsys, *words, "augmentation=lab/deep")["augmentation"]["trivial_augment"] is False


@pytest.mark.parametrize(
    ("path", "header", "package"),
    [
        ("config", None, ""), ("augmentation/mine", None, "augmentation"), ("data/lab/x", None, "data"),
        ("experiment/mine", "_global_", ""), ("sweep/mine", "_group_", "sweep"), ("anything/x", "data", "data"),
        ("hydra/sweeper/mine", None, "hydra.sweeper"),
    ],
)  # fmt: skip
def test_the_keys_that_a_file_stands_for(path: str, header: str | None, package: str) -> None:
    assert package_of(path, header) == package


def numbers(*words: str) -> Sequence[optuna.trial.FrozenTrial]:
    assert main([*SWEEP, *words]) == 0
    return study().trials


def study() -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{FOLDER}/study.db")


def trained_with(number: int) -> bool:
    return load_run(FOLDER / f"trial-{number}").config.augmentation.trivial_augment


def test_in_a_search_on_the_command_line_and_in_yaml() -> None:
    space = {
        "params": {"augmentation.trivial": "choice(true,false)"},
        "conditional": [{"when": "augmentation.trivial=true", "params": {"augmentation.flip": "choice(0.1,0.2)"}}],
    }
    write(Path("my/sweep/mine.yaml"), {"sweep": {"curve": "augmentation.trivial"}, "hydra": {"sweeper": space}},
          "# @package _global_\n")  # fmt: skip
    trials = numbers("--config-dir", "my", "sweep=mine", "hydra/sweeper/sampler=grid")
    assert [each.params for each in trials] == [
        {NEW: True, "augmentation.flip": 0.1}, {NEW: True, "augmentation.flip": 0.2}, {NEW: False},
    ]  # fmt: skip
    assert [trained_with(each.number) for each in trials] == [True, True, False]
    assert (FOLDER / "curve.csv").read_text().startswith(f"{NEW},")

    condition = "{when: 'augmentation.trivial=true', params: {augmentation.flip: 'choice(0.1,0.2)'}}"
    typed = f"hydra.sweeper.conditional=[{condition}]"
    again = numbers("augmentation.trivial=choice(true,false)", typed, "sweep.curve=augmentation.trivial")
    assert again == trials, "the same study, by whichever names it is asked for"


def test_a_saved_config_and_its_overrides(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    run = train(*QUICK, "augmentation.trivial=true", out="r")
    assert run.config.augmentation.trivial_augment
    config = Path("r/config.yaml")
    tree = yaml.safe_load(config.read_text())
    tree["augmentation"]["trivial"] = tree["augmentation"].pop("trivial_augment")
    tree["warm_start"] = tree["sweep"].pop("warm_start")
    write(config, tree)
    caplog.clear()
    assert load_run("r").config == run.config
    assert len(told(caplog, "warm_start")) == 1
    assert main(["reproduce", "r"]) == 0
    capsys.readouterr()
    assert main(["reproduce", "r", "augmentation.trivial=false"]) in (0, 4)
    assert "changed as asked: augmentation.trivial_augment" in capsys.readouterr().out
    assert main(["compare", "r", str(next(Path.cwd().glob("r-again-*")))]) == 0
    assert "augmentation.trivial " not in capsys.readouterr().out

    write(config, tree | {"sweep": tree["sweep"] | {"warm_start": "x"}})
    assert main(["reproduce", "r"]) == 2
    both = "warm_start: is the old name of sweep.warm_start, and both are given in r/config.yaml"
    assert both in capsys.readouterr().err


def as_an_older_version_left_it(sweep: Path) -> None:
    """The database and the folders with the old name of the searched key."""
    old = "augmentation.trivial"
    with sqlite3.connect(sweep / "study.db") as database:
        database.execute("UPDATE trial_params SET param_name = ? WHERE param_name = ?", (old, NEW))
        for table in ("study_user_attributes", "trial_system_attributes", "trial_user_attributes"):
            database.execute(f"UPDATE {table} SET value_json = replace(value_json, ?, ?)", (NEW, old))
    database.close()
    for path in sweep.glob("trial-*/config.yaml"):
        path.write_text(path.read_text().replace("trivial_augment:", "trivial:"))


def test_an_old_study_goes_on_and_warms_a_new_one() -> None:
    words = ("augmentation.trivial=choice(true,false)", "optimizer.lr=choice(0.1,0.2)", "hydra/sweeper/sampler=tpe")
    numbers(*words, "hydra.sweeper.n_trials=2")
    study().enqueue_trial({"augmentation.trivial_augment": False, "optimizer.lr": 0.2})
    as_an_older_version_left_it(FOLDER)
    before = study().trials
    assert "augmentation.trivial" in before[0].params

    after = numbers(*words, "hydra.sweeper.n_trials=4", "data.images_per_class=12")
    assert list(after[:2]) == before[:2]
    assert [set(each.params) for each in after] == [{"augmentation.trivial", "optimizer.lr"}] * 4
    assert [trained_with(each.number) for each in after] == [each.params["augmentation.trivial"] for each in after]
    assert after[2].params == {"augmentation.trivial": False, "optimizer.lr": 0.2}, "what was enqueued"
    assert main([*SWEEP, "augmentation.trivial_augment=true", "optimizer.lr=choice(0.1,0.2)"]) == 2, "another space"

    warm = ("study=t", "warm_start=s", *words, "hydra.sweeper.n_trials=2")
    assert main(["train", "--multirun", *QUICK, *warm]) == 0
    best = max(after, key=lambda each: each.value or 0.0)
    warmed = optuna.load_study(study_name="t", storage="sqlite:///outputs/sweeps/t/study.db").trials[1]
    rate = best.params["optimizer.lr"]
    assert warmed.params == {NEW: best.params["augmentation.trivial"], "optimizer.lr": rate}


def test_completion_takes_a_line_with_an_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "da6401 train resume=extend augmentation.tri")
    ask_hydra()
    assert os.environ["COMP_LINE"] == "da6401 sweep.on_space_change=extend augmentation.tri"


def test_words_that_are_no_keys_stay() -> None:
    words = ["--config-name", "resume", "study=resume", "tracking.entity=warm_start", "model.resume=1", "~warm_start"]
    assert renamed_words(words) == [*words[:-1], "~sweep.warm_start"]
    assert renamed_tree({"study": "resume", "sweep": 5, "resume": "same"}, where="x") == {
        "study": "resume", "sweep": 5, "resume": "same",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"data\.on_bad: is the old name of data\.bad_files"):
        renamed_words(["data.on_bad=skip", "+data.bad_files=stop"])
