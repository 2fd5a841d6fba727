"""Which images of train are held out: stratified, seeded, and a function of nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from da6401.errors import DataError
from da6401.redact import printable

Label = TypeVar("Label", str, int)


def single_problems(counts: Mapping[str, int]) -> list[str]:
    """Why classes with so many images cannot give some of them to validation; one sentence, or none."""
    single = sorted(name for name, count in counts.items() if count == 1)
    if not single:
        return []
    named = ", ".join(printable(name) for name in single[:20]) + (", ..." if len(single) > 20 else "")
    return [
        f"cannot hold out a validation part: only one image in class {named}. "
        "Every class needs at least two: add images, or remove the class."
    ]


def stratified_split(labels: Sequence[Label], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The indices that stay and the indices held out, both rising.

    Every class gives ``round(fraction * n)`` of its n images, but at least one and never all. Each class is drawn by
    a generator of its own, seeded with ``seed`` and its label: more images of one class do not move the others'.

    Raises:
        DataError: a class has a single image; the message names it.
    """
    assert 0 < fraction < 1, fraction
    members: dict[Label, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)

    problems = single_problems({str(label): len(indices) for label, indices in members.items()})
    if problems:
        raise DataError(*problems)

    held_out: set[int] = set()
    for label, indices in members.items():
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        held_out.update(random.Random(f"{seed}:{label}").sample(indices, count))
    kept = [index for index in range(len(labels)) if index not in held_out]
    return kept, sorted(held_out)
