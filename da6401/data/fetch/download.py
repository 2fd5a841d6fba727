"""One large file over HTTP, resumable: the bytes so far are in NAME.part, what file they are of in NAME.part.json."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import wrap_file

from da6401.data.fetch.unzip import need_space
from da6401.errors import DataError

BLOCK = 2**20
TIMEOUT_S = 60.0  # without a byte
ATTEMPTS = 4  # in a row without one new byte
UNPACKED = 1.1  # times the archive's size is what it unpacks to (JPEGs hardly shrink in a zip)


@dataclass(frozen=True)
class _Remote:
    """The whole file, as the server describes it."""

    url: str
    validator: str  # a strong ETag or a date, for If-Range; without one ("") nothing is resumed
    total: int | None  # bytes
    md5: str  # base64 as in x-goog-hash; "" where it gives none


class _DroppedError(Exception):
    """The connection ended before the file did."""


BROKEN = (_DroppedError, urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, target: Path, *, expected_bytes: int | None, pause_s: float) -> None:
    """Download ``url`` to ``target``; an earlier, incomplete download is resumed if the file is still the same.

    A dropped connection is tried again after ``pause_s`` (doubled each time), until 4 attempts in a row bring no new
    byte. The length is checked, against ``expected_bytes`` too, and the MD5 where the server sends ``x-goog-hash``;
    only a file that passes gets the name ``target``.

    Raises:
        DataError: no connection, a refusal, too little room on the disk, or a file that fails its checks.
    """
    part = target.with_name(target.name + ".part")
    failures, farthest = 0, _size(part)
    while True:
        try:
            remote = _transfer(url, part, expected_bytes)
            break
        except BROKEN as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429):
                raise DataError(
                    f"{url}: the server answers {error.code} {error.reason}. {_by_hand(url, target)}"
                ) from error
            failures = 1 if _size(part) > farthest else failures + 1
            farthest = max(farthest, _size(part))
            if failures == ATTEMPTS:
                reason = getattr(error, "reason", None) or error
                kept = f"{_size(part):,} bytes are kept in {part}: the same command goes on from there. "
                raise DataError(
                    f"{url} cannot be fetched: {reason}. {kept if _size(part) else ''}{_by_hand(url, target)}"
                ) from error
            time.sleep(pause_s * 2 ** (failures - 1))
        except OSError as error:
            raise DataError(f"{part} cannot be written: {error.strerror or error}.") from error

    problem = _mismatch(part, remote, expected_bytes)
    if problem:
        _discard(part)
        raise DataError(f"{url}: {problem}. The download is deleted: try again. {_by_hand(url, target)}")
    os.replace(part, target)
    _side(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, expected_bytes: int | None) -> _Remote:
    """One connection: from the first missing byte to the file's end."""
    known, start = _known(part, url), 0
    headers = {}
    if known is not None:
        start = _size(part)
        if start == known.total:
            return known
        headers = {"Range": f"bytes={start}-", "If-Range": known.validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        _discard(part)  # more bytes than the file has: it was another file
        raise _DroppedError("the server has no such range; starting again") from error
    with response:
        remote, offset = _remote(url, response), 0
        if response.status == 206:
            remote, offset = _resumed(response, known, start, part), start
        if offset == 0 and expected_bytes is not None and remote.total not in (None, expected_bytes):
            raise DataError(f"{url} has {remote.total:,} bytes, not the {expected_bytes:,} of the known archive.")
        if remote.total is not None:
            needed = remote.total - offset + int(UNPACKED * remote.total)
            need_space(part.parent, needed, "the archive and its images")
        _side(part).write_text(json.dumps(dataclasses.asdict(remote)))
        console, missing = Console(stderr=True), (remote.total or offset) - offset
        with (
            wrap_file(
                response, missing, description=part.stem, console=console, disable=not console.is_terminal
            ) as content,
            part.open("ab" if offset else "wb") as file,
        ):
            shutil.copyfileobj(content, file, BLOCK)
            file.flush()
            os.fsync(file.fileno())
    if remote.total is not None and _size(part) < remote.total:
        raise _DroppedError(f"the connection ended at byte {_size(part):,} of {remote.total:,}")
    return remote


def _remote(url: str, response: http.client.HTTPResponse) -> _Remote:
    """The file, from the headers of a response with all of it."""
    length = response.headers.get("Content-Length")
    md5 = re.search(r"md5=([A-Za-z0-9+/=]+)", ",".join(response.headers.get_all("x-goog-hash", [])))
    return _Remote(url, _validator(response), int(length) if length else None, md5[1] if md5 else "")


def _resumed(response: http.client.HTTPResponse, known: _Remote | None, start: int, part: Path) -> _Remote:
    """The known file, if the response is the rest of it from byte ``start``.

    Raises:
        _DroppedError: it is not; what was downloaded is deleted.
    """
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    validator = _validator(response)
    if (
        known is None
        or stated is None
        or (int(stated[1]), int(stated[2])) != (start, known.total)
        or (validator and validator != known.validator)
    ):
        _discard(part)
        raise _DroppedError("what the server sends is not the rest of the same file; starting again")
    return known


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _mismatch(part: Path, remote: _Remote, expected_bytes: int | None) -> str:
    size = _size(part)
    for wanted in (remote.total, expected_bytes):
        if wanted is not None and size != wanted:
            return f"{size:,} bytes arrived, {wanted:,} were expected"
    if remote.md5:
        with part.open("rb") as file:
            found = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
        if found != remote.md5:
            return "the download does not have the server's MD5"
    return ""


def _side(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known(part: Path, url: str) -> _Remote | None:
    """The file that the bytes so far are part of; None where there are none, or the file is not known."""
    try:
        remote = _Remote(**json.loads(_side(part).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return remote if remote.url == url and remote.validator and _size(part) else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _side(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _by_hand(url: str, target: Path) -> str:
    return f"By hand: download {url} with any tool, put it at {target.absolute()}, and give the same command again."
