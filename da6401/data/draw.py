"""Splits that are drawn: stratified, seeded, and the same for ever.

Only hashes of the images' names (or groups) with the seed decide: not the order in which files were listed, not the
version of any library. An image that is added moves at most those at the edge of a split.
"""

# C classes, G groups, N images

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from da6401.config.splits import TEST, TRAIN, VALIDATION, SplitName
from da6401.data.classes import single_problems
from da6401.errors import DataError
from da6401.redact import listed

SPLITS: tuple[SplitName, ...] = (TRAIN, VALIDATION, TEST)
DRAWN = -1  # in place of an index into SPLITS: to be drawn
MOST_ORDERS = 64  # of the groups that are tried
WORK = 50_000  # groups placed in all tries together

Splits = npt.NDArray[np.int8]
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


def draw(
    names: Sequence[str],
    labels_N: npt.NDArray[np.integer],
    *,
    class_names: Sequence[str],
    test_fraction: float,
    val_fraction: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Splits:
    """The split of each image, (N,), an index into SPLITS.

    Args:
        test_fraction: share of all; 0: no test split.
        val_fraction: share of what is not test.
        groups: of each image; none stands in two splits.

    Raises:
        DataError: a class has fewer images, or the whole fewer groups, than there are splits.
    """
    shares: dict[SplitName, float] = {VALIDATION: (1 - test_fraction) * val_fraction, TEST: test_fraction}
    shares = {split: share for split, share in shares.items() if share}
    if groups is None:
        return _draw_images(names, labels_N, class_names, test_fraction, val_fraction, seed)
    return _draw_groups(groups, labels_N, class_names, shares, seed)


def rank(seed: int, text: str) -> bytes:
    """What images and groups are ordered by."""
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogateescape")).digest()


def _draw_images(
    names: Sequence[str],
    labels_N: npt.NDArray[np.integer],
    class_names: Sequence[str],
    test_fraction: float,
    val_fraction: float,
    seed: int,
) -> Splits:
    """Each class in the order of its hashes: the first are test, the next validation."""
    counts = np.bincount(labels_N, minlength=len(class_names))
    needed = 3 if test_fraction else 2
    few = [name for name, count in zip(class_names, counts, strict=True) if 0 < count < needed]
    if few:
        less = " Or draw no test split (data.test_fraction=0)." if test_fraction else ""
        raise DataError(
            f"Too few images to draw splits from: every class needs {needed}, and these have fewer: {listed(few)}. "
            f"Add images, or leave the class out (data.exclude).{less}"
        )
    ranks = np.array([rank(seed, name)[:16] for name in names], dtype="S16")
    order = np.lexsort((ranks, labels_N))
    splits = np.zeros(len(names), dtype=np.int8)
    start = 0
    for count in counts.tolist():
        if not count:
            continue
        test = _count(test_fraction, count, keep=2) if test_fraction else 0
        validation = _count(val_fraction, count - test, keep=1)
        splits[order[start : start + test]] = SPLITS.index(TEST)
        splits[order[start + test : start + test + validation]] = SPLITS.index(VALIDATION)
        start += count
    return splits


def _count(fraction: float, count: int, *, keep: int) -> int:
    """A share of ``count`` images: at least one, and at least ``keep`` are left."""
    return min(max(math.floor(fraction * count + 0.5), 1), count - keep)


@dataclass(frozen=True)
class _Group:
    name: str
    counts: tuple[tuple[int, int], ...]  # (label, images)


def _draw_groups(
    groups: Sequence[str],
    labels_N: npt.NDArray[np.integer],
    class_names: Sequence[str],
    shares: dict[SplitName, float],
    seed: int,
) -> Splits:
    """Whole groups, so that each class comes near its share in each split.

    Groups are placed one after another, each where its classes are missed most. Several orders, by hashes of the
    groups' names, are tried; the one that comes nearest to the shares is taken.
    """
    found: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels_N.tolist(), strict=True):
        found.setdefault(group, Counter())[label] += 1
    if len(found) <= len(shares):
        raise DataError(
            f"data.group_by gives {len(found)} group{'s' if len(found) > 1 else ''}, too few for "
            f"{len(shares) + 1} splits: choose finer groups, or fewer splits (data.test_fraction=0)."
        )
    members = [_Group(name, tuple(sorted(counts.items()))) for name, counts in sorted(found.items())]
    totals = np.bincount(labels_N, minlength=len(class_names)).tolist()
    best: tuple[float, dict[str, SplitName]] | None = None
    for attempt in range(max(1, min(MOST_ORDERS, WORK // len(members)))):
        ordered = sorted(members, key=lambda group: rank(seed, f"{attempt}\0{group.name}"))
        placed = _place(ordered, totals, shares)
        if best is None or placed[0] < best[0]:
            best = placed
    assert best is not None
    number = {split: SPLITS.index(split) for split in SPLITS}
    return np.array([number[best[1][group]] for group in groups], dtype=np.int8)


def _place(
    ordered: Sequence[_Group], totals: Sequence[int], shares: dict[SplitName, float]
) -> tuple[float, dict[str, SplitName]]:
    """How far the splits end from their shares, and the split of each group.

    The distance is the sum of squares, over splits and classes, of the images too many or too few as a share of the
    class; an empty split, or a class that train lacks, counts as more than any of them. All sums are exact (fsum), so
    that every machine finds the same.
    """
    wanted = {TRAIN: 1 - math.fsum(shares.values()), **shares}
    missing = {split: [share * total for total in totals] for split, share in wanted.items()}
    place: dict[str, SplitName] = {}
    for group in ordered:
        need = {
            split: math.fsum(count * missing[split][label] / totals[label] ** 2 for label, count in group.counts)
            for split in wanted
        }
        split = max(wanted, key=lambda name: need[name])
        place[group.name] = split
        for label, count in group.counts:
            missing[split][label] -= count
    distance = math.fsum(
        (rest / total) ** 2 for split in wanted for rest, total in zip(missing[split], totals, strict=True) if total
    )
    empty = len(wanted) - len(set(place.values()))
    share = wanted[TRAIN]
    untrained = sum(total > 0 and rest == share * total for rest, total in zip(missing[TRAIN], totals, strict=True))
    return distance + 1e6 * (empty + untrained), place


def leaking_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[str]]:
    """Groups that stand in more than one split, with these."""
    seen: dict[str, dict[str, None]] = {}
    for group, split in zip(groups, splits, strict=True):
        seen.setdefault(group, {})[split] = None
    return {group: list(where) for group, where in sorted(seen.items()) if len(where) > 1}
