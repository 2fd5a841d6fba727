"""Overrides as the shell hands them over: a path is its letters, and what is meant as a sweep stays one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from da6401.config.command_line import check_command_line
from da6401.config.quoting import quote, quoted, value_of
from da6401.errors import ConfigError
from da6401.sweep import worker_pool

NAMES = (
    "archive (1)", "my data", "données", "a=b", "it's", "a&b", "a#b", "a;b", "a!b", "a{b}", "x'y\"z", "a`b", "<x>",
    "$x", "100%", "a:b", "a\\", "~x", "new\nline", "not-utf8-\udcff", "2020.10", "1e3", "007", "[x]", "{a:1}",
    "日本", "a", "/data/a-b_c.d", " led by a space", "ended by one ",
)  # fmt: skip


def read(word: str) -> object:
    override = OverridesParser.create().parse_overrides([word])[0]
    return "a sweep" if override.is_sweep_override() else override.value()


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_its_letters(name: str) -> None:
    for key in ("data.root", "++data.root", "model.weights", "hydra.run.dir", "hydra.sweep.dir"):
        (word,) = quoted([f"{key}={name}"])
        assert read(word) == name
        assert quoted([word]) == [word]  # a worker of a sweep gets the command in quotes already
        assert value_of(["seed=1", word], key.lstrip("+")) == name


@given(text=st.text(st.characters(exclude_categories=[]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_quoted(text: str) -> None:
    assert read(f"data.root={quote(text)}") == text


@pytest.mark.parametrize(
    "word",
    [
        "data.root=choice(a,b)", "data.root=a,b", "data.root='archive (1)'", 'data.root="archive (1)"',
        "data.root=archive\\ \\(1\\)", "data.root=", "data.root=null", "hydra.run.dir=runs/${now:%Y-%m-%d}",
        "seed=1,2", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=cnn", "~sweep", "--multirun", "seed",
        "hydra.sweeper.storage=null", "sweep.objectives='val_accuracy,macs'", "model.filters=[8,16]",
        "model.pooling=a(",
    ],
)  # fmt: skip
def test_what_has_a_meaning_of_its_own_stays(word: str) -> None:
    assert quoted([word]) == [word]


@pytest.mark.parametrize("name", ["a,b", "choice(a,b)", "null", "5,6"])
def test_what_lies_there_decides_between_two_meanings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quoted([f"data.root={name}"]) == [f"data.root={name}"]
    Path(name).mkdir()
    assert read(quoted([f"data.root={name}"])[0]) == name


def test_a_sweep_over_paths_has_each_in_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        Path(f"archive ({number})").mkdir()
    (word,) = quoted(["data.root=archive (1),archive (2)"])
    assert read(word) == "a sweep"
    override = OverridesParser.create().parse_overrides([word])[0]
    assert [str(getattr(item, "text", item)) for item in override.value().list] == ["archive (1)", "archive (2)"]  # type: ignore[union-attr]


def test_a_run_folder_in_the_home_folder_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann b")
    assert value_of(quoted(["hydra.run.dir=~/runs/1"]), "hydra.run.dir") == "/home/ann b/runs/1"


def test_other_texts_are_quoted_where_the_grammar_refuses_them() -> None:
    assert value_of(quoted(["tracking.project=Ann's project (2)"]), "tracking.project") == "Ann's project (2)"
    storage = "postgresql://ann:pa&ss#=@host/db?sslmode=require"
    assert value_of(quoted([f"hydra.sweeper.storage={storage}"]), "hydra.sweeper.storage") == storage


def test_of_a_key_given_twice_the_last_counts() -> None:
    words = quoted(["hydra.run.dir=a (1)", "hydra.run.dir=b (2)"])
    assert value_of(words, "hydra.run.dir") == "b (2)"
    assert value_of(words, "hydra.sweep.dir") is None


@pytest.mark.parametrize(
    ("typed", "devices"),
    [("0,1", ["0", "1"]), (" 0, 1", ["0", "1"]), ("7", ["7"]), ("'0,1'", ["0", "1"]), ("[0,2]", ["0", "2"])],
)
def test_the_commas_of_a_list_that_is_never_searched_are_a_list(typed: str, devices: list[str]) -> None:
    words = quoted([f"sweep.gpus={typed}", "model.filters=2,4"])
    assert words[1] == "model.filters=2,4"
    config = check_command_line(words, multirun=True).config
    assert config is not None
    assert worker_pool._gpus(config.sweep.gpus) == devices


@pytest.mark.parametrize("typed", ["all", "0;1", "[-1]", "choice(0,1)"])
def test_gpus_that_are_none_are_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.gpus"):
        check_command_line(quoted([f"sweep.gpus={typed}", "model.filters=2,4"]), multirun=True)
