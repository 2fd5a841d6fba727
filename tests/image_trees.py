"""Folders of tiny images, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def image_tree(
    root: Path,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    names: Sequence[str] = ("0.png", "1.png", "2.png", "3.png"),
    splits: Sequence[str] = ("train", "val", "test"),
    side: int = 8,
) -> Path:
    """ROOT/<split>/<class>/<name>, each of one colour of its own; returns ROOT."""
    for place, split in enumerate(splits):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, file in enumerate(names):
                Image.new("RGB", (side, side), (number * 40, label * 90, place * 90)).save(folder / file)
    return root
