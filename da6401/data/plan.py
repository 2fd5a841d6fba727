"""From a listing to train, validation and test: what is excluded, what is drawn, what stays together."""

# N images

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from da6401.config.schema import FolderConfig, ImageFiles
from da6401.config.splits import TRAIN, VALIDATION, SplitName
from da6401.data.classes import training_problems
from da6401.data.draw import DRAWN, SPLITS, Splits, draw, leaking_groups, stratified_split
from da6401.data.groups import exclude_note, excluded_names, groups_of, readable_group
from da6401.data.listing import Listing
from da6401.data.tree import BadFile, LabelledFile, SplitFiles, by_folder
from da6401.errors import DataError
from da6401.redact import listed, one_line

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Which images of a listing are which split."""

    listing: Listing
    splits_N: Splits  # index into SPLITS; -1: left out
    groups: Sequence[str] | None
    bad: tuple[BadFile, ...]  # those of the listing that are not left out
    notes: tuple[str, ...]

    def rows(self, split: SplitName) -> Rows:
        """The places of a split's images in the listing, in the order of their names."""
        found = np.flatnonzero(self.splits_N == SPLITS.index(split))
        names = self.listing.names
        return np.array(sorted(map(int, found), key=lambda row: by_folder(names[row])), dtype=np.int64)

    def files(self, split: SplitName) -> list[LabelledFile]:
        """A split's images, in the order of their names."""
        return [self.listing.locate(int(row)) for row in self.rows(split)]

    @property
    def drawn(self) -> bool:
        """Whether some split was drawn, not given."""
        return bool((self.listing.splits_N == DRAWN).any())

    @property
    def groups_by_name(self) -> dict[str, str] | None:
        """The group of each image; None without data.group_by."""
        return None if self.groups is None else dict(zip(self.listing.names, self.groups, strict=True))

    def has(self, split: SplitName) -> bool:
        return bool((self.splits_N == SPLITS.index(split)).any())

    @cached_property
    def leaks(self) -> dict[str, list[str]]:
        """Groups that stand in more than one split."""
        if self.groups is None:
            return {}
        kept = np.flatnonzero(self.splits_N >= 0)
        sides = [SPLITS[split] for split in self.splits_N[kept].tolist()]
        return leaking_groups([self.groups[row] for row in kept.tolist()], sides)


def make_plan(listing: Listing, cfg: ImageFiles) -> Plan:
    """Draw what is to be drawn, keep groups together, and leave out what data.exclude names.

    Splits that are given stay as they are; where none is given, test and validation are drawn; where only validation
    is missing, it is drawn from train. What is left out is drawn too, so that data.exclude moves no other image.

    Raises:
        DataError: too few images or groups to draw from, or data.exclude or data.group_by does not fit the data.
    """
    asked = excluded_names(cfg.exclude)
    keep = np.array([name not in asked for name in listing.names], dtype=bool)
    notes = exclude_note(cfg.exclude, asked, [*listing.names, *(file.name for file in listing.bad)])
    if not keep.any():
        first = "".join(f" ({one_line(file.name)}: {one_line(file.reason)})" for file in listing.bad[:1])
        raise DataError(f"{listing.root}: it holds no usable image{first}.")
    listing = _without_empty_classes(listing, keep)
    splits, groups = listing.splits_N.copy(), None
    keep = np.array([name not in asked for name in listing.names], dtype=bool)
    if cfg.group_by:
        groups = groups_of(cfg.group_by, listing.names, listing.columns)
    rows, test_fraction = _rows_to_draw(splits, cfg)
    if len(rows):
        splits[rows] = draw(
            [listing.names[row] for row in rows.tolist()],
            listing.labels_N[rows],
            class_names=listing.class_names,
            test_fraction=test_fraction,
            val_fraction=cfg.val_fraction,
            seed=cfg.split_seed,
            groups=None if groups is None else [groups[row] for row in rows.tolist()],
        )
        notes.append(_drawn_note(cfg, test_fraction, of_train=len(rows) < len(keep)))
    bad = tuple(file for file in listing.bad if file.name not in asked)
    return Plan(listing, np.where(keep, splits, -1).astype(np.int8), groups, bad, tuple(notes))


