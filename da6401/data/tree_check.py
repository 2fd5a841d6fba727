"""`da6401 data check` and `info`: all splits of a folder tree, the test split too, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.config.schema import FolderConfig, ImageFiles
from da6401.config.splits import TEST, TRAIN, VALIDATION, ValRole
from da6401.data.classes import alike_notes, class_problems, training_problems
from da6401.data.decode import in_threads
from da6401.data.draw import SPLITS, leaking_groups
from da6401.data.flat import is_flat
from da6401.data.groups import exclude_note, excluded_names, groups_of
from da6401.data.images import BadImageError, ImageHeader, inspect_image, quiet_pillow, read_content
from da6401.data.layout import Layout, find_layout, find_root, split_folders
from da6401.data.list_images import list_images
from da6401.data.listing import Listing
from da6401.data.near import NearPair, near_pairs, perceptual_hash
from da6401.data.plan import held_out_names, leak_problems, make_plan, plan_problems
from da6401.data.sources import explain_read_errors
from da6401.data.tree import BadFile, LabelledFile, SplitFiles, list_split
from da6401.errors import DataError

Read = Callable[[LabelledFile, str], "FileFacts | BadFile"]


@dataclass(frozen=True)
class FileFacts:
    """A readable image of the tree."""

    name: str
    split: str  # the folder: train, val, ...
    class_name: str
    size_bytes: int
    header: ImageHeader
    digest: str  # sha256 of the content; "" where only the header was read
    looks: bytes = b""  # its perceptual hash, where near-duplicates are looked for


@dataclass(frozen=True)
class TreeReport:
    """What a tree holds and what is wrong with it."""

    root: Path  # the folder that holds train/
    layout: Layout | None  # None where the folders contradict each other, which is a problem, or hold no splits
    splits: tuple[str, ...]
    class_names: tuple[str, ...]  # of all splits, sorted
    files: tuple[FileFacts, ...]
    bad: tuple[BadFile, ...]
    problems: tuple[str, ...]  # of the tree as a whole: classes that differ, folders that contradict each other
    loose: tuple[str, ...]  # files outside class folders, which are ignored
    notes: tuple[str, ...]  # what a training says of such a tree
    used: tuple[str, ...]  # lines on which folder is which split
    held_out: frozenset[str] = frozenset()  # the images of train/ that a training draws as validation
    near: tuple[NearPair, ...] = ()  # in two splits, and alike; only where they were looked for

    @property
    def clean(self) -> bool:
        """Neither bad files, nor problems, nor images in two splits; duplicates within a split are only a warning."""
        return not (self.bad or self.problems or self.leaks or self.near)

    @property
    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names within one split and one class whose content is the same."""
        return self._groups(lambda file: (file.digest, file.split, file.class_name), lambda same: len(same) > 1)

    @property
    def leaks(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names whose content is the same and stands in more than one split."""
        return self._groups(lambda file: file.digest, lambda same: len({file.split for file in same}) > 1)

    @property
    def conflicts(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names whose content is the same and stands under more than one class."""
        return self._groups(lambda file: file.digest, lambda same: len({file.class_name for file in same}) > 1)

    def counts(self, split: str) -> Counter[str]:
        """Readable images of each class in one split."""
        return Counter(file.class_name for file in self.files if file.split == split)

    def _groups(
        self, key: Callable[[FileFacts], Hashable], wanted: Callable[[Sequence[FileFacts]], bool]
    ) -> tuple[tuple[str, ...], ...]:
        same: dict[Hashable, list[FileFacts]] = {}
        for file in self.files:
            if file.digest:
                same.setdefault(key(file), []).append(file)
        return tuple(tuple(file.name for file in group) for group in same.values() if wanted(group))


def check_tree(root: Path, val_role: ValRole = "auto") -> TreeReport:
    """check_data of data=folder with defaults."""
    return check_data(FolderConfig(root=str(root), val_role=val_role))


def describe_tree(root: Path, val_role: ValRole = "auto") -> TreeReport:
    """describe_data of data=folder with defaults."""
    return describe_data(FolderConfig(root=str(root), val_role=val_role))


def check_data(cfg: ImageFiles, *, near: int | None = None) -> TreeReport:
    """Read, hash and fully decode every image of every split; the problems are those of a training with these keys.

    Args:
        near: look for near-duplicates across splits too, whose perceptual hashes differ in at most so many bits.

    Raises:
        DataError: there is no data set to look at (no such folder, no class folders, no table, ...).
    """
    report = _examine(cfg, decode=True, near=near is not None)
    return report if near is None else dataclasses.replace(report, near=_near(report, near))


def _near(report: TreeReport, distance: int) -> tuple[NearPair, ...]:
    """Pairs of images that look alike and are in two splits, those of a drawn validation included."""
    train = report.splits[0]
    splits = [train, *(["validation"] if report.held_out else []), *report.splits[1:]]
    sides = [splits.index("validation" if f.name in report.held_out else f.split) for f in report.files]
    found = near_pairs([file.looks for file in report.files], sides, distance)
    names = [file.name for file in report.files]
    return tuple(NearPair(names[a], names[b], splits[sides[a]], splits[sides[b]], bits) for a, b, bits in found)


def describe_data(cfg: ImageFiles) -> TreeReport:
    """The same from the images' headers alone: quick, but damaged pixels and duplicates are not found.

    Raises:
        DataError: as check_data.
    """
    return _examine(cfg, decode=False, near=False)


def _examine(cfg: ImageFiles, *, decode: bool, near: bool) -> TreeReport:
    read = functools.partial(_read, decode=decode, near=near)
    with explain_read_errors():
        if isinstance(cfg, FolderConfig) and not is_flat(cfg):
            return _examine_splits(cfg, read)
        return _examine_listing(cfg, list_images(cfg), read)


def _examine_splits(cfg: FolderConfig, read: Read) -> TreeReport:
    root = find_root(cfg.root)
    layout, problems = None, list[str]()
    try:
        layout = find_layout(str(root), cfg.val_role)
    except DataError as error:
        problems.append(str(error))
    # A test split without class folders is in no layout: it is not used, which is a note.
    used = [name for _, name in split_folders(root) if layout is None or name in layout.folders]
    excluded = excluded_names(cfg.exclude)
    listed = [list_split(root, name, class_depth=cfg.class_depth, follow_links=cfg.follow_links) for name in used]
    splits = [split.without(excluded) for split in listed]
    files, bad = _read_all([(file, split.folder) for split in splits for file in split.files], read)
    bad += [file for split in splits for file in split.bad]

    train = splits[0]
    for split in splits[1:]:
        problems += class_problems(train.class_names, split, owner=f"{train.folder}/", owners_lost=train.lost_classes)
    problems += _problems_of_counts(splits, layout, files)
    if cfg.group_by:
        names, sides = [file.name for file in files], [file.split for file in files]
        problems += leak_problems(leaking_groups(groups_of(cfg.group_by, names, {}), sides), cfg.group_by)
    held_out = frozenset[str]()
    if layout is not None and layout.validation is None and not problems:
        held_out = held_out_names(train, cfg)
    class_names = tuple(sorted({name for split in splits for name in split.class_names}))
    named = [name for split in listed for name in split.names]
    return TreeReport(
        root=root,
        layout=layout,
        splits=tuple(split.folder for split in splits),
        class_names=class_names,
        files=files,
        bad=tuple(sorted(bad, key=lambda file: file.name)),
        problems=tuple(problems),
        loose=tuple(name for split in splits for name in split.loose),
        notes=(
            *(layout.notes if layout else ()),
            *exclude_note(cfg.exclude, excluded, named),
            *alike_notes(class_names),
        ),
        used=() if layout is None else _used(layout, cfg.val_role),
        held_out=held_out,
    )


def _used(layout: Layout, val_role: ValRole) -> tuple[str, ...]:
    held_out = f"a part of {layout.train}/ (data.val_fraction)"
    return (
        f"What da6401 uses, with data.val_role={val_role}:",
        f"  train:      {layout.train}/" + ("" if layout.validation else ", less what validation holds out"),
        f"  validation: {layout.validation + '/' if layout.validation else held_out}",
        f"  test:       {layout.test + '/' if layout.test else 'none'}",
    )


def _examine_listing(cfg: ImageFiles, listing: Listing, read: Read) -> TreeReport:
    problems: list[str] = []
    try:
        plan = make_plan(listing, cfg)
        problems += plan_problems(plan, cfg)
        splits = [split for split in SPLITS if plan.has(split)]
        sides = [(file, split) for split in splits for file in plan.files(split)]
        bad, notes = list(plan.bad), plan.notes
    except DataError as error:  # the files are looked at all the same
        problems.append(str(error))
        splits, bad, notes = [TRAIN], list(listing.bad), ()
        sides = [(listing.locate(row), TRAIN) for row in range(len(listing.names))]
    files, unreadable = _read_all(sides, read)
    found = Counter((file.split, file.class_name) for file in files)
    counts = {name: found[TRAIN, name] for name in listing.class_names}
    told = set(listing.class_names) - {file.class_name for file, split in sides if split == TRAIN}
    more = training_problems(counts, folder="train", held_out=False, explained=[*listing.lost_classes, *told])
    problems += [problem for problem in more if problem not in problems]
    return TreeReport(
        root=listing.root,
        layout=None,
        splits=tuple(splits),
        class_names=listing.class_names,
        files=files,
        bad=tuple(sorted([*bad, *unreadable], key=lambda file: file.name)),
        problems=tuple(problems),
        loose=listing.loose,
        notes=(listing.found, *listing.notes, *notes, *alike_notes(listing.class_names)),
        used=(),
    )


def _read_all(sides: Sequence[tuple[LabelledFile, str]], read: Read) -> tuple[tuple[FileFacts, ...], list[BadFile]]:
    """What each image holds, and the bad ones."""
    with quiet_pillow():
        results = list(in_threads(lambda side: read(*side), sides, label="reading images"))
    files = tuple(result for result in results if isinstance(result, FileFacts))
    return files, [result for result in results if isinstance(result, BadFile)]


def _problems_of_counts(splits: Sequence[SplitFiles], layout: Layout | None, files: Sequence[FileFacts]) -> list[str]:
    """What a training and an evaluation would refuse: splits and classes with too few readable images."""
    found = Counter((file.split, file.class_name) for file in files)
    train, role = splits[0], {} if layout is None else {layout.validation: VALIDATION, layout.test: TEST}
    counts = {name: found[train.folder, name] for name in train.class_names}
    problems = training_problems(
        counts,
        folder=train.folder,
        held_out=layout is not None and layout.validation is None,
        explained=train.bad_folders,
    )
    for split in splits[1:]:
        if split.folder in role and not any(found[split.folder, name] for name in split.class_names):
            problems.append(f"no readable image in {split.folder}/, the {role[split.folder]} split.")
    return problems


def _read(file: LabelledFile, split: str, *, decode: bool, near: bool) -> FileFacts | BadFile:
    """The whole image, hashed and decoded, or its header alone."""
    whole = decode or file.content is not None
    try:
        with io.BytesIO(read_content(file)) if whole else file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest() if decode else ""
            size_bytes = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            header = inspect_image(opened, decode=decode)
            looks = perceptual_hash(opened.getvalue()) if near and isinstance(opened, io.BytesIO) else b""
    except BadImageError as problem:
        return BadFile(file.name, problem.reason)
    except OSError as error:
        return BadFile(file.name, f"cannot be read: {error.strerror or error}")
    return FileFacts(file.name, split, file.class_name, size_bytes, header, digest, looks)
