"""data=huggingface: a folder of `datasets.save_to_disk`, or Parquet files with the images in them.

Both are Arrow tables whose schema says what the columns are, so pyarrow alone reads them.
"""

# N images

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from da6401.config.schema import HuggingFaceConfig
from da6401.config.splits import TEST, TRAIN, SplitName
from da6401.data.images import BadImageError
from da6401.data.labels import names_of_numbers, numbered, refuse_doubled, role_of, split_number
from da6401.data.layout import given_folder
from da6401.data.listing import Listing
from da6401.data.stamp import stamp_of
from da6401.data.table import INSTALL, unreadable
from da6401.data.table_columns import LABEL_NAMES
from da6401.data.tree import BadFile, LabelledFile
from da6401.errors import DataError
from da6401.redact import listed, one_line

OPEN_GROUPS = 4  # row groups of Parquet that are kept in memory
FORMATS = (".parquet", ".arrow")


@dataclass(frozen=True)
class _Columns:
    """What the schema says: the columns of images and labels, and the names of the labels, [] for none."""

    image: str
    label: str
    names: tuple[str, ...]


def list_huggingface(cfg: HuggingFaceConfig) -> Listing:
    """Every row; the labels are read, no image.

    Raises:
        DataError: pyarrow is not installed, there are no tables, or which columns are images and labels is not clear.
    """
    try:
        import pyarrow  # noqa: F401  # whether it is there; what is used of it is imported below
    except ImportError as error:
        raise DataError(f"data=huggingface needs pyarrow: {INSTALL}.") from error
    root = given_folder(cfg.root).resolve()
    paths = sorted(p for p in root.rglob("*") if p.suffix in FORMATS and not p.name.startswith(("cache-", ".")))
    if not paths:
        raise DataError(f"{root} holds neither .parquet files nor the .arrow files of `save_to_disk`.")
    roles = {path: _role(path, root) for path in paths}
    if None in roles.values() and any(roles.values()):
        unknown = [str(path.relative_to(root)) for path, role in roles.items() if role is None]
        raise DataError(f"{root}: which split is {listed(unknown, most=5)}? Name files train-..., test-...")
    stamps = {path: repr(stamp_of(str(path))) for path in paths}
    schemas = {path: _schema(path) for path in paths}
    # A test file may have no labels: that of train says which columns there are.
    model = min(paths, key=lambda path: (roles[path] != TRAIN, roles[path] == TEST, path))
    columns = _columns(cfg, model, schemas)
    _refuse_other_columns(columns, model, schemas, roles)
    names, labels, sides, places, bad = [], [], [], [], list[BadFile]()
    unlabelled: dict[SplitName | None, int] = {}
    for path in paths:
        stem = path.relative_to(root).with_suffix("").as_posix()
        for number, (group, row, label) in enumerate(_labels(path, columns)):
            if label is None:
                unlabelled[roles[path]] = unlabelled.get(roles[path], 0) + 1
                continue
            names.append(f"{stem}/{number:07d}")
            labels.append(label)
            sides.append(split_number(roles[path]))
            places.append((path, group, row))
    bad += [BadFile(f"{role or 'all'}", f"{count} rows without a label") for role, count in unlabelled.items()
            if role != TEST]  # fmt: skip
    refuse_doubled(names, root)
    ordered, labels_N = numbered(labels)
    where = f"{root}: the column {columns.label}"
    class_names = names_of_numbers(ordered, columns.names, where) if columns.names else tuple(ordered)

    def locate(row: int) -> LabelledFile:
        path, group, place = places[row]
        content = functools.partial(_read, str(path), stamps[path], columns.image, group, place)
        return LabelledFile(names[row], str(path), class_names[labels_N[row]], content, origin=columns.image)

    kind = "Parquet files" if paths[0].suffix == ".parquet" else "a folder of save_to_disk"
    split = "splits by the files' names" if any(roles.values()) else "no splits"
    test = unlabelled.get(TEST, 0)
    return Listing(
        root=root,
        found=f"Layout: Hugging Face, {kind}: images in column {columns.image}, labels in column {columns.label} "
        f"(data.image, data.label), {split}.",
        class_names=class_names,
        names=names,
        labels_N=labels_N,
        splits_N=np.array(sides, dtype=np.int8),
        locate=locate,
        bad=tuple(bad),
        notes=(f"{test} images of the test split have no labels: they are not used.",) if test else (),
    )  # fmt: skip


def _role(path: Path, root: Path) -> SplitName | None:
    """data-00000-of-00001.arrow of save_to_disk is in the folder of its split; Parquet files are named by theirs."""
    relative = path.relative_to(root)
    return role_of(relative.parent if path.suffix == ".arrow" else relative)


