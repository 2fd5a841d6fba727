"""The files of a split, root/<split>/<class>/*, by names alone: no file is opened here."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from da6401.data.split import single_problems
from da6401.errors import DataError

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # besides every name that begins with a dot
LISTED = 20  # names in one message
IN_PLACE = "in place of a class folder, "
COPY = "copy what it leads to into the tree (cp -rL copies a tree so)"


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used: its name relative to the root ("train/cat/1.jpg"), and why, in plain words."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A file of a class folder; whether it is an image shows only when it is opened."""

    name: str  # relative to the root, "/" on every system
    path: Path
    class_name: str


@dataclass(frozen=True)
class Split:
    """One of the root's folders: its classes, sorted, its files by name, and what cannot be a file of it."""

    folder: str
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    bad: tuple[BadFile, ...]
    loose: tuple[str, ...]  # files beside the class folders, which belong to no class

    @property
    def lost_links(self) -> dict[str, str]:
        """Links in place of class folders that lead nowhere, and what is wrong with them."""
        lost = (file for file in self.bad if file.name.count("/") == 1)
        named = {file.name.partition("/")[2]: file.reason.removeprefix(IN_PLACE) for file in lost}
        return {name: reason for name, reason in named.items() if name not in self.class_names}

    def counts(self) -> dict[str, int]:
        """Files of each class, 0 for an empty folder."""
        found = Counter(entry.class_name for entry in self.entries)
        return {name: found[name] for name in self.class_names}


def list_split(root: Path, folder: str) -> Split:
    """The files of one split, sorted by name. Hidden files, Thumbs.db and __MACOSX are passed over.

    Raises:
        DataError: the folder cannot be listed, links outside the root, or has no class folders.
    """
    if _leaves(root / folder, root):
        raise DataError(f"{root / folder} links outside the data root: {COPY}, or set data.root to its home.")
    classes: list[str] = []
    entries: list[Entry] = []
    bad: list[BadFile] = []
    loose: list[str] = []
    for item in visible(root / folder):
        name = f"{folder}/{item.name}"
        problem = _link_problem(item, root)
        if problem and (is_folder(item) or not os.path.exists(item.path)):
            classes += [item.name] if is_folder(item) else []
            bad.append(BadFile(name, f"{IN_PLACE}{problem}"))
        elif not is_folder(item):
            loose.append(name)
        else:
            classes.append(item.name)
            for file in visible(Path(item.path)):
                reason = _link_problem(file, root) or _unusable(file)
                if reason:
                    bad.append(BadFile(f"{name}/{file.name}", reason))
                else:
                    entries.append(Entry(f"{name}/{file.name}", Path(file.path), item.name))
    if not classes:
        raise DataError(f"{root / folder} has no class folders: it must be {folder}/<class>/<image>.")
    return Split(folder, tuple(classes), tuple(entries), tuple(bad), tuple(loose))


def class_problems(
    class_names: Sequence[str], split: Split, *, owner: str, owners_lost: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """How a split's class folders differ from the ``class_names`` of ``owner``; none where they are the same.

    Args:
        owners_lost: the owner's own lost_links.
    """
    here, there = split.lost_links, owners_lost
    unknown = sorted(set(split.class_names) - set(class_names) - set(there))
    missing = sorted(set(class_names) - set(split.class_names) - set(here))
    problems = [f"{split.folder}/{shown(name)} is {here[name]}." for name in sorted(set(class_names) & set(here))]
    problems += [f"{owner}{shown(name)} is {there[name]}." for name in sorted(set(split.class_names) & set(there))]
    if unknown:
        problems.append(f"{split.folder}/ has {_named(unknown)}, unknown to {owner}: rename or remove.")
    if missing:
        problems.append(
            f"{split.folder}/ lacks {_named(missing)} of {owner}: add the images, "
            "or an empty folder of that name if there are none."
        )
    pairs = [group for group in alike([*unknown, *missing]) if set(group) & set(unknown) and set(group) & set(missing)]
    problems += [f"{split.folder}/ and {owner}: {_spelt(group)} are one class, spelt in two ways." for group in pairs]
    return problems


def training_problems(
    train: Mapping[str, int], *, folder: str, held_out: bool, explained: Collection[str] = ()
) -> list[str]:
    """Why nothing can be trained on so many images of each class.

    Args:
        train: readable images of each class, 0 for a class folder without.
        folder: where they are, for messages.
        held_out: validation is a part of them.
        explained: classes whose want of images has been told already.
    """
    if len(train) == 1:
        return [f"{folder}/ has one class alone, {shown(*train)}: there is nothing to tell apart; add another."]
    empty = [name for name, count in train.items() if not count and name not in explained]
    problems = []
    if empty:
        problems.append(f"no readable training image in {_named(empty)}: add some, or remove the folder.")
    return problems + (single_problems(train) if held_out else [])


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ in case, Unicode's normal form or spaces alone."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def alike_notes(class_names: Iterable[str]) -> list[str]:
    """A sentence on each group of classes whose names look alike."""
    return [f"Class names that look alike: {_spelt(group)}. Is it one class?" for group in alike(class_names)]


def _spelt(names: Sequence[str]) -> str:
    return " and ".join(ascii(name) for name in names)


def bad_file_list(bad: Sequence[BadFile]) -> str:
    """The bad files, a line each, at most 20 and then their number."""
    lines = [f"  {shown(file.name)}: {shown(file.reason)}" for file in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED} more")
    return "\n".join(lines)


def shown(text: str) -> str:
    """Text that is safe to print: control characters and bytes that are not UTF-8 as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _named(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    return f"the class {listed}" if len(names) == 1 else f"{len(names)} classes ({listed})"


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without what systems leave in it.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as items:
            listed = [item for item in items if not item.name.startswith(".") and item.name.lower() not in IGNORED]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error
    return sorted(listed, key=lambda item: item.name)


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return item.is_dir()
    except OSError:  # a link that leads back to itself, or one that may not be followed
        return False


def link_problem(path: Path) -> str:
    """What is wrong with a symbolic link that leads nowhere; empty for anything else."""
    try:
        path.stat()
    except FileNotFoundError:
        return f"a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else ""
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
    return ""


def _link_problem(item: os.DirEntry[str], root: Path) -> str:
    if not item.is_symlink():
        return ""
    path = Path(item.path)
    if problem := link_problem(path):
        return f"{problem}: mend or remove it"
    return f"a link that leaves the data root, to {path.resolve()}: {COPY}" if _leaves(path, root) else ""


def _unusable(item: os.DirEntry[str]) -> str:
    """Why something in a class folder is no file to open; empty where it is one."""
    if is_folder(item):
        return "a folder inside a class folder: only train/<class>/<image> is read"
    if not stat.S_ISREG(item.stat().st_mode):
        return "not a regular file"
    return ""


def _leaves(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root)
