"""data=folder: a tree of labelled images, its splits, its bad files, and what the user should know of it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from da6401.config.schema import FolderConfig
from da6401.config.splits import TEST
from da6401.data.classes import alike_notes, class_problems, training_problems
from da6401.data.draw import leaking_groups
from da6401.data.files import read_splits
from da6401.data.flat import is_flat, list_flat
from da6401.data.groups import exclude_digest, exclude_note, excluded_names, groups_of
from da6401.data.image_sets import ImageSet, ReadSplit, TrainingData, training_data
from da6401.data.layout import Layout, find_layout
from da6401.data.listed import Listed
from da6401.data.plan import held_out_names, leak_problems
from da6401.data.remarks import bad_lines, refuse_bad_files, split_remarks
from da6401.data.tree import IMAGE_PATH, BadFile, SplitFiles, list_split
from da6401.errors import DataError
from da6401.redact import listed, one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTree:
    """The files that a training may read, found by name; the test split is not listed."""

    layout: Layout
    train: SplitFiles
    validation: SplitFiles | None  # None: a part of train is held out

    @property
    def splits(self) -> list[SplitFiles]:
        return [self.train, *([self.validation] if self.validation else [])]

    def signature(self) -> str:
        """Changes when a file is added, removed, or given another size or modification time."""
        total = hashlib.sha256(str(self.layout.root).encode("utf-8", "surrogateescape"))
        for split in self.splits:
            for file in split.files:
                status = os.stat(file.location)
                total.update(f"{file.name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
            total.update(repr((split.class_names, split.bad, split.loose)).encode())
        return total.hexdigest()


def open_folder(cfg: FolderConfig) -> Folder | Listed:
    """The source of data=folder: a tree with splits, or class folders from which they are drawn."""
    return Listed(cfg, list_flat(cfg)) if is_flat(cfg) else Folder(cfg)


class Folder:
    """A tree with splits: root/{train,validation,test}/<class>/*."""

    def __init__(self, cfg: FolderConfig) -> None:
        self.cfg = cfg

    @cached_property
    def _tree(self) -> TrainingTree:
        """The training part of the tree.

        Raises:
            DataError: no such tree, a contradictory one, one whose validation has other classes than train, or too
                few classes or files.
        """
        layout = find_layout(self.cfg.root, self.cfg.val_role)
        train = self._list(layout, layout.train)
        validation = None if layout.validation is None else self._list(layout, layout.validation)
        problems: list[str] = []
        if validation is not None:
            owner = f"{layout.train}/"
            problems = class_problems(train.class_names, validation, owner=owner, owners_lost=train.lost_classes)
        counts = train.counts()
        empty = [name for name, count in counts.items() if not count]  # its files may be bad, which is reported first
        problems += training_problems(counts, folder=layout.train, held_out=validation is None, explained=empty)
        problems += self._group_problems(train, validation)
        _refuse(layout, problems)
        tree = TrainingTree(layout, train, validation)
        self._exclude_note(tree)  # before an image is read
        return tree

    def _list(self, layout: Layout, folder: str) -> SplitFiles:
        """A split's files, without those of data.exclude."""
        cfg = self.cfg
        split = list_split(layout.root, folder, class_depth=cfg.class_depth, follow_links=cfg.follow_links)
        return split.without(excluded_names(cfg.exclude))

    def _group_problems(self, train: SplitFiles, validation: SplitFiles | None) -> list[str]:
        """The groups of data.group_by that stand in both splits."""
        if validation is None or not self.cfg.group_by:
            return []
        names = [file.name for split in (train, validation) for file in split.files]
        sides = [split.folder for split in (train, validation) for _ in split.files]
        return leak_problems(leaking_groups(groups_of(self.cfg.group_by, names, {}), sides), self.cfg.group_by)

    def signature(self) -> str:
        digest = exclude_digest(self.cfg.exclude)
        return f"{self._tree.signature()} {digest}" if digest else self._tree.signature()

    def load_training(self) -> TrainingData:
        cfg, tree = self.cfg, self._tree
        if tree.validation is None:
            held_out = held_out_names(tree.train, cfg)
            files = tree.train.files
            splits = [
                [file for file in files if file.name not in held_out],
                [file for file in files if file.name in held_out],
            ]
            together = f", groups kept together (data.group_by={cfg.group_by})" if cfg.group_by else ""
            origin = (
                f"There is no validation split: {cfg.val_fraction:g} of {tree.layout.train}/ is held out, "
                f"every class alike (data.val_fraction, data.split_seed={cfg.split_seed}){together}."
            )
        else:
            splits = [list(split.files) for split in tree.splits]
            origin = f"{tree.validation.folder}/ is the validation split."

        class_names = tree.train.class_names
        train, validation = read_splits(cfg, tree.layout.root, class_names, splits, "train and validation")
        bad = self._bad_files(tree.layout, tree.splits, [train, validation])
        found = Counter(train.images.labels_N.tolist())
        counts = {name: found[label] for label, name in enumerate(class_names)}
        _refuse(tree.layout, training_problems(counts, folder=tree.layout.train, held_out=False))
        if not validation.images.names:
            raise DataError(f"{tree.layout.root}: no readable image is left for validation.")
        notes = (
            *self._layout_notes(tree),
            *alike_notes(class_names),
            origin,
            f"{len(class_names)} classes, {len(train.images.names)} train and "
            f"{len(validation.images.names)} validation images.",
            *split_remarks(class_names, train, validation, "da6401 data check"),
            *_loose(tree),
        )
        groups = None
        if cfg.group_by:
            names = [*train.images.names, *validation.images.names]
            groups = dict(zip(names, groups_of(cfg.group_by, names, {}), strict=True))
        return training_data(class_names, train, validation, notes=notes, skipped=bad, groups=groups)

    def _layout_notes(self, tree: TrainingTree) -> list[str]:
        """Which layout was found and why, and what else a reader should know of the folders."""
        cfg, layout = self.cfg, tree.layout
        why = "data.layout=splits" if cfg.layout == "splits" else f"there is {one_line(layout.train)}/"
        depth = "" if cfg.class_depth == "auto" else f", data.class_depth={cfg.class_depth}"
        found = f"Layout: folders of splits, because {why}{depth}."
        return [found, *layout.notes, *self._exclude_note(tree)]

    def _exclude_note(self, tree: TrainingTree) -> list[str]:
        """What data.exclude leaves out; raises as exclude_note. It may name images of test, which is not listed."""
        asked, test = excluded_names(self.cfg.exclude), tree.layout.test
        names = [name for split in tree.splits for name in (*split.excluded, *split.names)]
        tested = test is not None and any(name.startswith(f"{test}/") for name in asked)
        return exclude_note(self.cfg.exclude, asked, names, whole=not tested)

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        layout = find_layout(self.cfg.root, self.cfg.val_role)
        if layout.test is None:
            raise DataError(
                f"{layout.root} has no test split: add {TEST}/{IMAGE_PATH}"
                + (f", or set data.val_role=test if {layout.validation}/ is meant." if layout.validation else ".")
            )
        split = self._list(layout, layout.test)
        _refuse(layout, class_problems(class_names, split, owner="the model"))
        (test,) = read_splits(self.cfg, layout.root, class_names, [split.files], layout.test)
        bad = self._bad_files(layout, [split], [test])
        if bad:
            log.warning("%d files of the test split were skipped (data.bad_files=skip):\n%s", len(bad), bad_lines(bad))
        if not test.images.names:
            raise DataError(f"{layout.root}: no readable image in {layout.test}/.")
        return test.images

    def _bad_files(self, layout: Layout, found: Sequence[SplitFiles], read: Sequence[ReadSplit]) -> list[BadFile]:
        """The bad files of the splits, sorted by name.

        Raises:
            DataError: there are some, and data.bad_files=stop.
        """
        bad = [file for split in found for file in split.bad] + [file for split in read for file in split.bad]
        bad.sort(key=lambda file: file.name)
        refuse_bad_files(layout.root, bad, self.cfg)
        return bad


def _refuse(layout: Layout, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{layout.root}: {problem}" for problem in problems))


def _loose(tree: TrainingTree) -> list[str]:
    """A sentence on the files that were ignored."""
    loose = [name for split in tree.splits for name in split.loose]
    return [f"Files outside class folders are ignored: {listed(loose)}."] if loose else []
