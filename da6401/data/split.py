"""Which images are held out: stratified and seeded."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from da6401.config.schema import DigitsConfig, SyntheticConfig
from da6401.data.classes import single_problems
from da6401.data.image_sets import ReadSplit, TrainingData, training_data
from da6401.errors import DataError

Label = TypeVar("Label", str, int)


def stratified_split(labels: Sequence[Label], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The indices that stay and the indices held out, both ascending.

    Every class gives ``round(fraction * n)`` of its n images, but at least one and never all. Each class has its own
    generator, seeded with ``seed`` and its label: images added to one class do not change which others are held out.

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


def hold_out(
    cfg: DigitsConfig | SyntheticConfig,
    class_names: Sequence[str],
    labels_N: npt.NDArray[np.int64],
    read: Callable[[Sequence[int]], ReadSplit],
    *,
    origin: str,
    test: str,
) -> TrainingData:
    """Train and validation of a source without files: its images outside the test split, divided.

    Args:
        labels_N: of these images.
        read: makes the images at some positions of them.
        origin, test: what the images are, and which are the test split, for the note.
    """
    kept, held_out = stratified_split(labels_N.tolist(), cfg.val_fraction, cfg.split_seed)
    note = f"{origin}: {len(kept)} train, {len(held_out)} validation (data.split_seed={cfg.split_seed}); {test}."
    return training_data(class_names, read(kept), read(held_out), notes=[note])
