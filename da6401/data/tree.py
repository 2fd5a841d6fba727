"""A folder of labelled images, root/{train,val|validation,test}/<class>/*, by names alone: no file is opened here."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.config.schema import ValRole
from da6401.errors import DataError

IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # besides every name that begins with a dot
SEARCH_DEPTH = 3  # Data/nature_12K/inaturalist_12K/train
SEARCH_FOLDERS = 500
LISTED = 20  # names in one message


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


@dataclass(frozen=True)
class Layout:
    """Which folder serves as which split; the root is the level that holds train/."""

    root: Path
    validation: str | None  # None: a part of train is held out
    test: str | None
    notes: tuple[str, ...]


def find_layout(root: str, val_role: ValRole) -> Layout:
    """Which folders of the tree at ``root`` are which splits (``~`` is expanded; nested trees are looked into).

    Raises:
        DataError: no such folder, no train/ in it, or folders that contradict each other or ``val_role``.
    """
    level = find_root(root)
    present = split_folders(level)
    val = next((name for name in present if name in ("val", "validation")), None)
    test = "test" if "test" in present else None
    where = f"in {level}"

    if "val" in present and "validation" in present:
        raise DataError(f"both val/ and validation/ are {where}: keep one of them.")
    if val_role == "validation" and val is None:
        raise DataError(f"data.val_role=validation, but there is no val/ or validation/ {where}: leave val_role out.")
    if val_role == "test" and val is None and test is None:
        raise DataError(f"data.val_role=test, but there is no val/ or test/ {where}: leave val_role out.")
    if val_role == "test" and val is not None and test is not None:
        raise DataError(f"data.val_role=test, but there is a test/ beside {val}/ {where}: leave val_role out.")

    notes = []
    if val is not None and test is None and val_role != "validation":
        why = "there is no test/" if val_role == "auto" else "as told"
        notes.append(f"{val}/ is the test split (data.val_role={val_role}, {why}).")
        val, test = None, val
    if test is None:
        notes.append("There is no test split: `evaluate` will not work on this tree.")
    return Layout(level, val, test, tuple(notes))


def find_root(root: str) -> Path:
    """The level at or below ``root`` that holds train/: an unpacked archive often brings a folder or two of its own.

    Raises:
        DataError: none, or several at the same depth.
    """
    if not root:
        raise DataError(
            "data.root is empty: say where the images are, data.root=FOLDER (with train/<class>/... in it)."
        )
    top = Path(root).expanduser()
    if not top.is_dir():
        what = "is not a folder" if top.exists() else "does not exist"
        raise DataError(f"The data set's folder, {top.absolute()}, {what}.")
    level, seen = [top.resolve()], 0
    for _ in range(SEARCH_DEPTH + 1):
        found = [folder for folder in level if (folder / "train").is_dir()]
        if len(found) > 1:
            several = ", ".join(str(folder) for folder in found[:LISTED])
            raise DataError(f"{top.absolute()} holds several data sets: choose one of {several}.")
        if found:
            return found[0]
        seen += len(level)
        if seen > SEARCH_FOLDERS:
            break
        level = [
            Path(item.path)
            for folder in level
            if os.access(folder, os.R_OK | os.X_OK)  # one that may not be listed is not the data set
            for item in _visible(folder)
            if item.is_dir(follow_symlinks=False)
        ]
    holds = ", ".join(f"{item.name}/" if item.is_dir() else item.name for item in _visible(top)[:LISTED]) or "nothing"
    raise DataError(
        f"There is no train/ in {top.absolute()} (it holds: {shown(holds)}). "
        "The tree must be train/<class>/<image>, and the same with val/ or validation/ and test/ where you have them."
    )


def split_folders(root: Path) -> list[str]:
    """Those of train, val, validation and test that the root has."""
    return [name for name in ("train", "val", "validation", "test") if (root / name).is_dir()]


def list_split(root: Path, folder: str) -> Split:
    """The files of one split, sorted by name. Hidden files, Thumbs.db and __MACOSX are passed over.

    Raises:
        DataError: the folder cannot be listed, links outside the root, or has no class folders.
    """
    if _leaves(root / folder, root):
        raise DataError(f"{root / folder} links outside the data root: copy the files, or set data.root to their home.")
    classes: list[str] = []
    entries: list[Entry] = []
    bad: list[BadFile] = []
    loose: list[str] = []
    for item in _visible(root / folder):
        name = f"{folder}/{item.name}"
        if not item.is_dir():
            loose.append(name)
            continue
        classes.append(item.name)
        if item.is_symlink() and _leaves(Path(item.path), root):
            bad.append(BadFile(name, "a class folder that links outside the data root"))
            continue
        for file in _visible(Path(item.path)):
            reason = _unusable(file, root)
            if reason:
                bad.append(BadFile(f"{name}/{file.name}", reason))
            else:
                entries.append(Entry(f"{name}/{file.name}", Path(file.path), item.name))
    if not classes:
        raise DataError(f"{root / folder} has no class folders: it must be {folder}/<class>/<image>.")
    return Split(folder, tuple(classes), tuple(entries), tuple(bad), tuple(loose))


def class_problems(class_names: Sequence[str], split: Split, *, owner: str) -> list[str]:
    """How a split's class folders differ from the ``class_names`` of ``owner``; none where they are the same."""
    unknown = sorted(set(split.class_names) - set(class_names))
    missing = sorted(set(class_names) - set(split.class_names))
    problems = []
    if unknown:
        problems.append(f"{split.folder}/ has {_named(unknown)}, unknown to {owner}: rename or remove.")
    if missing:
        problems.append(
            f"{split.folder}/ lacks {_named(missing)} of {owner}: add the images, "
            "or an empty folder of that name if there are none."
        )
    return problems


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


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            listed = [item for item in items if not item.name.startswith(".") and item.name.lower() not in IGNORED]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error
    return sorted(listed, key=lambda item: item.name)


def _unusable(item: os.DirEntry[str], root: Path) -> str:
    """Why something in a class folder is no file to open; empty where it is one."""
    if item.is_symlink():
        if not os.path.exists(item.path):
            return "a broken link"
        if _leaves(Path(item.path), root):
            return "links outside the data root"
    if item.is_dir():
        return "a folder inside a class folder: only train/<class>/<image> is read"
    if not stat.S_ISREG(item.stat().st_mode):
        return "not a regular file"
    return ""


def _leaves(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root)
