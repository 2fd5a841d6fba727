"""A table as columns of text: CSV, TSV and lists with any separator, and Parquet; the separator is found by itself."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from da6401.config.data_schema import Separator
from da6401.errors import DataError
from da6401.redact import listed, one_line

SEPARATORS: dict[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
PARQUET = (".parquet", ".pq")
SAMPLE_LINES = 200
MOST_SHARED = 100_000  # different texts that are looked up, so that equal ones are kept once
INSTALL = "pip install 'da6401[tables]'"


@dataclass(frozen=True)
class Table:
    """A table whose cells are not yet read. Without a header its columns are called 1, 2, 3, ..."""

    path: Path
    separator: str  # a name in SEPARATORS; "" for Parquet
    header: bool
    columns: tuple[str, ...]
    sample: tuple[tuple[str, ...], ...]  # the first rows, without the header

    def column(self, name: str, key: str) -> int:
        """The place of a column that is given by its name or its number from 1.

        Raises:
            DataError: there is none.
        """
        if name in self.columns:
            return self.columns.index(name)
        if name.isdecimal() and 1 <= int(name) <= len(self.columns):
            return int(name) - 1
        raise DataError(f"{key}={name}: {self.path.name} has no such column; it has {listed(self.columns)}.")

    def read(self, places: Sequence[int]) -> list[list[str]]:
        """The cells of these columns, from top to bottom; equal texts in one column are one object.

        Raises:
            DataError: a line has another number of columns, or is no valid text.
        """
        out: list[list[str]] = [[] for _ in places]
        known: dict[str, str] = {}
        for cells_of_row in self._rows(places):
            for cell, cells in zip(cells_of_row, out, strict=True):
                cells.append(known.setdefault(cell, cell) if len(known) < MOST_SHARED else known.get(cell, cell))
        return out

    def _rows(self, places: Sequence[int]) -> Iterator[Sequence[str]]:
        if not self.separator:
            yield from _parquet_rows(self.path, [self.columns[place] for place in places])
            return
        rows = _text_rows(self.path, SEPARATORS[self.separator])
        if self.header:
            next(rows, None)
        for number, row in enumerate(rows, start=2 if self.header else 1):
            if len(row) != len(self.columns):
                raise DataError(
                    f"{self.path}: row {number} has {len(row)} columns, not {len(self.columns)} "
                    f"({one_line(row)}). Mend it, or say data.table.separator."
                )
            yield [row[place] for place in places]

    def digest(self) -> str:
        """sha256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_table(path: Path, separator: Separator = "auto", header: str = "auto", named: Sequence[str] = ()) -> Table:
    """The table's separator, header and columns.

    Args:
        header: yes, no or auto.
        named: names of columns that the configuration gives, which show that there is a header.

    Raises:
        DataError: it cannot be read, is empty, or no separator divides its lines alike.
    """
    if path.suffix.lower() in PARQUET:
        columns, sample = _parquet_head(path)
        return Table(path, "", True, columns, sample)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line, _ in zip(file, range(SAMPLE_LINES), strict=False)]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.{_remedy(error)}") from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty.")
    try:
        found = separator if separator != "auto" else _separator(path, lines)
        rows = list(_parse(lines, SEPARATORS[found]))
    except csv.Error as error:
        raise _no_table(path, error) from error
    has_header = header == "yes" or (header == "auto" and _has_header(path, rows, named))
    columns = tuple(rows[0]) if has_header else tuple(str(number + 1) for number in range(len(rows[0])))
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise DataError(f"{path}: two columns are called {listed(doubled)}: name columns by their numbers, from 1.")
    sample = tuple(tuple(row) for row in rows[has_header:] if len(row) == len(columns))
    return Table(path, found, has_header, columns, sample)


def _remedy(error: Exception) -> str:
    """What to do about a table in another encoding; "" where that is not what is wrong."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    is_utf16 = error.object.startswith((b"\xff\xfe", b"\xfe\xff"))
    return f" Save it as UTF-8, such as with `iconv -f {'utf-16' if is_utf16 else 'latin1'} -t utf-8`."


def looks_like_image(cell: str) -> bool:
    return cell.lower().endswith(SUFFIXES)


def _separator(path: Path, lines: Sequence[str]) -> str:
    """The separator that divides every line into the same number of columns, two or more."""
    fits = {}
    for name, character in SEPARATORS.items():
        widths = {len(row) for row in _parse(lines, character)}
        if len(widths) == 1 and widths != {1}:
            fits[name] = widths.pop()
    if "space" in fits and len(fits) > 1:  # beside another separator, a space is part of a text
        del fits["space"]
    if len(fits) == 1:
        return next(iter(fits))
    what = f"{' and '.join(fits)} do" if fits else "none of comma, semicolon, tab, pipe, space does"
    raise DataError(
        f"{path}: which separator divides it into columns is not clear: {what} so for every line alike. "
        f"Say data.table.separator=comma|semicolon|tab|pipe|space. The first line: {one_line(lines[0].strip())}"
    )


def _has_header(path: Path, rows: Sequence[Sequence[str]], named: Sequence[str]) -> bool:
    """Whether the first row names columns: it does not look like the others."""
    first, rest = rows[0], rows[1:]
    if any(name in first for name in named):
        return True
    for place, cell in enumerate(first):
        below = [row[place] for row in rest if len(row) == len(first)]
        if below and all(map(looks_like_image, below)):
            return not looks_like_image(cell)
        if looks_like_image(cell):
            return False
    numbers = [
        place for place in range(len(first)) if rest and all(_is_number(row[place]) for row in rest if len(row) > place)
    ]
    if numbers:
        return not any(_is_number(first[place]) for place in numbers)
    raise DataError(
        f"{path}: whether its first line names the columns is not clear: {one_line(', '.join(first))}. Say "
        "data.table.header=yes or no."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse(lines: Sequence[str], character: str) -> Iterator[list[str]]:
    yield from ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=character, skipinitialspace=True))


def _text_rows(path: Path, character: str) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file, delimiter=character, skipinitialspace=True):
                if row:
                    yield [cell.strip() for cell in row]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {error}.{_remedy(error)}") from error
    except csv.Error as error:
        raise _no_table(path, error) from error


def unreadable(path: Path, error: Exception, form: str = "") -> DataError:
    """What a library says of a file that it cannot read, as an error of the data."""
    return DataError(f"{path} cannot be read{form}: {one_line(str(error).strip().rstrip('.'))}.")


def _no_table(path: Path, error: csv.Error) -> DataError:
    return DataError(
        f"{path} cannot be read as a table in UTF-8: {error}. A quotation mark that opens and does not close makes one "
        "cell of what follows."
    )


def _parquet_head(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = tuple(str(name) for name in _pyarrow_parquet(path).schema_arrow.names)
    return columns, tuple(row for row, _ in zip(_parquet_rows(path, columns), range(SAMPLE_LINES), strict=False))


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    import pyarrow

    file = _pyarrow_parquet(path)
    try:
        for batch in file.iter_batches(columns=list(columns)):
            cells = ([_text(value) for value in batch.column(name).to_pylist()] for name in columns)
            yield from zip(*cells, strict=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error, " as Parquet") from error


def _text(value: object) -> str:
    """A cell; "" for null and NaN, which is how pandas writes a number that is not there."""
    return "" if value is None or value != value else str(value).strip()


def _pyarrow_parquet(path: Path):  # type: ignore[no-untyped-def]  # pyarrow, which may not be here, has no types
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path.name}: Parquet needs pyarrow: {INSTALL}.") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error, " as Parquet") from error
