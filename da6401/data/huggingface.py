"""data=huggingface: a folder of `datasets.save_to_disk`, or Parquet files with the images in them.

Both are Arrow tables whose schema says what the columns are, so pyarrow alone reads them.
"""

# N images

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from da6401.config.schema import HuggingFaceConfig
from da6401.config.splits import SplitName
from da6401.data.images import BadImageError
from da6401.data.labels import numbered, role_of, split_number
from da6401.data.layout import given_folder
from da6401.data.listing import Listing
from da6401.data.status import status_of
from da6401.data.table import INSTALL
from da6401.data.table_columns import LABEL_NAMES
from da6401.data.tree import BadFile, LabelledFile
from da6401.errors import DataError
from da6401.redact import listed

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
    stamps = {path: repr(status_of(str(path))) for path in paths}
    columns = _columns(cfg, paths[0])
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
            if role != "test"]  # fmt: skip
    ordered, labels_N = numbered(labels)
    class_names = tuple(columns.names[int(label)] for label in ordered) if columns.names else tuple(ordered)

    def locate(row: int) -> LabelledFile:
        path, group, place = places[row]
        content = functools.partial(_read, str(path), stamps[path], columns.image, group, place)
        return LabelledFile(names[row], str(path), class_names[labels_N[row]], content, origin=columns.image)

    kind = "Parquet files" if paths[0].suffix == ".parquet" else "a folder of save_to_disk"
    split = "splits by the files' names" if any(roles.values()) else "no splits"
    test = unlabelled.get("test", 0)
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
        raise DataError(f"{path} cannot be read: {error}.") from error


def _columns(cfg: HuggingFaceConfig, path: Path) -> _Columns:
    import pyarrow.types

    schema = _schema(path)
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    structs = [
        item.name
        for item in schema
        if pyarrow.types.is_struct(item.type) and "bytes" in [part.name for part in item.type]
    ]
    image = _choose("image", cfg.image, structs, schema.names, path)
    rest = [name for name in schema.names if name not in structs]
    typed = [name for name in rest if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in rest if name.lower() in LABEL_NAMES]
    choices = next((each for each in (typed, named, rest) if len(each) == 1), typed or named or rest)
    label = _choose("label", cfg.label, choices, schema.names, path)
    return _Columns(image, label, tuple(features.get(label, {}).get("names") or ()))


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
    """Row group (0 for .arrow), row within it, and label of each row; None: it has none (-1, or empty)."""
    import pyarrow.parquet

    if path.suffix == ".parquet":
        file = pyarrow.parquet.ParquetFile(path)
        groups: Iterator[Any] = (file.read_row_group(group, [columns.label]) for group in range(file.num_row_groups))
    else:
        groups = iter([_mapped(str(path))])
    for group, table in enumerate(groups):
        for row, value in enumerate(table.column(columns.label).to_pylist()):
            yield group, row, None if value in (None, "") or (columns.names and value == -1) else str(value)


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
    whole = path.endswith(".arrow")
    images = _arrow_table(path, stamp).column(column) if whole else _row_group(path, stamp, column, group)
    value = images[row].as_py()
    content = value["bytes"] if value else None
    if content is not None:
        return bytes(content)
    raise BadImageError(
        f"its bytes are not in {Path(path).name}" + (f", only a path ({value['path']})" if value else "")
    )