def _rows_to_draw(given: Splits, cfg: ImageFiles) -> tuple[Rows, float]:
    """The rows from which validation, and where there are no splits at all test, are drawn; and the share of test."""
    if (given == DRAWN).all():
        return np.arange(len(given)), cfg.test_fraction
    if not (given == SPLITS.index(VALIDATION)).any():
        return np.flatnonzero(given == SPLITS.index(TRAIN)), 0.0
    return np.array([], dtype=np.int64), 0.0


def _without_empty_classes(listing: Listing, keep: npt.NDArray[np.bool_]) -> Listing:
    """The listing without the classes of which data.exclude leaves no image."""
    every = np.bincount(listing.labels_N, minlength=len(listing.class_names))
    left = np.bincount(listing.labels_N[keep], minlength=len(listing.class_names))
    gone = (every > 0) & (left == 0)
    if not gone.any():
        return listing
    rows = np.flatnonzero(~gone[listing.labels_N]).tolist()
    place = np.cumsum(~gone) - 1
    locate = listing.locate
    return replace(
        listing,
        class_names=tuple(name for name, lost in zip(listing.class_names, gone, strict=True) if not lost),
        names=[listing.names[row] for row in rows],
        labels_N=place[listing.labels_N[rows]].astype(np.int32),
        splits_N=listing.splits_N[rows],
        locate=lambda row: locate(rows[row]),
        columns={name: [cells[row] for row in rows] if cells else cells for name, cells in listing.columns.items()},
    )


def held_out_names(train: SplitFiles, cfg: FolderConfig) -> frozenset[str]:
    """The files of train/ that are validation where no folder is; groups stay together.

    Raises:
        DataError: too few images or groups.
    """
    files = train.drawn_from
    names, labels = [file.name for file in files], [file.class_name for file in files]
    if not cfg.group_by:
        _, held_out = stratified_split(labels, cfg.val_fraction, cfg.split_seed)
        return frozenset(names[place] for place in held_out)
    number = {name: label for label, name in enumerate(dict.fromkeys(labels))}
    splits_N = draw(
        names, np.array([number[label] for label in labels]), class_names=list(number), test_fraction=0,
        val_fraction=cfg.val_fraction, seed=cfg.split_seed, groups=groups_of(cfg.group_by, names, {}),
    )  # fmt: skip
    return frozenset(names[place] for place in np.flatnonzero(splits_N == SPLITS.index(VALIDATION)))


def plan_problems(plan: Plan, cfg: ImageFiles) -> list[str]:
    """Why nothing can be trained on these splits."""
    listing = plan.listing
    found = Counter(listing.labels_N[plan.rows(TRAIN)].tolist())
    counts = {name: found[label] for label, name in enumerate(listing.class_names)}
    problems = training_problems(counts, folder="train", held_out=False, explained=list(listing.lost_classes))
    if not plan.has(VALIDATION):
        problems.append("no image is in the validation split.")
    return problems + leak_problems(plan.leaks, cfg.group_by)


def leak_problems(leaks: Mapping[str, Sequence[str]], group_by: str) -> list[str]:
    """A sentence on the groups that stand in several splits; none where there are none."""
    if not leaks:
        return []
    shown = listed([f"{readable_group(group)} in {' and '.join(where)}" for group, where in leaks.items()], most=5)
    groups, stand = ("1 group", "stands") if len(leaks) == 1 else (f"{len(leaks)} groups", "stand")
    return [
        f"{groups} of data.group_by={group_by} {stand} in more than one split ({shown}): what is measured there is "
        "too good. The data set gives these splits: change them, or have them drawn, with groups kept together."
    ]


def _drawn_note(cfg: ImageFiles, test_fraction: float, *, of_train: bool) -> str:
    together = f", groups kept together (data.group_by={cfg.group_by})" if cfg.group_by else ""
    keys = f"data.split_seed={cfg.split_seed}"
    if test_fraction:
        return (
            f"No split is given: {test_fraction:g} of all are drawn as test (data.test_fraction), {cfg.val_fraction:g} "
            f"of the rest as validation (data.val_fraction, {keys}), every class alike{together}."
        )
    what = "of train is" if of_train else "of all is"
    return (
        f"There is no validation split: {cfg.val_fraction:g} {what} held out, every class alike (data.val_fraction, "
        f"{keys}){together}."
    )
