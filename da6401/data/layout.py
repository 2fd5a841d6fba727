"""Which folder of a tree is which split, by the names that people use: root/{train,validation,test}."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from da6401.config.splits import TEST, TRAIN, VALIDATION, SplitName, ValRole
from da6401.data.tree import IMAGE_PATH, is_folder, link_problem, visible
from da6401.errors import DataError
from da6401.redact import listed, one_line

SEARCH_DEPTH = 3  # Data/nature_12K/inaturalist_12K/train
SEARCH_FOLDERS = 500
# In any case of letters. Two folders of one split are refused.
FOLDER_NAMES: dict[str, SplitName] = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Which folder is which split; the root is the folder that holds train/."""

    root: Path
    train: str
    validation: str | None  # None: a part of train is held out
    test: str | None
    notes: tuple[str, ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that are used."""
        return tuple(name for name in (self.train, self.validation, self.test) if name is not None)


def find_layout(root: str, val_role: ValRole) -> Layout:
    """Which folders of the tree at ``root`` are which splits (``~`` is expanded; nested trees are looked into).

    Raises:
        DataError: no such folder, no train/ in it, or folders that contradict each other or ``val_role``.
    """
    folder = find_root(root)
    splits: dict[SplitName, str] = {}
    for role, name in split_folders(folder):
        if role in splits:
            both = f"both {one_line(splits[role])}/ and {one_line(name)}/"
            raise DataError(f"{both} are in {folder}, and mean the {role} split: keep one of them.")
        splits[role] = name
    val, test, where = splits.get(VALIDATION), splits.get(TEST), f"in {folder}: leave val_role out."
    if val_role == VALIDATION and val is None:
        raise DataError(f"data.val_role=validation, but there is no val/ or validation/ {where}")
    if val_role == TEST and val is None and test is None:
        raise DataError(f"data.val_role=test, but there is no val/ or test/ {where}")
    if val_role == TEST and val is not None and test is not None:
        raise DataError(f"data.val_role=test, but there is a {test}/ beside {val}/ {where}")

    notes = []
    if val is not None and test is None and val_role != VALIDATION:
        why = "there is no test/" if val_role == "auto" else "as told"
        notes.append(f"{val}/ is the test split (data.val_role={val_role}, {why}).")
        val, test = None, val
    if test is not None and not _has_folders(folder / test):
        notes.append(f"{test}/ has no class folders, so its images have no labels: it is not used.")
        test = None
    if test is None:
        notes.append("There is no test split: `evaluate` will not work on this tree.")
    others = [item.name + "/" for item in visible(folder) if is_folder(item) and item.name not in splits.values()]
    if others:
        notes.append(f"Not used, beside the splits: {listed(others)}")
    return Layout(folder, splits[TRAIN], val, test, tuple(notes))


def find_root(root: str) -> Path:
    """The folder at or below ``root`` that holds train/: an unpacked archive often has a folder or two around it.

    Raises:
        DataError: none, or several at the same depth.
    """
    if not root:
        raise DataError(
            f"data.root is empty: say where the images are, data.root=FOLDER (with {TRAIN}/{IMAGE_PATH} in it)."
        )
    top = given_folder(root)
    found = _with_train(top)
    if found is None:
        raise DataError(
            f"{no_train(top)} The tree must be {TRAIN}/{IMAGE_PATH}, and the same with val/ or validation/ and test/ "
            f"where you have them; or {IMAGE_PATH} without splits (data.layout=flat)."
        )
    return found


def given_folder(root: str) -> Path:
    """The folder that data.root names, ``~`` expanded.

    Raises:
        DataError: it is not there, is no folder, or has too long a name for one.
    """
    top = Path(root).expanduser()
    try:
        if top.is_dir():
            return top
        what = "is not a folder" if top.exists() else link_problem(top) or "does not exist"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        what = "does not exist: its name is too long"
    raise DataError(f"The data set's folder, {top.absolute()}, {what}.")


def holds_splits(root: str) -> bool:
    """Whether there is a train/ at or below ``root``. Raises DataError where there are several, or no such folder."""
    return not root or _with_train(given_folder(root)) is not None


def no_train(top: Path) -> str:
    """What a folder holds in place of train/."""
    holds = listed([f"{item.name}/" if is_folder(item) else item.name for item in visible(top)]) or "nothing"
    links = ((item.name, link_problem(Path(item.path))) for item in visible(top))
    lost = next((f" {name} is {problem}." for name, problem in links if problem), "")
    return f"There is no train/ in {top.absolute()} (it holds: {holds}).{one_line(lost)}"


def _with_train(top: Path) -> Path | None:
    """The folder at or below ``top`` that holds train/; None where there is none."""
    folders, seen = [top.resolve()], 0
    for _ in range(SEARCH_DEPTH + 1):
        found = [folder for folder in folders if _has_train(folder)]
        if len(found) > 1:
            raise DataError(f"{top.absolute()} holds several data sets: choose one of {listed(found)}.")
        if found:
            return found[0]
        seen += len(folders)
        if seen > SEARCH_FOLDERS:
            break
        folders = [Path(item.path) for folder in folders for item in subfolders(folder) if not item.is_symlink()]
    return None


def split_folders(root: Path) -> list[tuple[SplitName, str]]:
    """The splits' folders that the root has, train first; two folders of one split are two entries."""
    order = list(dict.fromkeys(FOLDER_NAMES.values()))
    return sorted(_splits_of(root), key=lambda split: (order.index(split[0]), split[1]))


def _splits_of(folder: Path) -> Iterator[tuple[SplitName, str]]:
    for item in subfolders(folder):
        role = FOLDER_NAMES.get(item.name.lower())
        if role is not None and not (role == TRAIN and _contains_data_set(Path(item.path))):
            yield role, item.name


def _has_train(folder: Path) -> bool:
    return any(role == TRAIN for role, _ in _splits_of(folder))


def _contains_data_set(folder: Path) -> bool:
    """Whether a folder named training holds a data set: training/train and training/test, or one folder deeper."""
    inside = subfolders(folder)
    if len(inside) == 1:  # one class is nothing to train on
        return _has_train(Path(inside[0].path))
    roles = [FOLDER_NAMES.get(item.name.lower()) for item in inside]
    return TRAIN in roles and None not in roles


def subfolders(folder: Path) -> list[os.DirEntry[str]]:
    """The visible folders in a folder; none where it cannot be listed."""
    if not os.access(folder, os.R_OK | os.X_OK):  # a folder that cannot be listed is not the data set
        return []
    return [item for item in visible(folder) if is_folder(item)]


def _has_folders(folder: Path) -> bool:
    """False only where the folder can be listed and has none; of the test split no more is looked at."""
    return not os.access(folder, os.R_OK | os.X_OK) or bool(subfolders(folder))
