"""`da6401 data check` and `info`: all splits of a folder tree, the test split too, before anything is trained on it."""

from __future__ import annotations

import functools
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.config.splits import TEST, VALIDATION, ValRole
from da6401.data.classes import alike_notes, class_problems, training_problems
from da6401.data.decode import in_threads
from da6401.data.images import BadImageError, ImageHeader, inspect_image, quiet_pillow, read_file
from da6401.data.layout import Layout, find_layout, find_root, split_folders
from da6401.data.tree import BadFile, LabelledFile, SplitFiles, list_split
from da6401.errors import DataError


@dataclass(frozen=True)
class FileFacts:
    """A readable image of the tree."""

    name: str
    split: str  # the folder: train, val, ...
    class_name: str
    size_bytes: int
    header: ImageHeader
    digest: str  # sha256 of the content; "" where only the header was read


@dataclass(frozen=True)
class TreeReport:
    """What a tree holds and what is wrong with it."""

    root: Path  # the folder that holds train/
    val_role: ValRole
    layout: Layout | None  # None where the folders contradict each other, which is a problem
    splits: tuple[str, ...]
    class_names: tuple[str, ...]  # of all splits, sorted
    files: tuple[FileFacts, ...]
    bad: tuple[BadFile, ...]
    problems: tuple[str, ...]  # of the tree as a whole: classes that differ, folders that contradict each other
    loose: tuple[str, ...]  # files outside class folders, which are ignored
    notes: tuple[str, ...]  # what a training says of such a tree

    @property
    def clean(self) -> bool:
        """Neither bad files, nor problems, nor images in two splits; duplicates within a split are only a warning."""
        return not (self.bad or self.problems or self.leaks)

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
    """Read, hash and fully decode every file of every split; the problems are those of a training with this val_role.

    Raises:
        DataError: there is no tree to look at (no such folder, no train/, no class folders).
    """
    return _examine(root, val_role, decode=True)


def describe_tree(root: Path, val_role: ValRole = "auto") -> TreeReport:
    """The same from the files' headers alone: quick, but damaged pixels and duplicates are not found.

    Raises:
        DataError: as check_tree.
    """
    return _examine(root, val_role, decode=False)


def _examine(folder: Path, val_role: ValRole, *, decode: bool) -> TreeReport:
    root = find_root(str(folder))
    layout, problems = None, list[str]()
    try:
        layout = find_layout(str(root), val_role)
    except DataError as error:
        problems.append(str(error))
    # A test split without class folders is in no layout: it is not used, which is a note.
    used = [name for _, name in split_folders(root) if layout is None or name in layout.folders]
    splits = [list_split(root, name) for name in used]
    listed = [file for split in splits for file in split.files]
    with quiet_pillow():
        label = "checking" if decode else "reading headers"
        results = list(in_threads(functools.partial(_read, decode=decode), listed, label=label))
    files = tuple(result for result in results if isinstance(result, FileFacts))
    bad = [result for result in results if isinstance(result, BadFile)]
    bad += [file for split in splits for file in split.bad]

    train = splits[0]
    for split in splits[1:]:
        problems += class_problems(train.class_names, split, owner=f"{train.folder}/", owners_lost=train.lost_classes)
    problems += _problems_of_counts(splits, layout, files)
    class_names = tuple(sorted({name for split in splits for name in split.class_names}))
    return TreeReport(
        root=root,
        val_role=val_role,
        layout=layout,
        splits=tuple(split.folder for split in splits),
        class_names=class_names,
        files=files,
        bad=tuple(sorted(bad, key=lambda file: file.name)),
        problems=tuple(problems),
        loose=tuple(name for split in splits for name in split.loose),
        notes=(*(layout.notes if layout else ()), *alike_notes(class_names)),
    )


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


def _read(file: LabelledFile, *, decode: bool) -> FileFacts | BadFile:
    """The whole file, hashed and decoded, or its header alone."""
    try:
        with io.BytesIO(read_file(file.path)) if decode else file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest() if decode else ""
            opened.seek(0)
            header = inspect_image(opened, decode=decode)
        size_bytes = file.path.stat().st_size
    except BadImageError as problem:
        return BadFile(file.name, problem.reason)
    except OSError as error:
        return BadFile(file.name, f"cannot be read: {error.strerror or error}")
    return FileFacts(file.name, file.name.split("/", 1)[0], file.class_name, size_bytes, header, digest)
