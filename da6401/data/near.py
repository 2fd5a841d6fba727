"""Near-duplicates: images that look alike, by a perceptual hash.

The hash is the sign of the 255 lowest frequencies (16 x 16 of the cosine transform, without the mean) of the grey
image at 64 x 64, each against their median. It hardly changes when a picture is resized, recompressed, or made brighter
or grey; a crop of 5% changes a third of it. How far apart different pictures are was measured: docs/data.md,
`python -m benchmarks.near_duplicates`.
"""

# N images, D bits

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from da6401.data.groups import as_line
from da6401.data.images import read_grey
from da6401.runs.atomic_files import write_atomic
from da6401.runs.user_outputs import OutputKind

SIDE = 64  # px
FREQUENCIES = 16
BITS = FREQUENCIES**2 - 1
BLOCK = 2048  # images compared at once
EXCLUDE_HEAD = "# Near-duplicates of images in another split (da6401 data check --near --write"
EXCLUDE = OutputKind(
    what="list of data check --near", option="--write FILE", begins=re.compile(re.escape(EXCLUDE_HEAD.encode()))
)


@dataclass(frozen=True)
class NearPair:
    """Two images that look alike, and their splits; the first stands in the earlier of them."""

    first: str
    second: str
    first_split: str
    second_split: str
    bits: int  # in which the hashes differ

    @property
    def text(self) -> str:
        return f"{self.first} ({self.first_split}) ~ {self.second} ({self.second_split}), {self.bits} bits"


def perceptual_hash(content: bytes) -> bytes:
    """The hash of an image file, 255 bits in 32 bytes.

    Raises:
        BadImageError: as read_image.
    """
    return hash_of_grey(read_grey(content, SIDE))


def hash_of_grey(grey: npt.NDArray[np.float64]) -> bytes:
    """The hash of a grey image (64, 64)."""
    low = dctn(grey, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    return np.packbits(low > np.median(low)).tobytes()


def near_pairs(hashes: Sequence[bytes], splits: Sequence[int], distance: int) -> list[tuple[int, int, int]]:
    """The pairs of two splits that differ in at most ``distance`` bits: both places, and the bits; nearest first.

    The place in the lower split comes first. All pairs are compared: 5,000 images take some seconds, 100,000 some
    minutes.
    """
    signs_ND = _signs(hashes)
    sides_N = np.asarray(splits)
    order = np.argsort(sides_N, kind="stable")
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        block = signs_ND[rows].astype(np.float32)
        later = order[np.searchsorted(sides_N[order], sides_N[rows[0]], side="right") :]
        for other in range(0, len(later), BLOCK):
            columns = later[other : other + BLOCK]
            bits = (BITS - block @ signs_ND[columns].astype(np.float32).T) / 2
            alike = (bits <= distance) & (sides_N[rows][:, None] < sides_N[columns][None, :])
            found += [(int(rows[i]), int(columns[j]), int(bits[i, j])) for i, j in zip(*np.nonzero(alike), strict=True)]
    return sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))


def _signs(hashes: Sequence[bytes]) -> npt.NDArray[np.int8]:
    """Hashes as -1 and 1, (N, D): their product counts the bits that agree."""
    packed = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    return (2 * np.unpackbits(packed, axis=1, count=BITS).astype(np.int8) - 1).astype(np.int8)


def write_exclude(path: Path, pairs: Sequence[NearPair], distance: int) -> list[str]:
    """Write the list for data.exclude: of each pair the image of the earlier split, so that test stays whole."""
    why: dict[str, NearPair] = {}
    for pair in pairs:
        why.setdefault(pair.first, pair)
    lines = [f"{EXCLUDE_HEAD}; at most {distance} of {BITS} bits differ)."]
    for name, pair in sorted(why.items()):
        lines += [
            f"# {pair.first_split}; looks like {pair.second} ({pair.second_split}), {pair.bits} bits",
            as_line(name),
        ]
    text = "\n".join(lines) + "\n"
    with EXCLUDE.writing():
        write_atomic(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
    return sorted(why)
