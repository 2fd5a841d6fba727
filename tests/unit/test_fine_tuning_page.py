"""The table of benchmarks/fine_tuning.py, on lines made by hand; each variant is a command that can be given."""

from __future__ import annotations

import pytest

from benchmarks.fine_tuning import OWN, VARIANTS, rows
from da6401.config.command_line import check_command_line

CHANGE = "optimizer.lr=1e-3"


def test_a_change_is_paired_with_the_values_as_they_are() -> None:
    accuracy = {(OWN, "a", 0): 0.5, (OWN, "a", 1): 0.6, (OWN, "b", 0): 0.7, (CHANGE, "a", 0): 0.52,
                (CHANGE, "a", 1): 0.61, (CHANGE, "b", 0): 0.72}  # fmt: skip
    table = rows(
        [
            {"variant": variant, "data": data, "seed": seed, "accuracy": value}
            for (variant, data, seed), value in accuracy.items()
        ]
    )
    assert table[0] == "| change | a | b | mean |"
    assert f"| {OWN} | 55.0 | 70.0 |  |" in table
    line = next(line for line in table if line.startswith(f"| {CHANGE} "))
    assert "| +2.0, +1.0 | +2.0 | +1.8 (" in line, "the sets count alike, whatever their seeds"


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_a_valid_command(variant: str) -> None:
    words = ["experiment=part_b", "model=efficientnet_lite0", "data=synthetic", *VARIANTS[variant]]
    config = check_command_line(words, multirun=False).config
    own = check_command_line(words[:3], multirun=False).config
    assert (config == own) == (variant == OWN)
