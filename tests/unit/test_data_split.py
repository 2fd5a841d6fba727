"""The held-out part: stratified, seeded, and moved by nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from da6401.data.split import stratified_split
from da6401.errors import DataError


@given(
    counts=st.dictionaries(st.integers(0, 9), st.integers(2, 30), min_size=1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_class_gives_its_share_and_nothing_is_lost(counts: dict[int, int], fraction: float, seed: int) -> None:
    labels = [label for label, count in counts.items() for _ in range(count)]
    random.Random(seed).shuffle(labels)
    kept, held_out = stratified_split(labels, fraction, seed)
    assert sorted(kept + held_out) == list(range(len(labels)))
    assert kept == sorted(kept)
    assert held_out == sorted(held_out)
    for label, count in counts.items():
        held = sum(labels[index] == label for index in held_out)
        assert held == min(max(round(fraction * count), 1), count - 1)


def test_the_seed_alone_decides() -> None:
    labels = ["cat"] * 50 + ["dog"] * 30
    first = stratified_split(labels, 0.2, seed=3)
    random.seed(99)
    random.random()
    assert stratified_split(labels, 0.2, seed=3) == first
    assert stratified_split(labels, 0.2, seed=4) != first


def test_the_split_is_the_same_on_every_machine_and_version() -> None:
    assert stratified_split([0] * 6 + [1] * 4, 0.3, seed=0)[1] == [4, 5, 7]


def test_more_images_of_one_class_do_not_move_another() -> None:
    few = stratified_split(["cat"] * 20 + ["dog"] * 10, 0.2, seed=0)[1]
    many = stratified_split(["cat"] * 20 + ["dog"] * 40, 0.2, seed=0)[1]
    assert [index for index in few if index < 20] == [index for index in many if index < 20]


def test_a_single_image_is_an_error_that_names_the_class() -> None:
    with pytest.raises(DataError, match="only one image in class newt"):
        stratified_split(["cat", "cat", "newt"], 0.2, seed=0)
