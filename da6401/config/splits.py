"""The names of a data set's splits, in keys, commands, notes and files."""

from __future__ import annotations

from typing import Final, Literal, get_args

SplitName = Literal["train", "validation", "test"]
ScoredSplit = Literal["validation", "test"]  # a model is evaluated on these two
ValRole = Literal["auto", ScoredSplit]  # what a folder val/ is

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
SCORED_SPLITS: tuple[ScoredSplit, ...] = get_args(ScoredSplit)
