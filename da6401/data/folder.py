"""data=folder: a tree of labelled images, its splits, its bad files, and what the user should know of it."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from da6401.config.schema import FolderConfig
from da6401.config.splits import TEST
from da6401.data.classes import alike_notes, class_problems, training_problems
from da6401.data.files import read_splits
from da6401.data.image_sets import ImageSet, ReadSplit, TrainingData, training_data
from da6401.data.layout import Layout, find_layout
from da6401.data.split import stratified_split
from da6401.data.tree import IMAGE_PATH, BadFile, SplitFiles, list_split
from da6401.errors import DataError
from da6401.redact import listed, one_line

log = logging.getLogger(__name__)

MOST_BAD_FILES = 20  # in one message


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
                status = file.path.stat()
                total.update(f"{file.name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
            total.update(repr((split.class_names, split.bad, split.loose)).encode())
        return total.hexdigest()


class Folder:
    """The source of data=folder."""

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
        train = list_split(layout.root, layout.train)
        validation = None if layout.validation is None else list_split(layout.root, layout.validation)
        problems: list[str] = []
        if validation is not None:
            owner = f"{layout.train}/"
            problems = class_problems(train.class_names, validation, owner=owner, owners_lost=train.lost_classes)
        counts = train.counts()
        empty = [name for name, count in counts.items() if not count]  # its files may be bad, which is reported first
        problems += training_problems(counts, folder=layout.train, held_out=validation is None, explained=empty)
        _refuse(layout, problems)
        return TrainingTree(layout, train, validation)

    def signature(self) -> str:
        return self._tree.signature()

    def load_training(self) -> TrainingData:
        cfg, tree = self.cfg, self._tree
        if tree.validation is None:
            files = tree.train.files
            kept, held_out = stratified_split([file.class_name for file in files], cfg.val_fraction, cfg.split_seed)
            splits = [[files[i] for i in kept], [files[i] for i in held_out]]
            origin = (
                f"There is no validation split: {cfg.val_fraction:g} of {tree.layout.train}/ is held out, "
                f"every class alike (data.val_fraction, data.split_seed={cfg.split_seed})."
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
            *tree.layout.notes,
            *alike_notes(class_names),
            origin,
            f"{len(class_names)} classes, {len(train.images.names)} train and "
            f"{len(validation.images.names)} validation images.",
            *_remarks(tree, train, validation),
        )
        return training_data(class_names, train, validation, notes=notes, skipped=bad)

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        layout = find_layout(self.cfg.root, self.cfg.val_role)
        if layout.test is None:
            raise DataError(
                f"{layout.root} has no test split: add {TEST}/{IMAGE_PATH}"
                + (f", or set data.val_role=test if {layout.validation}/ is meant." if layout.validation else ".")
            )
        split = list_split(layout.root, layout.test)
        _refuse(layout, class_problems(class_names, split, owner="the model"))
        (test,) = read_splits(self.cfg, layout.root, class_names, [split.files], layout.test)
        bad = self._bad_files(layout, [split], [test])
        if bad:
            log.warning("%d files of the test split were skipped (data.bad_files=skip):\n%s", len(bad), _lines(bad))
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
        if bad and self.cfg.bad_files == "stop":
            role = [] if self.cfg.val_role == "auto" else ["--val-role", self.cfg.val_role]
            command = shlex.join(["da6401", "data", "check", self.cfg.root, *role])
            raise DataError(
                f"{len(bad)} unusable file{'s' if len(bad) > 1 else ''} in {layout.root}:\n{_lines(bad)}\n"
                f"`{command}` lists all of them. Mend or delete them, or leave them out with data.bad_files=skip."
            )
        return bad


def _lines(bad: Sequence[BadFile]) -> str:
    lines = [f"  {one_line(file.name)}: {one_line(file.reason)}" for file in bad[:MOST_BAD_FILES]]
    if len(bad) > MOST_BAD_FILES:
        lines.append(f"  ... and {len(bad) - MOST_BAD_FILES} more")
    return "\n".join(lines)


def _refuse(layout: Layout, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{layout.root}: {problem}" for problem in problems))


def _remarks(tree: TrainingTree, train: ReadSplit, validation: ReadSplit) -> list[str]:
    """What weakens the validation accuracy, and which files were ignored."""
    remarks = []
    in_train = set(train.digests)
    shared = sum(digest in in_train for digest in validation.digests)
    if shared:
        remarks.append(
            f"{shared} validation image{'s are' if shared > 1 else ' is'} also in train, byte for byte: "
            "validation accuracy is too high (`da6401 data check` names them)."
        )
    present = set(validation.images.labels_N.tolist())
    absent = [name for label, name in enumerate(tree.train.class_names) if label not in present]
    if absent:
        remarks.append(f"Validation has no image of {listed(absent)}.")
    loose = [name for split in tree.splits for name in split.loose]
    if loose:
        remarks.append(f"Files outside class folders are ignored: {listed(loose)}.")
    return remarks
