"""Decoded images on the disk: each file is decoded once for all epochs, trials and processes.

An entry is a file of N images, uint8 (3, S, S) one after another. Its key is a hash of the files' contents in their
order, the size, the way of resizing and the decoder. Rows are read with pread and not through a memory map: the
operating system caches both alike, but mapped pages would count as this process's resident memory.
"""

# B batch, N images, S side in px

from __future__ import annotations

import copy
import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL
import torch

from da6401.config.schema import HuggingFaceConfig, ImageFiles, TorchvisionConfig
from da6401.data.cache.cache_folder import gigabytes
from da6401.data.cache.digests import digest_files
from da6401.data.cache.store import CacheEntry, Store
from da6401.data.decode import decode_files
from da6401.data.tree import BadFile, LabelledFile
from da6401.machine.cores import memory_of_machine
from da6401.machine.descriptors import close_with
from da6401.redact import one_line

log = logging.getLogger(__name__)

KIND = "images"
DECODER = f"3, Pillow {PIL.__version__}"  # raise the number when read_image gives other pixels
FILE = "images.bin"


def decoder_of(cfg: ImageFiles) -> str:
    """The reader of these images, as it stands in the keys of cached images and features."""
    # Entries of these sources under DECODER alone may hold the pixels of another data set.
    return f"{DECODER}, parts of files" if isinstance(cfg, (HuggingFaceConfig, TorchvisionConfig)) else DECODER


class CachedRows:
    """A choice of rows of an entry's file, in any order; indexed with positions (B,) it gives a tensor (B, ...)."""

    def __init__(
        self, entry: CacheEntry, file: str, rows_N: npt.NDArray[np.int64], row_shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        self._entry = entry  # so that no process removes it
        self._rows_N = rows_N
        self._file = _ReadFile(entry.folder / file)
        self.dtype = dtype
        self.shape = torch.Size((len(rows_N), *row_shape))

    def __len__(self) -> int:
        return len(self._rows_N)

    def select(self, positions: npt.ArrayLike) -> Self:
        """The rows at these positions, not yet read."""
        chosen = copy.copy(self)
        chosen._rows_N = self._rows_N[np.asarray(positions, dtype=np.int64)]
        chosen.shape = torch.Size((len(chosen._rows_N), *self.shape[1:]))
        return chosen

    def __getitem__(self, positions_B: torch.Tensor) -> torch.Tensor:
        return self.gather(positions_B, pinned=False)

    def gather(self, positions_B: torch.Tensor, *, pinned: bool) -> torch.Tensor:
        """The rows at these positions, contiguous; ``pinned``: in page-locked memory, for a copy to CUDA."""
        rows_B = self._rows_N[positions_B.numpy()]
        out = torch.empty((len(rows_B), *self.shape[1:]), dtype=self.dtype, pin_memory=pinned)
        flat = out.view(-1).view(torch.uint8).numpy()
        row_bytes = self.shape[1:].numel() * self.dtype.itemsize
        # Neighbours in the file, as in validation, are read at once.
        starts = np.flatnonzero(np.diff(rows_B, prepend=-2) != 1)
        for start, end in zip(starts, [*starts[1:], len(rows_B)], strict=False):
            self._file.read_into(flat[start * row_bytes : end * row_bytes], int(rows_B[start]) * row_bytes)
        return out


@dataclass(frozen=True)
class CachedFiles:
    """The image of file i is row i of ``images``; ``outcomes[i]`` is its sha256, or why it cannot be read."""

    images: CachedRows  # uint8 (N, 3, S, S)
    outcomes: tuple[str | BadFile, ...]


def open_cache(cfg: ImageFiles, root: Path, files: Sequence[LabelledFile], *, label: str) -> CachedFiles:
    """The decoded files from the cache; files that no entry has yet are decoded into a new one.

    Raises:
        DataError: the cache's folder cannot be used, or the limit or the disk is too small.
    """
    outcomes: list[str | BadFile] = list(digest_files(root, files))
    readable = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    key = hashlib.sha256(f"{decoder_of(cfg)} {cfg.image_size} {cfg.resize}".encode())
    for place in readable:
        key.update(f"\n{outcomes[place]}".encode())
    chosen = [files[place] for place in readable]
    needed = len(chosen) * 3 * cfg.image_size**2

    def build(folder: Path) -> Mapping[str, Any]:
        log.info("%s: decoding %d files into the cache, once (%s)", label, len(chosen), gigabytes(needed))
        started = time.perf_counter()
        with _WriteFile(folder / FILE, len(chosen), cfg.image_size) as out:
            decoded = decode_files(chosen, out, resize=cfg.resize, label=label)
        log.info("%s: decoded in %.1f s", label, time.perf_counter() - started)
        return {"bad": [[row, file.reason] for row, file in decoded.bad.items()]}

    about = f"{one_line(root)}, {label}: {len(chosen)} images, {cfg.image_size} px, {cfg.resize}"
    entry = Store(KIND, limit_bytes=round(cfg.cache_limit_gb * 1e9), off="data.cache=off").open_or_build(
        key.hexdigest()[:32], build, needed_bytes=needed, label=about
    )
    for row, reason in entry.about["bad"]:
        place = readable[row]
        outcomes[place] = BadFile(files[place].name, reason)
    rows_N = np.full(len(files), -1, dtype=np.int64)
    rows_N[readable] = np.arange(len(readable))
    images = CachedRows(entry, FILE, rows_N, (3, cfg.image_size, cfg.image_size), torch.uint8)
    return CachedFiles(images, tuple(outcomes))


class _WriteFile:
    """A file of images as decode.Rows: threads write rows in any order."""

    def __init__(self, path: Path, count: int, size: int) -> None:
        self.shape = (count, 3, size, size)
        self._row_bytes = 3 * size * size
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.truncate(self._descriptor, count * self._row_bytes)  # rows of bad files stay zero

    def __setitem__(self, row: int, image: npt.NDArray[np.uint8], /) -> None:
        content, offset = memoryview(image.tobytes()), row * self._row_bytes
        while content:
            written = os.pwrite(self._descriptor, content, offset)
            content, offset = content[written:], offset + written

    def __enter__(self) -> _WriteFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class _ReadFile:
    """A file that stays open for reading while this object exists; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        close_with(self, self._descriptor)
        if hasattr(os, "posix_fadvise"):  # read ahead only where the whole file fits into memory
            fits = os.fstat(self._descriptor).st_size < memory_of_machine() // 2
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED if fits else os.POSIX_FADV_RANDOM)

    def read_into(self, out: npt.NDArray[np.uint8], offset: int) -> None:
        view = out.data
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            assert count > 0, "the cache's file ends too early, though it was checked when it was opened"
            view, offset = view[count:], offset + count
