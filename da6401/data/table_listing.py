"""data=table: the listing of a table of paths and labels."""

# N images

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from da6401.config.schema import TableConfig
from da6401.data.draw import DRAWN, SPLITS, Splits
from da6401.data.labels import numbered
from da6401.data.layout import FOLDER_NAMES
from da6401.data.listing import Listing
from da6401.data.table import Table, open_table
from da6401.data.table_columns import Part, find_parts, group_column
from da6401.data.tree import BadFile, LabelledFile
from da6401.errors import DataError
from da6401.redact import listed, one_line

PROBED = 20  # paths that are looked for, to find the folder that they start from
MOST_SHOWN = 5
BROKEN = re.compile("[\n\r\0]")


def list_table(cfg: TableConfig) -> Listing:
    """Every row of the table or tables; no image is opened, nor looked for but for a few.

    Raises:
        DataError: there is no table, it is ambiguous or damaged, or rows contradict each other.
    """
    root, parts = find_parts(cfg)
    names, labels, splits, groups = _read_parts(parts, cfg)
    if not names:
        raise DataError(f"{root}: the table has no rows.")
    folder = _images_folder(cfg, root, names)
    names, inside = _clean_names(names, folder)
    keep, note = _unique(names, labels, splits)
    class_names, labels_N, named = _classes(cfg, root, labels)
    if keep is not None:
        names, inside = [names[row] for row in keep], [inside[row] for row in keep] if inside else []
        labels_N, splits = labels_N[keep], splits[keep]
        groups = [groups[row] for row in keep] if groups else []
    outside = [] if cfg.follow_links or not inside else [row for row, fits in enumerate(inside) if not fits]
    bad = [BadFile(names[row], OUTSIDE) for row in outside]
    if outside:
        kept = np.setdiff1d(np.arange(len(names)), outside)
        names, labels_N, splits = [names[row] for row in kept.tolist()], labels_N[kept], splits[kept]
        groups = [groups[row] for row in kept.tolist()] if groups else []
    columns: dict[str, Sequence[str]] = dict.fromkeys(parts[0].table.columns, ())
    if group_column(parts[0].table, cfg.group_by) is not None:
        columns[cfg.group_by] = groups
    locate = functools.partial(_locate, names=names, labels_N=labels_N, class_names=class_names, folder=str(folder))
    return Listing(
        root=folder,
        found=_found(parts, folder, root) + named,
        class_names=class_names,
        names=names,
        labels_N=labels_N,
        splits_N=splits,
        locate=locate,
        columns=columns,
        bad=tuple(bad),
        notes=(note,) if note else (),
        stamp=" ".join(part.table.digest() for part in parts),
    )


OUTSIDE = "its path leaves the folder of the images: copy it into the folder, or say data.follow_links=true"


def _locate(
    row: int, *, names: Sequence[str], labels_N: npt.NDArray[np.int32], class_names: Sequence[str], folder: str
) -> LabelledFile:
    return LabelledFile(names[row], os.path.join(folder, names[row]), class_names[labels_N[row]])


def _read_parts(parts: Sequence[Part], cfg: TableConfig) -> tuple[list[str], list[str], Splits, list[str]]:
    """Paths, labels, splits and groups of all rows."""
    names: list[str] = []
    labels: list[str] = []
    groups: list[str] = []
    sides: list[Splits] = []
    for part in parts:
        places = [part.path, part.label]
        places += [part.split] if part.split is not None else []
        group = group_column(part.table, cfg.group_by)
        places += [group] if group is not None else []
        columns = part.table.read(places)
        if cfg.table.suffix:
            columns[0] = [f"{name}{cfg.table.suffix}" for name in columns[0]]
        for cells, what, place in ((columns[0], "path", part.path), (columns[1], "label", part.label)):
            _refuse_empty(part.table, cells, what, place)
            _refuse_broken(part.table, cells, what, place)
        names += columns[0]
        labels += columns[1]
        if part.split is not None:
            sides.append(_splits_of(part.table, columns[2], part.split))
        else:
            number = DRAWN if part.role is None else SPLITS.index(part.role)
            sides.append(np.full(len(columns[0]), number, dtype=np.int8))
        if group is not None:
            groups += columns[-1]
    return names, labels, np.concatenate(sides), groups


def _refuse_empty(table: Table, cells: Sequence[str], what: str, place: int) -> None:
    rows = [row + 1 + table.header for row, cell in enumerate(cells) if not cell]
    if rows:
        raise DataError(
            f"{table.path}: {len(rows)} rows have no {what} (column {table.columns[place]}; rows "
            f"{listed(rows, most=MOST_SHOWN)}): fill them in or remove them."
        )


def _refuse_broken(table: Table, cells: Sequence[str], what: str, place: int) -> None:
    """A stray quotation mark makes one cell of several lines; no file's name has a NUL."""
    rows = [row + 1 + table.header for row, cell in enumerate(cells) if BROKEN.search(cell)]
    if rows:
        raise DataError(
            f"{table.path}: {len(rows)} rows have a line break or a NUL character in their {what} (column "
            f"{table.columns[place]}; rows {listed(rows, most=MOST_SHOWN)}; the first: "
            f"{one_line(cells[rows[0] - 1 - table.header][:100])}): mend them, such as a quotation mark that opens and "
            "does not close."
        )


def _splits_of(table: Table, cells: Sequence[str], place: int) -> Splits:
    roles = {cell: FOLDER_NAMES.get(cell.lower()) for cell in set(cells)}
    unknown = sorted(cell or "(empty)" for cell, role in roles.items() if role is None)
    column = table.columns[place]
    if unknown:
        raise DataError(
            f"{table.path}: the column {column} says which split a row is in, and {listed(unknown)} is none (known: "
            f"{listed(list(FOLDER_NAMES))}): change it, or say data.table.split=none, or another column."
        )
    number = {cell: SPLITS.index(role) for cell, role in roles.items() if role is not None}
    return np.fromiter((number[cell] for cell in cells), dtype=np.int8, count=len(cells))