def _schema(path: Path) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path) if path.suffix == ".parquet" else _mapped(str(path)).schema
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from error


def _columns(cfg: HuggingFaceConfig, path: Path, schemas: Mapping[Path, Any]) -> _Columns:
    """The columns by the schema of ``path``; the names of the labels are those of any file that has some."""
    schema = schemas[path]
    structs = [item.name for item in schema if _holds_images(item.type)]
    image = _choose("image", cfg.image, structs, schema.names, path)
    rest = [name for name in schema.names if name not in structs]
    typed = [name for name in rest if _feature(schema, name).get("_type") == "ClassLabel"]
    named = [name for name in rest if name.lower() in LABEL_NAMES]
    choices = next((each for each in (typed, named, rest) if len(each) == 1), typed or named or rest)
    label = _choose("label", cfg.label, choices, schema.names, path)
    named_files = (_names(each, label) for each in (schema, *schemas.values()))
    return _Columns(image, label, next(filter(None, named_files), ()))


def _holds_images(kind: Any) -> bool:
    import pyarrow.types

    return pyarrow.types.is_struct(kind) and "bytes" in [part.name for part in kind]


def _feature(schema: Any, column: str) -> dict[str, Any]:
    """What `datasets` has written of a column into the file; {} where it has not."""
    try:
        value = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    for key in ("info", "features", column):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _names(schema: Any, label: str) -> tuple[str, ...]:
    names = _feature(schema, label).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _refuse_other_columns(
    columns: _Columns, model: Path, schemas: Mapping[Path, Any], roles: Mapping[Path, SplitName | None]
) -> None:
    """Raise DataError where a file has not the columns and names of ``model``, the one that they were read from."""
    for path, schema in schemas.items():
        needed = [columns.image] if roles[path] == TEST else [columns.image, columns.label]
        lost = [name for name in needed if name not in schema.names]
        if lost:
            raise DataError(
                f"{path} has no column {listed(lost)}, as {model.name} has; it has {listed(schema.names)}: add it, or "
                "take the file out of the folder."
            )
        kind = schema.field(columns.image).type
        if not _holds_images(kind):
            raise DataError(
                f"{path}: the column {columns.image} (data.image) holds {kind}, no images with their bytes."
            )
        names = _names(schema, columns.label)
        if names and names != columns.names:
            raise DataError(
                f"{path} names the labels of {columns.label} {listed(names)}, and another file "
                f"{listed(columns.names)}: write all with the same names, in the same order."
            )


def _choose(what: str, given: str, choices: list[str], columns: list[str], path: Path) -> str:
    if given != "auto":
        if given not in columns:
            raise DataError(f"data.{what}={given}: {path.name} has no such column; it has {listed(columns)}.")
        return given
    if len(choices) == 1:
        return choices[0]
    raise DataError(
        f"{path}: which column holds the {what}s is not clear: data.{what}=one of {listed(choices or columns)}."
    )


def _labels(path: Path, columns: _Columns) -> Iterator[tuple[int, int, str | None]]:
    """Row group (0 for .arrow), row within it, and label of each row; None: it has none (-1, NaN, or empty)."""
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            groups: Iterator[Any] = (
                file.read_row_group(number, [columns.label]) for number in range(file.num_row_groups)
            )
        else:
            groups = iter([_mapped(str(path))])
        for group, table in enumerate(groups):
            has_labels = columns.label in table.column_names
            values = table.column(columns.label).to_pylist() if has_labels else [None] * table.num_rows
            for row, value in enumerate(values):
                missing = value in (None, "") or value != value or (columns.names and value == -1)
                yield group, row, None if missing else str(value)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from error


def _mapped(path: str) -> Any:
    """The rows of a stream of `save_to_disk`, mapped into memory and not read."""
    import pyarrow

    return pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()


# The stamp is the file's status: a file that changed is opened anew.
@functools.lru_cache(maxsize=64)
def _arrow_table(path: str, stamp: str) -> Any:
    return _mapped(path)


@functools.lru_cache(maxsize=OPEN_GROUPS)
def _row_group(path: str, stamp: str, column: str, group: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read_row_group(group, [column]).column(column)


def _read(path: str, stamp: str, column: str, group: int, row: int) -> bytes:
    import pyarrow

    whole = path.endswith(".arrow")
    try:
        images = _arrow_table(path, stamp).column(column) if whole else _row_group(path, stamp, column, group)
        value = images[row].as_py()
    except pyarrow.ArrowException as error:
        raise BadImageError(f"cannot be read from {Path(path).name}: {one_line(str(error).strip())}") from error
    content = value["bytes"] if value else None
    if content is not None:
        return bytes(content)
    raise BadImageError(
        f"its bytes are not in {Path(path).name}" + (f", only a path ({value.get('path')})" if value else "")
    )
