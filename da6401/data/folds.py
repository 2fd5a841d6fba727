"""Train and validation together, for data.fold=I/K divided anew into K parts, of which the I-th is validation.

The parts are stratified, keep the groups of data.group_by together, and depend, as every draw, on hashes of names with
data.split_seed alone. The test split is not touched.
"""

# B batch, N images of both splits, K folds

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from da6401.data.draw import MOST_ORDERS, WORK, rank
from da6401.data.image_sets import ImageSet, Pixels, TrainingData
from da6401.data.resident import chosen_images
from da6401.errors import DataError
from da6401.redact import listed

Folds = npt.NDArray[np.int64]  # (N,): 0..K-1


class Pooled:
    """The images of several sets, one set after another; indexed as Pixels are."""

    def __init__(self, parts: Sequence[Pixels]) -> None:
        self._parts = parts
        counts = [part.shape[0] for part in parts]
        self._starts = np.cumsum([0, *counts]).tolist()
        self.shape = torch.Size((sum(counts), *parts[0].shape[1:]))

    def __getitem__(self, positions_B: Tensor) -> Tensor:
        found = torch.empty((len(positions_B), *self.shape[1:]), dtype=torch.uint8)
        for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            inside_B = (positions_B >= start) & (positions_B < end)
            if inside_B.any():
                found[inside_B] = part[positions_B[inside_B] - start]
        return found


def pooled(data: TrainingData) -> ImageSet:
    """The images of train, then those of validation."""
    return ImageSet(
        Pooled([data.train.images_NCHW, data.validation.images_NCHW]),
        torch.cat([data.train.labels_N, data.validation.labels_N]),
        (*data.train.names, *data.validation.names),
    )


def with_validation(data: TrainingData) -> TrainingData:
    """The same with the images of validation among those of train."""
    train = pooled(data)
    note = f"All {len(train.names)} images of train and validation are trained on (trainer.train_on=all)."
    fingerprint = hashlib.sha256(f"{data.fingerprint} all".encode()).hexdigest()
    return dataclasses.replace(data, train=train, fingerprint=fingerprint, notes=(*data.notes, note))


def fold_of(data: TrainingData, fold: str, *, seed: int) -> TrainingData:
    """One fold of the images that a training may see.

    Args:
        fold: "I/K", I from 1.
        seed: data.split_seed.

    Raises:
        DataError: too few images or groups for so many folds, or a fold whose classes cannot all be trained.
    """
    number, folds = map(int, fold.split("/"))
    pool = pooled(data)
    names = pool.names
    folds_N = draw_folds(
        names, pool.labels_N.numpy(), class_names=data.class_names, folds=folds, seed=seed,
        groups=None if data.groups is None else [data.groups[name] for name in names],
    )  # fmt: skip
    train, validation = (
        chosen_images(pool, torch.from_numpy(np.flatnonzero(rows_N)))
        for rows_N in (folds_N != number - 1, folds_N == number - 1)
    )
    together = "" if data.groups is None else ", groups kept together (data.group_by)"
    note = (
        f"Fold {number} of {folds} of train and validation together: {len(train.names)} train and "
        f"{len(validation.names)} validation images, every class alike{together} (data.split_seed={seed})."
    )
    # The pool's contents and the draw decide the fold.
    fingerprint = hashlib.sha256(f"{data.fingerprint} {fold} {seed} {data.groups is not None}".encode()).hexdigest()
    return dataclasses.replace(
        data, train=train, validation=validation, fingerprint=fingerprint, notes=(*data.notes, note)
    )


def draw_folds(
    names: Sequence[str],
    labels_N: npt.NDArray[np.integer],
    *,
    class_names: Sequence[str],
    folds: int,
    seed: int,
    groups: Sequence[str] | None,
) -> Folds:
    """The fold of each image, 0..K-1.

    Without groups, two folds differ by at most one image of each class, and by at most one image in all.

    Args:
        groups: of each image; none stands in two folds.

    Raises:
        DataError: as ``fold_of``.
    """
    units = len(names) if groups is None else len(set(groups))
    if units < folds:
        what = "images" if groups is None else "groups (data.group_by)"
        raise DataError(f"{folds} folds need at least as many {what}, and there are {units}: take fewer folds.")
    drawn = (
        _draw_images(names, labels_N, folds, seed) if groups is None else _draw_groups(groups, labels_N, folds, seed)
    )
    counts = np.zeros((folds, len(class_names)), dtype=np.int64)
    np.add.at(counts, (drawn, labels_N), 1)
    whole = [name for name, of_fold in zip(class_names, counts.T, strict=True) if of_fold.max() == of_fold.sum() > 0]
    if whole:
        why = "a single image" if groups is None else "their images in a single fold, since groups stay together"
        raise DataError(
            f"These classes have {why}, so that one fold could not train them: {listed(whole)}. Add images or leave "
            "the class out (data.exclude)."
        )
    return drawn


def _draw_images(names: Sequence[str], labels_N: npt.NDArray[np.integer], folds: int, seed: int) -> Folds:
    """Each class in the order of its hashes, dealt out to the folds; the next class goes on where the last ended."""
    ranks = np.array([rank(seed, name)[:16] for name in names], dtype="S16")
    drawn = np.empty(len(names), dtype=np.int64)
    drawn[np.lexsort((ranks, labels_N))] = np.arange(len(names)) % folds
    return drawn


def _draw_groups(groups: Sequence[str], labels_N: npt.NDArray[np.integer], folds: int, seed: int) -> Folds:
    """Whole groups, each to the fold that misses its classes most; the best of several orders by hashes."""
    found: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels_N.tolist(), strict=True):
        found.setdefault(group, Counter())[label] += 1
    totals = Counter(labels_N.tolist())
    tries = []
    for attempt in range(max(1, min(MOST_ORDERS, WORK // len(found)))):
        ordered = sorted(found, key=lambda group: rank(seed, f"{attempt}\0{group}"))
        tries.append(_place({group: found[group] for group in ordered}, totals, folds))
    _, place = min(tries, key=lambda each: each[0])
    return np.array([place[group] for group in groups], dtype=np.int64)


def _place(
    ordered: Mapping[str, Mapping[int, int]], totals: Mapping[int, int], folds: int
) -> tuple[float, dict[str, int]]:
    """How far the folds end from equal shares of each class, and the fold of each group.

    An empty fold, or a class that stands in one alone, counts as more than any distance. All sums are exact (fsum), so
    that every machine finds the same.
    """
    missing = [{label: total / folds for label, total in totals.items()} for _ in range(folds)]
    place: dict[str, int] = {}
    for group, counts in ordered.items():
        need = [
            math.fsum(count * each[label] / totals[label] ** 2 for label, count in counts.items()) for each in missing
        ]
        place[group] = need.index(max(need))
        for label, count in counts.items():
            missing[place[group]][label] -= count
    distance = math.fsum((each[label] / total) ** 2 for each in missing for label, total in totals.items())
    empty = folds - len(set(place.values()))
    alone = sum(any(total / folds - each[label] > total - 0.5 for each in missing) for label, total in totals.items())
    return distance + 1e6 * (empty + alone), place
