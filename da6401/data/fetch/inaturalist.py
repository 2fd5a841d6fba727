"""`da6401 data fetch`: iNaturalist-12K from its public archive to a folder that `data=inaturalist12k` reads."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from da6401.config.splits import TRAIN
from da6401.data.fetch.download import download
from da6401.data.fetch.unzip import unpack
from da6401.data.layout import find_root
from da6401.errors import DataError

Size = Literal["12K", "1K", "100"]
SIZES: tuple[Size, ...] = get_args(Size)
URL_BASE = "https://storage.googleapis.com/wandb_datasets"
KNOWN_BYTES: dict[Size, int] = {"12K": 3_816_687_935}  # of the archive at URL_BASE
PAUSE_S = 1.0  # before the first new attempt


@dataclass(frozen=True)
class Fetched:
    """The data set's folder, and how it came there."""

    root: Path  # holds train/
    already_there: bool
    archive: Path | None  # the zip, no longer needed; None where there is none


def fetch_inaturalist(*, size: Size, to: Path, url_base: str) -> Fetched:
    """Unpack nature_<size>.zip into ``to``/inaturalist_<size>; the zip is downloaded unless ``to`` has it.

    The folder appears complete or not at all. A call that was stopped leaves the zip, or the part that was downloaded,
    and the next call resumes.

    Raises:
        DataError: see download and unpack; or the archive holds no train/, or url_base is no address of the web.
    """
    try:
        scheme = urlsplit(url_base).scheme
    except ValueError as error:  # a bracket that is not closed, say
        raise DataError(f"--url-base {url_base}: is no address ({error}), such as {URL_BASE}") from error
    if scheme not in ("http", "https"):
        raise DataError(f"--url-base {url_base}: it must begin with https:// or http://")
    root = to / f"inaturalist_{size}"
    archive = to / f"nature_{size}.zip"
    if root.exists():
        if not (root / TRAIN).is_dir():
            raise DataError(f"{root.absolute()} exists but has no train/: move it away and fetch again.")
        return Fetched(root, already_there=True, archive=archive if archive.exists() else None)

    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--to {to}: the folder cannot be made: {error.strerror}.") from error
    expected = KNOWN_BYTES.get(size) if url_base.rstrip("/") == URL_BASE else None
    if not archive.exists():
        download(f"{url_base.rstrip('/')}/{archive.name}", archive, expected_bytes=expected, pause_s=PAUSE_S)
    elif expected is not None and archive.stat().st_size != expected:
        raise DataError(
            f"{archive.absolute()} has {archive.stat().st_size:,} bytes, the archive has {expected:,}: "
            "it is not complete. Delete it, and the same command downloads it."
        )

    with tempfile.TemporaryDirectory(dir=to, prefix=".unpacking-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        unpack(archive, tree)
        try:
            unpacked = find_root(str(tree))
        except DataError as error:
            raise DataError(f"{archive.absolute()} is not the data set: it holds no train/.") from error
        os.replace(unpacked, root)
    return Fetched(root, already_there=False, archive=archive)
