"""Eight configurations train to the weights of commit c2f6fe2, to the bit: weights.py, weights.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from da6401.cli import main
from tests.golden.commands import COMMIT
from tests.golden.machine import facts
from tests.golden.weights import CONFIGURATIONS, FILE, Weights, commands, trained

GOLDEN: dict[str, Any] = json.loads(FILE.read_text())
WEIGHTS: dict[str, Weights] = GOLDEN["weights"]
OTHER = {name: value for name, value in facts().items() if GOLDEN["made_on"].get(name) != value}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.skipif(bool(OTHER), reason=f"weights.json was made with other: {OTHER}; python -m tests.golden.weights")
def test_the_weights_are_those_of_then(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["da6401"])
    for words in commands(name):
        assert main(words) == 0, capsys.readouterr().err
    assert trained(Path(name)) == WEIGHTS[name]


def test_the_hashes_are_of_eight_different_configurations() -> None:
    assert GOLDEN["commit"] == COMMIT
    assert list(WEIGHTS) == list(CONFIGURATIONS)
    assert len(CONFIGURATIONS) == 8
    runs = {name: [tuple(each) for each in weights.values()] for name, weights in WEIGHTS.items()}
    assert {name: len(each) for name, each in runs.items()} == {
        "part_a": 1, "part_a_residual": 1, "part_b_two_stages": 2, "part_b_seven_stages": 2, "part_b_head": 2,
        "ema_and_mixup": 1, "sweep": 6, "confirmed_sweep": 4 + 2 * 2,
    }  # fmt: skip
    for exact in ("part_b_two_stages", "part_b_seven_stages"):  # the feature cache changes nothing there
        assert len(set(runs[exact])) == 1
        del runs[exact][1]
    every = [each for of_one in runs.values() for each in of_one]
    assert len(set(every)) == len(every)
    ((last, best),) = runs["ema_and_mixup"]
    assert last != best, "the average of the weights is kept, not the weights"
