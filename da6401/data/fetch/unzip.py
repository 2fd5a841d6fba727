"""An untrusted zip of images: every entry is checked before the first byte is written."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from da6401.errors import DataError
from da6401.machine.terminal import with_progress

MAX_RATIO = 200  # of one entry's size to its compressed size
MAX_TOTAL_RATIO = 10  # of everything to the archive: photographs hardly shrink, overlapping entries multiply
SMALL = 2**20  # bytes: below it a ratio means nothing


def unpack(archive: Path, into: Path) -> None:
    """Unpack into an existing, empty folder, without .DS_Store and __MACOSX; each entry's CRC is checked.

    Raises:
        DataError: a damaged zip, an entry that would leave the folder, a link, a bomb, or too little room.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not _left_out(entry.filename)]
            _refuse(archive, entries)
            need_space(into.parent, sum(entry.file_size for entry in entries), "the images")
            for entry in with_progress(entries, "unpacking", total=len(entries)):
                path = into.joinpath(*PurePosixPath(entry.filename).parts)
                if entry.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, path.open("xb") as copy:
                    shutil.copyfileobj(source, copy, SMALL)  # ends in BadZipFile where the CRC differs
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is no sound zip: {error}. Delete it and fetch it again.") from error
    except OSError as error:
        raise DataError(f"{archive} cannot be unpacked into {into.parent}: {error}.") from error


def _refuse(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        problem = _problem(entry)
        place = str(PurePosixPath(entry.filename))
        if not problem and place in seen and not entry.is_dir():
            problem = "stands twice in the archive"
        if problem:
            raise DataError(
                f"{archive} is refused, nothing was unpacked: the entry {entry.filename!r} {problem}. If you trust it, "
                "unpack it with another program, zip the folder again, and put that zip in its place."
            )
        seen.add(place)
    total, size = sum(entry.file_size for entry in entries), archive.stat().st_size
    if total > MAX_TOTAL_RATIO * size + SMALL:
        raise DataError(f"{archive} is refused, nothing was unpacked: {size:,} bytes would become {total:,} (a bomb?).")


def _problem(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        return "would be written outside the folder"
    if "\\" in name or ":" in name:
        return "has a backslash or a drive letter in its name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.file_size > SMALL and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        return f"would grow {entry.file_size // max(entry.compress_size, 1):,} times (a decompression bomb?)"
    return ""


def _left_out(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


def need_space(folder: Path, needed: int, what: str) -> None:
    """Check that the folder's disk has so many bytes free.

    Raises:
        DataError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder.absolute()} has {free / 1e9:.1f} GB free and {what} need {needed / 1e9:.1f} GB: make room, or "
            "choose another folder with --to."
        )
