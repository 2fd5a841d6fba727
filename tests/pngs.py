"""PNGs written without Pillow, which reads them: every depth and kind of colour, and chunks of one's own."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy.typing as npt

from tests.tiffs import packed

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # IHDR's kinds


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: npt.NDArray[Any], bits: int, kind: int, *, before: bytes = b"") -> bytes:
    """Samples (H, W) or (H, W, channels) of so many bits; ``before`` are chunks between the header and the pixels."""
    rows = packed(samples, bits)
    width = len(rows) // len(samples)
    lines = b"".join(b"\0" + rows[at : at + width] for at in range(0, len(rows), width))
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
