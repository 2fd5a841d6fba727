"""Which column of a table is what: paths, labels, splits; and which file below the root is the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.config.schema import TableConfig
from da6401.config.splits import SplitName
from da6401.data.layout import FOLDER_NAMES
from da6401.data.table import PARQUET, Table, looks_like_image, open_table
from da6401.data.tree import link_problem, visible
from da6401.errors import DataError
from da6401.redact import listed, one_line

TABLES = (".csv", ".tsv", *PARQUET)
LISTS = (".txt", ".lst", ".list")
PATH_NAMES = ("path", "image_path", "filepath", "file_path", "file", "filename", "file_name", "image", "img")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target")
SPLIT_NAMES = ("split", "subset", "partition", "set", "data set", "dataset")


@dataclass(frozen=True)
class Part:
    """One table, and what its columns are."""

    table: Table
    role: SplitName | None  # by the table's own name
    path: int
    label: int
    split: int | None


def find_parts(cfg: TableConfig) -> tuple[Path, list[Part]]:
    """The folder of the data set, and its tables.

    Raises:
        DataError: there is no table, or which one it is or what its columns are is not clear.
    """
    root, paths = _tables(cfg)
    keys = cfg.table
    named = [name for name in (keys.path, keys.label, keys.split, cfg.group_by) if name not in ("", "auto", "none")]
    tables = [open_table(path, keys.separator, keys.header, named) for path in paths]
    if any(table.columns != tables[0].columns for table in tables):
        columns = "; ".join(f"{table.path.name}: {listed(table.columns)}" for table in tables)
        raise DataError(f"{root}: the tables have different columns ({columns}): name those of one kind, {FILES}.")
    roles = [FOLDER_NAMES.get(path.stem.lower()) for path in paths] if len(paths) > 1 else [None]
    if len(paths) > 1 and None in roles:
        unknown = listed([path.name for path, role in zip(paths, roles, strict=True) if role is None])
        raise DataError(f"data.table.files: which split is {unknown}? Call it train, val or test, or join the tables.")
    return root, [_part(table, cfg, role) for table, role in zip(tables, roles, strict=True)]


FILES = "data.table.files=train.txt,val.txt"


def _tables(cfg: TableConfig) -> tuple[Path, list[Path]]:
    top = Path(cfg.root).expanduser()
    if top.is_file():
        return top.parent.resolve(), [top.resolve()]
    if not top.is_dir():
        raise DataError(f"The data set's folder or table, {top.absolute()}, {link_problem(top) or 'does not exist'}.")
    root = top.resolve()
    if cfg.table.files != "auto":
        paths = [root / name.strip() for name in cfg.table.files.split(",") if name.strip()]
        lost = [path for path in paths if not path.is_file()]
        if lost or not paths:
            raise DataError(f"data.table.files={cfg.table.files}: {listed(lost) or 'no name'} is not a file.")
        return root, paths
    files = [Path(item.path) for item in visible(root) if item.is_file()]
    found = [path for path in files if path.suffix.lower() in TABLES]
    for kind in ({path.suffix.lower() for path in found}, set(LISTS)):
        by_role = [path for path in files if path.suffix.lower() in kind and path.stem.lower() in FOLDER_NAMES]
        if any(FOLDER_NAMES[path.stem.lower()] == "train" for path in by_role):
            return root, sorted(by_role, key=lambda path: list(FOLDER_NAMES).index(path.stem.lower()))
    if len(found) == 1:
        return root, found
    what = f"several tables ({listed([path.name for path in found])})" if found else "no .csv, .tsv or .parquet"
    raise DataError(f"{root} holds {what}: name it, data.table.files=NAME, or one for each split, {FILES}.")


def _part(table: Table, cfg: TableConfig, role: SplitName | None) -> Part:
    keys = cfg.table
    path = table.column(keys.path, "data.table.path") if keys.path != "auto" else _path_column(table, keys.suffix)
    split = None
    if keys.split not in ("auto", "none"):
        split = table.column(keys.split, "data.table.split")
    elif keys.split == "auto" and role is None:
        split = next((place for place, name in enumerate(table.columns) if name.lower() in SPLIT_NAMES), None)
    taken = {path, split, group_column(table, cfg.group_by)}
    label = table.column(keys.label, "data.table.label") if keys.label != "auto" else _label_column(table, taken)
    return Part(table, role, path, label, split)


def group_column(table: Table, group_by: str) -> int | None:
    """The place of the column that data.group_by names or counts from 1; None where it is a pattern instead."""
    is_number = group_by.isdecimal() and 1 <= int(group_by) <= len(table.columns)
    return table.column(group_by, "data.group_by") if is_number or group_by in table.columns else None


def _path_column(table: Table, suffix: str) -> int:
    cells = [[row[place] for row in table.sample] for place in range(len(table.columns))]
    if suffix:  # every text would look like an image: a path is another in each row
        likely = [place for place, column in enumerate(cells) if len(set(column)) == len(column)]
    else:
        likely = [place for place, column in enumerate(cells) if column and all(map(looks_like_image, column))]
    named = [place for place, name in enumerate(table.columns) if name.lower() in PATH_NAMES]
    for places in ([place for place in likely if place in named], likely, named):
        if len(places) == 1:
            return places[0]
    bare = "" if likely else " Where the ending is left out, say data.table.suffix=.jpg."
    raise DataError(
        f"{table.path}: which column holds the images' paths is not clear: data.table.path="
        f"{_choices(table, likely or range(len(table.columns)))}.{bare}"
    )


def _label_column(table: Table, taken: set[int | None]) -> int:
    free = [place for place in range(len(table.columns)) if place not in taken]
    named = [place for place in free if table.columns[place].lower() in LABEL_NAMES]
    for places in (named, free):
        if len(places) == 1:
            return places[0]
    if not free:
        raise DataError(f"{table.path}: no column is left for the labels; it has {listed(table.columns)}.")
    raise DataError(
        f"{table.path}: which column holds the labels is not clear: data.table.label={_choices(table, named or free)}."
    )


def _choices(table: Table, places: Sequence[int]) -> str:
    """Columns with their first values, to choose from: "2 (0, 0, 1) or 3 (5, 5, 5)"."""
    shown = []
    for place in places[:10]:
        values = list(dict.fromkeys(one_line(row[place]) for row in table.sample))
        shown.append(f"{table.columns[place]} ({listed(values, most=3)})")
    return " or ".join(shown)
