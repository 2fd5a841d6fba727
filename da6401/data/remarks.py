"""What every source of files tells the user: bad files, images in two splits, classes without images."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from da6401.config.rule import default_of
from da6401.config.schema import FolderConfig, ImageFiles, TableKeys
from da6401.data.image_sets import ReadSplit
from da6401.data.tree import BadFile
from da6401.errors import DataError
from da6401.redact import listed, one_line

MOST_BAD_FILES = 20  # in one message
# They say how images are read or split for a training, not what `da6401 data check` looks at.
NOT_CHECKED = ("source", "root", "image_size", "resize", "bad_files", "cache", "cache_limit_gb")


def refuse_bad_files(root: Path, bad: Sequence[BadFile], cfg: ImageFiles) -> None:
    """Nothing where there are none, or where data.bad_files=skip.

    Raises:
        DataError: there are bad files, which are named.
    """
    if bad and cfg.bad_files == "stop":
        raise DataError(
            f"{len(bad)} unusable file{'s' if len(bad) > 1 else ''} in {root}:\n{bad_lines(bad)}\n"
            f"`{check_command(cfg)}` lists all of them. Mend or delete them, or leave them out with "
            "data.bad_files=skip."
        )


def bad_lines(bad: Sequence[BadFile]) -> str:
    """A line for each of the first bad files, and how many there are more."""
    lines = [f"  {one_line(file.name)}: {one_line(file.reason)}" for file in bad[:MOST_BAD_FILES]]
    if len(bad) > MOST_BAD_FILES:
        lines.append(f"  ... and {len(bad) - MOST_BAD_FILES} more")
    return "\n".join(lines)


def check_command(cfg: ImageFiles) -> str:
    """The command that checks the same data."""
    words = ["da6401", "data", "check", cfg.root]
    if cfg.source != "folder":
        words.append(f"data={cfg.source}")
    for name, value in _changed(cfg):
        is_role = isinstance(cfg, FolderConfig) and name == "val_role"
        shown = str(value).lower() if isinstance(value, bool) else value
        words += ["--val-role", str(value)] if is_role else [f"data.{name}={shown}"]
    return shlex.join(words)


def _changed(keys: ImageFiles | TableKeys) -> Iterator[tuple[str, Any]]:
    """The keys below `data` that `data check` heeds and that are not their defaults, with their values."""
    for item in fields(keys):
        value = getattr(keys, item.name)
        if isinstance(value, TableKeys):
            yield from ((f"{item.name}.{name}", inner) for name, inner in _changed(value))
        elif item.name not in NOT_CHECKED and "rule" in item.metadata and value != default_of(item):
            yield item.name, value


def split_remarks(class_names: Sequence[str], train: ReadSplit, validation: ReadSplit, check: str) -> list[str]:
    """What weakens the validation accuracy: images that train has too, and classes without any."""
    remarks = []
    in_train = set(train.digests)
    shared = sum(digest in in_train for digest in validation.digests)
    if shared:
        remarks.append(
            f"{shared} validation image{'s are' if shared > 1 else ' is'} also in train, byte for byte: "
            f"validation accuracy is too high (`{check}` names them)."
        )
    present = set(validation.images.labels_N.tolist())
    absent = [name for label, name in enumerate(class_names) if label not in present]
    if absent:
        remarks.append(f"Validation has no image of {listed(absent)}.")
    return remarks
