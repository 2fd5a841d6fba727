"""Folders of images without splits: root/<class>/*, from which train, validation and test are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from da6401.config.schema import FolderConfig
from da6401.data.draw import DRAWN
from da6401.data.layout import FOLDER_NAMES, SEARCH_DEPTH, given_folder, holds_splits, no_train, subfolders
from da6401.data.listing import Listing
from da6401.data.tree import IMAGE_PATH, is_folder, list_split, visible
from da6401.errors import DataError
from da6401.redact import listed


def is_flat(cfg: FolderConfig) -> bool:
    """Whether the folder is read without splits, by data.layout, or where that is auto by what the folder holds.

    Raises:
        DataError: there is no such folder.
    """
    return cfg.layout == "flat" or (cfg.layout == "auto" and not holds_splits(cfg.root))


def list_flat(cfg: FolderConfig) -> Listing:
    """Every image of root/<class>/*, its class, and no split.

    Raises:
        DataError: there are no class folders, or they may be something else: splits without train/, or nested classes.
    """
    top = given_folder(cfg.root)
    root = _flat_root(top)
    if root is None:
        raise DataError(
            f"{no_train(top)} The tree must be train/{IMAGE_PATH}, and the same with val/ or validation/ and test/ "
            f"where you have them; or {IMAGE_PATH} without splits. Where a table holds the labels, say data=table."
        )
    roles = [item.name for item in subfolders(root) if item.name.lower() in FOLDER_NAMES]
    if cfg.layout == "auto" and roles:
        raise DataError(
            f"{root} has {listed(roles)} but no train/: name the training folder train, or say data.layout=flat if "
            "these are classes."
        )
    files = list_split(root, "", class_depth=cfg.class_depth, follow_links=cfg.follow_links)
    number = {name: label for label, name in enumerate(files.class_names)}
    why = "data.layout=flat" if cfg.layout == "flat" else "there is no train/"
    depth = "" if cfg.class_depth == "auto" else f", data.class_depth={cfg.class_depth}"
    return Listing(
        root=root,
        found=f"Layout: one folder a class, without splits, because {why}{depth}.",
        class_names=files.class_names,
        names=[file.name for file in files.files],
        labels_N=np.array([number[file.class_name] for file in files.files], dtype=np.int32),
        splits_N=np.full(len(files.files), DRAWN, dtype=np.int8),
        locate=files.files.__getitem__,
        bad=files.bad,
        loose=files.loose,
        lost_classes=files.bad_folders,
    )


def _flat_root(top: Path) -> Path | None:
    """The folder that holds the class folders: ``top``, or deeper while there is one folder alone, without images."""
    folder = top.resolve()
    for _ in range(SEARCH_DEPTH + 1):
        inside = subfolders(folder)
        if not inside:
            return None
        if len(inside) > 1 or any(not is_folder(item) for item in visible(Path(inside[0].path))):
            return folder
        if inside[0].is_symlink():
            return None
        folder = Path(inside[0].path)
    return None