def _images_folder(cfg: TableConfig, root: Path, names: Sequence[str]) -> Path:
    """The folder that the paths start from: the one in which the first of them are."""
    probed = names[:: max(1, len(names) // PROBED)][:PROBED]
    if cfg.table.images != "auto":
        return (root / cfg.table.images).resolve()
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))]
    # Not Path.is_file, which raises in a folder that may not be searched, such as the lost+found of a disk.
    found = [folder for folder in folders if any(os.path.isfile(folder / name) for name in probed)]
    if root in found or not found:  # none: every path is then named as missing
        return root
    if len(found) > 1:
        raise DataError(
            f"The table's paths start from several folders ({listed([path.name for path in found])}): say which, "
            "data.table.images=FOLDER."
        )
    return found[0]


def _clean_names(names: list[str], folder: Path) -> tuple[list[str], list[bool]]:
    """Paths relative to the folder with "/", and whether each is inside it; [] for all are."""
    if not any("\\" in name or name.startswith(("/", "./", "../", "~")) or "/.." in name for name in names):
        return names, []
    clean, inside = [], []
    for name in names:
        path = PurePosixPath(os.path.normpath(str(folder / name.replace("\\", "/"))))
        fits = path.is_relative_to(folder)
        clean.append(str(path.relative_to(folder)) if fits else str(path))
        inside.append(fits)
    return clean, inside


def _unique(names: Sequence[str], labels: Sequence[str], splits: Splits) -> tuple[list[int] | None, str]:
    """The rows to keep where paths stand twice, and a note; None: all.

    Raises:
        DataError: a path stands twice with different labels or splits.
    """
    if len(set(names)) == len(names):
        return None, ""
    first: dict[str, int] = {}
    keep, wrong = [], []
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if before == row:
            keep.append(row)
        elif labels[before] != labels[row] or splits[before] != splits[row]:
            wrong.append(f"{name} ({labels[before]}, {labels[row]})")
    if wrong:
        raise DataError(
            f"{len(wrong)} paths stand in the table more than once, with different labels or splits: "
            f"{listed(wrong, most=MOST_SHOWN)}. One image has one label here: remove the rows that are wrong."
        )
    return keep, f"{len(names) - len(keep)} rows stand twice, and count once."


def _classes(cfg: TableConfig, root: Path, labels: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int32], str]:
    """The names of the classes, each row's place among them, and what to say of the names. Numbers sort as numbers."""
    ordered, labels_N = numbered(labels)
    if not cfg.table.names:
        return tuple(ordered), labels_N, ""
    names, said = _names(cfg, root / cfg.table.names, set(ordered))
    return tuple(names[value] for value in ordered), labels_N, said


def _names(cfg: TableConfig, path: Path, values: set[str]) -> tuple[dict[str, str], str]:
    """The name of each label, by the table data.table.names."""
    keys = cfg.table
    if not path.is_file():
        raise DataError(f"data.table.names={keys.names}: {path} is not a file.")
    named = [name for name in (keys.names_label, keys.names_name) if name != "auto"]
    table = open_table(path, "auto", "auto", named)
    columns = table.read(range(len(table.columns)))
    if keys.names_label != "auto":
        label = table.column(keys.names_label, "data.table.names_label")
    else:
        label = _only([place for place, cells in enumerate(columns) if set(cells) == values], table, "names_label")
    pairs = [dict(zip(columns[label], cells, strict=True)) for cells in columns]
    if keys.names_name != "auto":
        name = table.column(keys.names_name, "data.table.names_name")
    else:
        fits = [
            place
            for place, cells in enumerate(columns)
            if place != label and "name" in table.columns[place].lower()
            and all(pairs[place][key] == cell for key, cell in zip(columns[label], cells, strict=True))
            and len(set(pairs[place].values())) == len(pairs[place])
        ]  # fmt: skip
        name = _only(fits, table, "names_name")
    missing = sorted(values - set(pairs[name]))
    names = {value: pairs[name][value] for value in values - set(missing)}
    if missing or len(set(names.values())) < len(names):
        what = f"it has no name for {listed(missing)}" if missing else "two labels have one name"
        raise DataError(f"{path}: {what} (data.table.names_label, data.table.names_name).")
    return names, f" Names from {keys.names}: {table.columns[label]} to {table.columns[name]}."


def _only(places: Sequence[int], table: Table, key: str) -> int:
    if len(places) != 1:
        raise DataError(
            f"{table.path}: which column that is is not clear: data.table.{key}=one of {listed(table.columns)}."
        )
    return places[0]


def _found(parts: Sequence[Part], folder: Path, root: Path) -> str:
    """Which tables, and how they are read: the line of the log."""
    first, tables = parts[0], listed([part.table.path.name for part in parts])
    columns = first.table.columns
    separator = f"separator {first.table.separator}" if first.table.separator else "Parquet"
    header = "with a header" if first.table.header else "no header"
    if first.split is not None:
        split = f"splits in column {columns[first.split]}"
    else:
        split = "splits by the tables' names" if len(parts) > 1 else "no splits"
    where = f", below {folder.relative_to(root)}/" if folder != root and folder.is_relative_to(root) else ""
    return (
        f"Layout: a table, {tables}: {separator}, {header}; paths in column {columns[first.path]}{where}, labels in "
        f"column {columns[first.label]}, {split} (data.table.* says otherwise)."
    )
