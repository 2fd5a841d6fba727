"""A verb or a flag that there is not: what was probably meant, and exit code 2."""

from __future__ import annotations

import re

import pytest

from da6401.cli import main
from da6401.commands.verbs import parser
from da6401.config.arguments import parse_flags

MISSPELT = {
    "trian seed=1": "trian: no such verb: train, tune, reproduce, compare, evaluate, predict, ...; did you mean train?",
    "predct RUN a.jpg": "predct: no such verb: ...; did you mean predict?",
    "predict --jsn RUN a.jpg": "predict: --jsn: no such option; did you mean --json?",
    "report --prot 3 DIR": "report: --prot: no such option; did you mean --port?",
    "explain RUN --split valdation": "explain: valdation: no such value of --split: ...; did you mean validation?",
    "data fetsh": "data: fetsh: no such verb: ...; did you mean fetch?",
    "data fetch inaturalist": "data fetch: inaturalist: no such name: ...; did you mean inaturalist12k?",
    "evaluate RUN RUN2": "evaluate: RUN2: is one word too many",
    "train --multrun seed=1,2": "train: --multrun: no such option; did you mean --multirun?",
    "train -multirun seed=1,2": "train: -multirun: no such option; did you mean --multirun?",
    "train --cfg jb": "train: jb: no such value of --cfg/-c: ...; did you mean job?",
    "seed=1 device=cpu": "seed=1: no such verb: ...; did you mean da6401 train seed=1 device=cpu?",
    "--multirun sweep=part_a": "sweep=part_a: no such verb: ...; did you mean da6401 train --multirun sweep=part_a?",
    "evaluat": "evaluat: no such verb: ...; did you mean evaluate?",
    "predict RUN": "predict: the following arguments are required: IMAGE usage: da6401 predict",
}


@pytest.mark.parametrize("line", MISSPELT)
def test_what_is_misspelt_gets_a_suggestion(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, said = capsys.readouterr()
    assert not out
    pattern = ".*".join(map(re.escape, MISSPELT[line].split("...")))
    assert re.match(f"da6401: {pattern}", " ".join(said.split())), said


def test_nothing_typed_is_answered_by_three_lines_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    da6401 ")]
    assert [line.split()[1] for line in lines] == ["train", "tune", "predict"]


@pytest.mark.parametrize("verb", ["reproduce", "count", "predict", "evaluate"])
def test_options_and_words_come_in_any_order(verb: str) -> None:
    """The commands that are printed end with a plugin's file, and people add their words behind it."""
    words = {"reproduce": ["RUN", "trainer.train_on=all"], "count": ["model.filters=8"], "predict": ["RUN", "a", "b"]}
    first, *others = words.get(verb, ["RUN"])
    option = ["--plugin", "own.py"]
    known = parser()
    one, *more = (
        vars(known.parse_args([verb, *each]))
        for each in ([first, *option, *others], [*option, first, *others], [first, *others, *option])
    )
    assert all(each == one for each in more)
    assert one["plugin"] == ["own.py"]


def test_what_is_spelt_well_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--help"])
    assert leaving.value.code == 0
    assert "--json" in capsys.readouterr().out
    assert main(["train", "--multi", "--help"]) == 0, "Hydra takes the beginning of a flag for the flag"


def test_flags_are_hydras() -> None:
    given = parse_flags(["--config-dir", "m", "seed=1", "-m", "-cn", "r", "device=cpu"])
    assert (given.config_dir, given.config_name, given.multirun) == ("m", "r", True)
    assert given.overrides == ["seed=1", "device=cpu"]
