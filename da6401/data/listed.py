"""A source whose images are named in a listing: train and validation are read here, test on request."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from da6401.config.schema import ImageFiles
from da6401.config.splits import TEST, TRAIN, VALIDATION
from da6401.data.classes import alike_notes, training_problems
from da6401.data.files import read_splits
from da6401.data.groups import exclude_digest
from da6401.data.image_sets import ImageSet, TrainingData, training_data
from da6401.data.list_images import list_images
from da6401.data.listing import Listing
from da6401.data.plan import Plan, make_plan, plan_problems
from da6401.data.remarks import bad_lines, check_command, refuse_bad_files, split_remarks
from da6401.data.tree import BadFile
from da6401.errors import DataError
from da6401.redact import listed

log = logging.getLogger(__name__)


def open_listed(cfg: ImageFiles) -> Listed:
    """The source of everything that a listing names: tables, shards, ..."""
    return Listed(cfg, list_images(cfg))


class Listed:
    """Train, validation and test of a listing, by the keys that all sources of files share."""

    def __init__(self, cfg: ImageFiles, listing: Listing) -> None:
        self.cfg = cfg
        self.listing = listing

    @cached_property
    def plan(self) -> Plan:
        """Which image is in which split.

        Raises:
            DataError: no such split, too few images or classes, or groups in several splits.
        """
        plan = make_plan(self.listing, self.cfg)
        problems = plan_problems(plan, self.cfg)
        if problems:
            raise DataError("\n".join(f"{self.listing.root}: {problem}" for problem in problems))
        return plan

    def signature(self) -> str:
        plan = self.plan
        rows = np.concatenate([plan.rows(TRAIN), plan.rows(VALIDATION)])
        return f"{plan.listing.signature(rows)} {exclude_digest(self.cfg.exclude)}"

    def load_training(self) -> TrainingData:
        cfg, plan, listing = self.cfg, self.plan, self.plan.listing
        names = listing.class_names
        splits = [plan.files(TRAIN), plan.files(VALIDATION)]
        train, validation = read_splits(cfg, listing.root, names, splits, "train and validation")
        bad = sorted((*plan.bad, *train.bad, *validation.bad), key=lambda file: file.name)
        refuse_bad_files(listing.root, bad, cfg)
        found = Counter(train.images.labels_N.tolist())
        counts = {name: found[label] for label, name in enumerate(names)}
        problems = training_problems(counts, folder="train", held_out=False)
        if not validation.images.names:
            problems.append("no readable image is left for validation.")
        if problems:
            raise DataError("\n".join(f"{listing.root}: {problem}" for problem in problems))
        notes = (
            listing.found,
            *listing.notes,
            *alike_notes(names),
            *plan.notes,
            *([] if plan.has(TEST) else ["There is no test split: `evaluate` will not work on this data."]),
            f"{len(names)} classes, {len(train.images.names)} train and "
            f"{len(validation.images.names)} validation images.",
            *split_remarks(names, train, validation, check_command(cfg)),
            *([f"Files outside class folders are ignored: {listed(listing.loose)}."] if listing.loose else []),
        )
        return training_data(names, train, validation, notes=notes, skipped=bad, groups=plan.groups_by_name)

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        if not self.plan.has(TEST):
            remedy = (
                "draw one: data.test_fraction=0.2, in a new training"
                if self.plan.drawn
                else "add one where its splits are, or ask `da6401 predict` about images that were held back"
            )
            raise DataError(f"{self.listing.root} has no test split: {remedy}.")
        if tuple(class_names) != self.plan.listing.class_names:
            raise DataError(
                f"{self.listing.root} has the classes {listed(self.plan.listing.class_names)}; the model knows "
                f"{listed(class_names)}: evaluate it on the data that it was trained on."
            )
        files = self.plan.files(TEST)
        (test,) = read_splits(self.cfg, self.listing.root, class_names, [files], "test")
        bad: list[BadFile] = list(test.bad)
        refuse_bad_files(self.listing.root, bad, self.cfg)
        if bad:
            log.warning("%d files of the test split were skipped (data.bad_files=skip):\n%s", len(bad), bad_lines(bad))
        if not test.images.names:
            raise DataError(f"{self.listing.root}: no readable image is in the test split.")
        return test.images
