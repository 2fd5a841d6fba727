"""A folder tree as tensors: which files are which split, decoding, bad files, and what the user is told of it."""

# N images, S side in px

from __future__ import annotations

import hashlib
import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from da6401.config.schema import FolderConfig
from da6401.data.cache.image_cache import open_cache
from da6401.data.decode import decode_entries
from da6401.data.layout import Layout, find_layout
from da6401.data.sets import ImageSet, Pixels, TrainingData, empty_images, fingerprint
from da6401.data.split import stratified_split
from da6401.data.tree import (
    LISTED,
    BadFile,
    Entry,
    Split,
    alike_notes,
    bad_file_list,
    class_problems,
    list_split,
    shown,
    training_problems,
)
from da6401.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTree:
    """The files that a training may read, found by name; the test split's are not looked for."""

    layout: Layout
    train: Split
    validation: Split | None

    def signature(self) -> str:
        """Changes when a file is added, removed, or given another size or modification time."""
        total = hashlib.sha256()
        for split in (self.train, self.validation):
            for entry in split.entries if split else ():
                status = entry.path.stat()
                total.update(f"{entry.name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
            total.update(repr((split.class_names, split.bad, split.loose) if split else None).encode())
        return total.hexdigest()


@dataclass(frozen=True)
class _Part:
    """One decoded split: the images that are good, and the files that are not."""

    images: ImageSet
    digests: tuple[str, ...]
    bad: tuple[BadFile, ...]


def list_training(cfg: FolderConfig) -> TrainingTree:
    """The training part of the tree.

    Raises:
        DataError: no such tree, a contradictory one, one whose validation has other classes than train, or too few
            classes or files.
    """
    layout = find_layout(cfg.root, cfg.val_role)
    train = list_split(layout.root, layout.train)
    validation = None if layout.validation is None else list_split(layout.root, layout.validation)
    problems: list[str] = []
    if validation is not None:
        owner = f"{layout.train}/"
        problems = class_problems(train.class_names, validation, owner=owner, owners_lost=train.lost_links)
    counts = train.counts()
    empty = [name for name, count in counts.items() if not count]  # its files may be unusable, which is told first
    problems += training_problems(counts, folder=layout.train, held_out=validation is None, explained=empty)
    _refuse(layout, problems)
    return TrainingTree(layout, train, validation)


def load_training(cfg: FolderConfig, tree: TrainingTree) -> TrainingData:
    """Decodes the tree's train and validation, or opens their cache; see sources.load_training_data."""
    entries, listed_bad = tree.train.entries, list(tree.train.bad)
    if tree.validation is None:
        kept, held_out = stratified_split([entry.class_name for entry in entries], cfg.val_fraction, cfg.split_seed)
        parts = [entries[i] for i in kept], [entries[i] for i in held_out]
        origin = (
            f"There is no validation split: {cfg.val_fraction:g} of {tree.layout.train}/ is held out, "
            f"every class alike (data.val_fraction, data.split_seed={cfg.split_seed})."
        )
    else:
        parts = list(entries), list(tree.validation.entries)
        listed_bad += tree.validation.bad
        origin = f"{tree.validation.folder}/ is the validation split."

    class_names = tree.train.class_names
    train, validation = _read(cfg, tree.layout.root, class_names, parts, "train and validation")
    bad = sorted((*listed_bad, *train.bad, *validation.bad), key=lambda file: file.name)
    _judge(cfg, tree.layout, bad)
    found = Counter(train.images.labels_N.tolist())
    counts = {name: found[label] for label, name in enumerate(class_names)}
    _refuse(tree.layout, training_problems(counts, folder=tree.layout.train, held_out=False))
    if not validation.images.names:
        raise DataError(f"{tree.layout.root}: no readable image is left for validation.")

    return TrainingData(
        class_names=class_names,
        train=train.images,
        validation=validation.images,
        fingerprint=fingerprint(
            class_names,
            {
                "train": zip(train.images.names, train.digests, strict=True),
                "validation": zip(validation.images.names, validation.digests, strict=True),
            },
        ),
        notes=(
            *tree.layout.notes,
            *alike_notes(class_names),
            origin,
            f"{len(class_names)} classes, {len(train.images.names)} train and "
            f"{len(validation.images.names)} validation images.",
            *_remarks(tree, class_names, train, validation),
        ),
        skipped=tuple(bad),
    )


def load_test(cfg: FolderConfig, class_names: Sequence[str]) -> ImageSet:
    """The test split; see sources.load_test_data."""
    layout = find_layout(cfg.root, cfg.val_role)
    if layout.test is None:
        raise DataError(
            f"{layout.root} has no test split: add test/<class>/<image>"
            + (f", or set data.val_role=test if {layout.validation}/ is meant." if layout.validation else ".")
        )
    split = list_split(layout.root, layout.test)
    problems = class_problems(class_names, split, owner="the model")
    _refuse(layout, problems)
    (part,) = _read(cfg, layout.root, class_names, [split.entries], layout.test)
    bad = sorted((*split.bad, *part.bad), key=lambda file: file.name)
    _judge(cfg, layout, bad)
    if bad:
        log.warning("%d files of the test split were skipped (data.on_bad=skip):\n%s", len(bad), bad_file_list(bad))
    if not part.images.names:
        raise DataError(f"{layout.root}: no readable image in {layout.test}/.")
    return part.images


def _read(
    cfg: FolderConfig, root: Path, class_names: Sequence[str], parts: Sequence[Sequence[Entry]], label: str
) -> list[_Part]:
    """Each part decoded; in the cache they are one, whatever their division, so that another split reads the same."""
    if cfg.cache == "off":
        return [_decode(cfg, class_names, entries, f"reading {label}") for entries in parts]
    together = sorted((entry for entries in parts for entry in entries), key=lambda entry: entry.name)
    place = {entry.name: row for row, entry in enumerate(together)}
    cached = open_cache(cfg, root, together, label=label)
    divided = []
    for entries in parts:
        rows = [place[entry.name] for entry in entries]
        digests = {row: outcome for row in rows if isinstance(outcome := cached.outcomes[row], str)}
        bad = tuple(outcome for row in rows if isinstance(outcome := cached.outcomes[row], BadFile))
        good = [together[row] for row in digests]
        images = cached.images.select(list(digests))
        divided.append(_Part(_image_set(images, good, class_names), tuple(digests.values()), bad))
    return divided


def _decode(cfg: FolderConfig, class_names: Sequence[str], entries: Sequence[Entry], label: str) -> _Part:
    images_NCHW = empty_images(len(entries), cfg.image_size)
    decoded = decode_entries(entries, images_NCHW.numpy(), resize=cfg.resize, label=label)
    if decoded.bad:
        images_NCHW = images_NCHW[torch.tensor(decoded.good, dtype=torch.int64)]
    good = [entries[row] for row in decoded.good]
    return _Part(_image_set(images_NCHW, good, class_names), decoded.digests, decoded.bad)


def _image_set(images_NCHW: Pixels, entries: Sequence[Entry], class_names: Sequence[str]) -> ImageSet:
    number = {name: label for label, name in enumerate(class_names)}
    labels_N = torch.tensor([number[entry.class_name] for entry in entries], dtype=torch.int64)
    return ImageSet(images_NCHW, labels_N, tuple(entry.name for entry in entries))


def _judge(cfg: FolderConfig, layout: Layout, bad: Sequence[BadFile]) -> None:
    if bad and cfg.on_bad == "stop":
        raise DataError(
            f"{len(bad)} unusable file{'s' if len(bad) > 1 else ''} in {layout.root}:\n{bad_file_list(bad)}\n"
            f"`{_check_command(cfg)}` lists all of them. Mend or delete them, "
            "or leave them out with data.on_bad=skip."
        )


def _check_command(cfg: FolderConfig) -> str:
    role = [] if cfg.val_role == "auto" else ["--val-role", cfg.val_role]
    return shlex.join(["da6401", "data", "check", cfg.root, *role])


def _refuse(layout: Layout, problems: Sequence[str]) -> None:
    if problems:
        raise DataError("\n".join(f"{layout.root}: {problem}" for problem in problems))


def _remarks(tree: TrainingTree, class_names: Sequence[str], train: _Part, validation: _Part) -> list[str]:
    remarks = []
    seen = set(train.digests)
    shared = sum(digest in seen for digest in validation.digests)
    if shared:
        remarks.append(
            f"{shared} validation image{'s are' if shared > 1 else ' is'} also in train, byte for byte: "
            "validation accuracy flatters (`da6401 data check` names them)."
        )
    present = set(validation.images.labels_N.tolist())
    absent = [shown(name) for label, name in enumerate(class_names) if label not in present]
    if absent:
        remarks.append(f"Validation has no image of {', '.join(absent[:LISTED])}.")
    loose = [*tree.train.loose, *(tree.validation.loose if tree.validation else ())]
    if loose:
        remarks.append(f"Files outside class folders are ignored: {', '.join(map(shown, loose[:LISTED]))}.")
    return remarks
