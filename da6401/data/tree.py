"""The files of a split, root/<split>/<class>/*, by names alone: no file is opened here."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from da6401.errors import DataError
from da6401.redact import listed

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # besides every name that begins with a dot
IMAGE_PATH = "<class>/<image>"  # below a split's folder
NESTED = f"a folder inside a class folder: only train/{IMAGE_PATH} is read (data.class_depth says otherwise)"
COPY = "copy what it leads to into the tree (cp -rL copies a tree so)"


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used: its name relative to the root ("train/cat/1.jpg"), and why, in plain words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file of a class; whether it is an image shows only when it is opened."""

    name: str  # relative to the root, "/" on every system
    location: str  # path of the file, or of the one that holds it, or of the folder whose files do
    class_name: str
    content: Callable[[], bytes] | None = None  # reads an image that is no file of its own
    origin: str = ""  # what else says which image that is, where another one may have its name: a column, a data set

    @property
    def path(self) -> Path:
        """The location; made when it is asked for, since a million paths take seconds."""
        return Path(self.location)


@dataclass(frozen=True)
class SplitFiles:
    """The content of one of the root's folders, sorted by name."""

    folder: str
    class_names: tuple[str, ...]
    files: tuple[LabelledFile, ...]
    bad_files: tuple[BadFile, ...]
    bad_folders: dict[str, str]  # links in place of class folders, and what is wrong with each
    loose: tuple[str, ...]  # files beside the class folders, which belong to no class
    excluded: tuple[str, ...] = ()  # names that data.exclude has left out
    before: tuple[LabelledFile, ...] = ()  # the files with those, where there are some

    @property
    def names(self) -> list[str]:
        """Of all files, the bad ones last."""
        return [*(file.name for file in self.files), *(file.name for file in self.bad_files)]

    @property
    def drawn_from(self) -> tuple[LabelledFile, ...]:
        """All files, those left out too: a split that is drawn does not move with data.exclude."""
        return self.before or self.files

    def without(self, names: Collection[str]) -> SplitFiles:
        """The split less the files of these names, and less the classes that have no file left."""
        if not names:
            return self
        files = tuple(file for file in self.files if file.name not in names)
        bad = tuple(file for file in self.bad_files if file.name not in names)
        left_out = tuple(name for name in self.names if name in names)
        had, has = ({file.class_name for file in each} for each in (self.files, files))
        classes = tuple(name for name in self.class_names if name in has or name not in had)
        before = tuple(file for file in self.files if file.class_name in has)
        return replace(self, class_names=classes, files=files, bad_files=bad, excluded=left_out, before=before)

    @property
    def bad(self) -> tuple[BadFile, ...]:
        """All that cannot be used."""
        links = [
            BadFile("/".join([*([self.folder] if self.folder else []), name]), f"in place of a class folder, {problem}")
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


def list_split(root: Path, folder: str, *, class_depth: str = "auto", follow_links: bool = False) -> SplitFiles:
    """The files of one split. Hidden files, Thumbs.db and __MACOSX are left out.

    Args:
        folder: below the root; "" is the root itself.
        class_depth: data.class_depth.
        follow_links: links may leave the root.

    Raises:
        DataError: the folder cannot be listed, links outside the root, or has no class folders; or the classes are
            nested, and class_depth does not say which folders are classes.
    """
    if not follow_links and _is_outside(root / folder, root):
        raise DataError(
            f"{root / folder} links outside the data root: {COPY}, or set data.root to where it leads, or "
            "data.follow_links=true."
        )
    walk = _Walk(root, folder, class_depth, follow_links)
    walk.enter(root / folder, (), (os.path.realpath(root / folder),))
    where = f"{folder}/" if folder else ""
    if not walk.classes:
        raise DataError(
            f"{root / folder} has no class folders: it must be {where}{IMAGE_PATH} (data.class_depth={class_depth})."
            " If the folders beside it are classes too, say data.layout=flat."
        )
    if class_depth == "auto" and walk.nested and not walk.files:
        raise DataError(_which_depth(root, folder, follow_links, walk.nested))
    classes = sorted(walk.classes, key=by_folder)
    bad = sorted(walk.bad_files, key=lambda file: by_folder(file.name))
    files = sorted(walk.files, key=lambda file: by_folder(file.name))
    return SplitFiles(folder, tuple(classes), tuple(files), tuple(bad), walk.bad_folders, tuple(walk.loose))


class _Walk:
    """What the folders below a split's hold, by data.class_depth."""

    def __init__(self, root: Path, folder: str, class_depth: str, follow_links: bool) -> None:
        self.root, self.folder, self.follow_links = root, folder, follow_links
        self.class_depth = class_depth
        self.depth = 0 if class_depth == "leaf" else 1 if class_depth == "auto" else int(class_depth)
        self.classes: dict[str, None] = {}
        self.files: list[LabelledFile] = []
        self.bad_files: list[BadFile] = []
        self.bad_folders: dict[str, str] = {}
        self.loose: list[str] = []
        self.nested: list[str] = []  # folders inside a class folder, which auto refuses

    def enter(self, path: Path, inside: tuple[str, ...], seen: tuple[str, ...]) -> None:
        """``inside``: names of the folders from the split's to this one; ``seen``: where each of them leads."""
        if inside and (self.depth == len(inside) or (not self.depth and _holds_files(path))):
            self.classes["/".join(inside)] = None
        for item in visible(path):
            name = "/".join([*([self.folder] if self.folder else []), *inside, item.name])
            problem = _link_problem(item, self.root, follow=self.follow_links)
            if not inside and problem and (is_folder(item) or not os.path.exists(item.path)):
                self.bad_folders[item.name] = problem
                if is_folder(item) and self.depth <= 1:
                    self.classes[item.name] = None
            elif problem and inside:
                self.bad_files.append(BadFile(name, problem))
            elif is_folder(item):
                self._folder(item, name, inside, seen)
            else:
                self._file(item, name, inside)

    def _folder(self, item: os.DirEntry[str], name: str, inside: tuple[str, ...], seen: tuple[str, ...]) -> None:
        if inside and self.class_depth == "auto":
            self.nested.append(name)
            self.bad_files.append(BadFile(name, NESTED))
            return
        real = os.path.realpath(item.path)
        if real in seen:
            self.bad_files.append(BadFile(name, "a link that leads back to a folder above it: remove it"))
            return
        self.enter(Path(item.path), (*inside, item.name), (*seen, real))

    def _file(self, item: os.DirEntry[str], name: str, inside: tuple[str, ...]) -> None:
        if not inside:
            self.loose.append(name)
        elif len(inside) < self.depth:
            reason = f"only {len(inside)} folders deep, where data.class_depth={self.depth}: move it, or leave it out"
            self.bad_files.append(BadFile(name, reason))
        elif not stat.S_ISREG(item.stat().st_mode):
            self.bad_files.append(BadFile(name, "not a regular file"))
        else:
            class_name = "/".join(inside[: self.depth or None])
            self.files.append(LabelledFile(name, item.path, class_name))


def _holds_files(path: Path) -> bool:
    """Whether a folder is a class at data.class_depth=leaf: it holds files, or nothing at all."""
    items = visible(path)
    return not items or any(not is_folder(item) for item in items)


def _which_depth(root: Path, folder: str, follow_links: bool, nested: Sequence[str]) -> str:
    """The refusal of nested classes, with what each value of data.class_depth would give."""
    choices = []
    for depth in ("1", "2", "leaf"):
        names = list_split(root, folder, class_depth=depth, follow_links=follow_links).class_names
        choices.append(f"data.class_depth={depth} ({len(names)} classes: {listed(names, most=3)})")
    return (
        f"The classes of {root / folder} are nested: no image lies in its folders themselves, only deeper "
        f"({listed(nested, most=2)}). Say which folders are classes: {', '.join(choices)}. If it holds several data "
        "sets, set data.root to one of them."
    )


def by_folder(name: str) -> str:
    """The key to sort names by, so that a folder's files stay together: as if split at every "/"."""
    return name.replace("/", "\0")


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The content of a folder, sorted by name, without hidden files and those of operating systems.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as items:
            found = [item for item in items if not item.name.startswith(".") and item.name.lower() not in IGNORED]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error
    return sorted(found, key=lambda item: item.name)


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


def _link_problem(item: os.DirEntry[str], root: Path, *, follow: bool) -> str:
    if not item.is_symlink():
        return ""
    path = Path(item.path)
    if problem := link_problem(path):
        return f"{problem}: mend or remove it"
    if follow or not _is_outside(path, root):
        return ""
    return f"a link that leaves the data root, to {path.resolve()}: {COPY}, or say data.follow_links=true"


def _is_outside(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root)
