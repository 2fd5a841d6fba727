"""The files of a split, root/<split>/<class>/*, by names alone: no file is opened here."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from da6401.errors import DataError

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # besides every name that begins with a dot
IMAGE_PATH = "<class>/<image>"  # below a split's folder
COPY = "copy what it leads to into the tree (cp -rL copies a tree so)"


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used: its name relative to the root ("train/cat/1.jpg"), and why, in plain words."""

    name: str
    reason: str


@dataclass(frozen=True)
class LabelledFile:
    """A file of a class; whether it is an image shows only when it is opened."""

    name: str  # relative to the root, "/" on every system
    path: Path
    class_name: str


@dataclass(frozen=True)
class SplitFiles:
    """The content of one of the root's folders, sorted by name."""

    folder: str
    class_names: tuple[str, ...]
    files: tuple[LabelledFile, ...]
    bad_files: tuple[BadFile, ...]
    bad_folders: dict[str, str]  # links in place of class folders, and what is wrong with each
    loose: tuple[str, ...]  # files beside the class folders, which belong to no class

    @property
    def bad(self) -> tuple[BadFile, ...]:
        """All that cannot be used."""
        links = [
            BadFile(f"{self.folder}/{name}", f"in place of a class folder, {problem}")
            for name, problem in self.bad_folders.items()
        ]
        return (*links, *self.bad_files)

    @property
    def lost_classes(self) -> dict[str, str]:
        """The bad_folders that lead nowhere, so that they may or may not be classes."""
        return {name: problem for name, problem in self.bad_folders.items() if name not in self.class_names}

    def counts(self) -> dict[str, int]:
        """Files of each class, 0 for an empty folder."""
        found = Counter(file.class_name for file in self.files)
        return {name: found[name] for name in self.class_names}


def list_split(root: Path, folder: str) -> SplitFiles:
    """The files of one split. Hidden files, Thumbs.db and __MACOSX are left out.

    Raises:
        DataError: the folder cannot be listed, links outside the root, or has no class folders.
    """
    if _is_outside(root / folder, root):
        raise DataError(f"{root / folder} links outside the data root: {COPY}, or set data.root to where it leads.")
    classes: list[str] = []
    files: list[LabelledFile] = []
    bad_files: list[BadFile] = []
    bad_folders: dict[str, str] = {}
    loose: list[str] = []
    for item in visible(root / folder):
        problem = _link_problem(item, root)
        if is_folder(item):
            classes.append(item.name)
        if problem and (is_folder(item) or not os.path.exists(item.path)):
            bad_folders[item.name] = problem
        elif not is_folder(item):
            loose.append(f"{folder}/{item.name}")
        else:
            for each in visible(Path(item.path)):
                name = f"{folder}/{item.name}/{each.name}"
                reason = _link_problem(each, root) or _unusable(each)
                if reason:
                    bad_files.append(BadFile(name, reason))
                else:
                    files.append(LabelledFile(name, Path(each.path), item.name))
    if not classes:
        raise DataError(f"{root / folder} has no class folders: it must be {folder}/{IMAGE_PATH}.")
    return SplitFiles(folder, tuple(classes), tuple(files), tuple(bad_files), bad_folders, tuple(loose))


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The content of a folder, sorted by name, without hidden files and those of operating systems.

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
    return f"a link that leaves the data root, to {path.resolve()}: {COPY}" if _is_outside(path, root) else ""


def _unusable(item: os.DirEntry[str]) -> str:
    """Why this content of a class folder cannot be opened as a file; empty where it can."""
    if is_folder(item):
        return f"a folder inside a class folder: only train/{IMAGE_PATH} is read"
    if not stat.S_ISREG(item.stat().st_mode):
        return "not a regular file"
    return ""


def _is_outside(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root)
