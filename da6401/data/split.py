"""Which images of train are held out: stratified, seeded, and a function of nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from da6401.errors import DataError

Label = TypeVar("Label", str, int)


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

    single = sorted(label for label, indices in members.items() if len(indices) < 2)
    if single:
        named = ", ".join(str(label) for label in single[:20]) + (", ..." if len(single) > 20 else "")
        raise DataError(
            f"cannot hold out a validation part: only one image in class {named}. "
            "Every class needs at least two: add images, or remove the class."
        )

    held_out: set[int] = set()
    for label, indices in members.items():
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        held_out.update(random.Random(f"{seed}:{label}").sample(indices, count))
    kept = [index for index in range(len(labels)) if index not in held_out]
    return kept, sorted(held_out)
