"""Looking a folder tree over before anything is trained on it: all three splits, the test split included."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.data.images import BadImageError, Picture, inspect_image, quiet_pillow, read_file
from da6401.data.pool import in_threads
from da6401.data.tree import BadFile, Entry, class_problems, find_layout, find_root, list_split, shown, split_folders
from da6401.errors import DataError


@dataclass(frozen=True)
class FileFacts:
    """A readable image of the tree."""

    name: str
    split: str  # the folder: train, val, validation or test
    class_name: str
    size_bytes: int
    picture: Picture
    digest: str  # sha256 of the content; "" where only the header was read


@dataclass(frozen=True)
class TreeReport:
    """What a tree holds and what is wrong with it."""

    root: Path  # the level that holds train/
    splits: tuple[str, ...]
    class_names: tuple[str, ...]  # of all splits, sorted
    files: tuple[FileFacts, ...]
    bad: tuple[BadFile, ...]
    problems: tuple[str, ...]  # of the tree as a whole: classes that differ, folders that contradict each other
    loose: tuple[str, ...]  # files outside class folders, which are ignored

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


def check_tree(root: Path) -> TreeReport:
    """Reads, hashes and fully decodes every file of every split.

    Raises:
        DataError: there is no tree to look at (no such folder, no train/, no class folders).
    """
    return _look_over(root, _read_whole, "checking")


def describe_tree(root: Path) -> TreeReport:
    """The same tree from its files' headers alone: quick, but damage and duplicates do not show.

    Raises:
        DataError: as check_tree.
    """
    return _look_over(root, _read_header, "looking")


def _look_over(root: Path, read: Callable[[Entry], FileFacts | BadFile], label: str) -> TreeReport:
    level = find_root(str(root))
    splits = [list_split(level, folder) for folder in split_folders(level)]
    entries = [entry for split in splits for entry in split.entries]
    with quiet_pillow():
        results = list(in_threads(read, entries, label=label))
    files = tuple(result for result in results if isinstance(result, FileFacts))
    bad = [result for result in results if isinstance(result, BadFile)] + [
        file for split in splits for file in split.bad
    ]

    train = splits[0]
    problems = [problem for split in splits[1:] for problem in class_problems(train.class_names, split, owner="train/")]
    filled = {file.class_name for file in files if file.split == "train"}
    problems += [f"train/{shown(name)} has no readable image." for name in train.class_names if name not in filled]
    try:
        find_layout(str(level), "auto")
    except DataError as error:
        problems.append(str(error))
    return TreeReport(
        root=level,
        splits=tuple(split.folder for split in splits),
        class_names=tuple(sorted({name for split in splits for name in split.class_names})),
        files=files,
        bad=tuple(sorted(bad, key=lambda file: file.name)),
        problems=tuple(problems),
        loose=tuple(name for split in splits for name in split.loose),
    )


def _read_whole(entry: Entry) -> FileFacts | BadFile:
    try:
        content = read_file(entry.path)
        picture = inspect_image(io.BytesIO(content), decode=True)
    except BadImageError as problem:
        return BadFile(entry.name, problem.reason)
    return _facts(entry, len(content), picture, hashlib.sha256(content).hexdigest())


def _read_header(entry: Entry) -> FileFacts | BadFile:
    try:
        with entry.path.open("rb") as file:
            picture = inspect_image(file, decode=False)
        return _facts(entry, entry.path.stat().st_size, picture, "")
    except BadImageError as problem:
        return BadFile(entry.name, problem.reason)
    except OSError as error:
        return BadFile(entry.name, f"cannot be read: {error.strerror or error}")


def _facts(entry: Entry, size_bytes: int, picture: Picture, digest: str) -> FileFacts:
    return FileFacts(entry.name, entry.name.split("/", 1)[0], entry.class_name, size_bytes, picture, digest)
