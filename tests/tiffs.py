"""TIFFs of every kind, written without Pillow, which reads them: by tifffile, and by hand where it has no option."""

# H, W height and width in px

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

Values = npt.NDArray[np.float64]  # 0..1
FILL_ORDER, PLANAR, COMPRESSION, DEFLATE = 266, 284, 259, 8
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def packed(samples: npt.NDArray[Any], bits: int) -> bytes:
    """Rows of samples of so many bits each, the highest bit first, each row filled up to a whole byte."""
    rows = samples.reshape(len(samples), -1)
    each = np.unpackbits(rows.astype(">u2").view(np.uint8).reshape(*rows.shape, 2), axis=-1)[..., 16 - bits :]
    return np.packbits(each.reshape(len(rows), -1), axis=1).tobytes()


def tiff(values: Values, bits: int, *, fill_order: int = 1, deflate: bool = False, **options: Any) -> bytes:
    """A TIFF of values 0..1 as unsigned samples of ``bits`` bits; the options are tifffile's.

    Args:
        values: (H, W), (H, W, samples), or (samples, H, W) for planarconfig="separate".
        fill_order: 2 has the lowest bit of each byte first.
        deflate: compressed, one strip a plane.
    """
    samples = np.round(values * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    if bits in (8, 16) and fill_order == 1:
        return written(samples, compression="zlib" if deflate else None, **options)
    order = options.get("byteorder", "<")
    planes = list(samples) if options.get("planarconfig") == "separate" else [samples]
    strips = [
        plane.astype(f"{order}u2").tobytes() if bits == 16 else packed(plane.astype(np.uint16), bits)
        for plane in planes
    ]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    if fill_order == 2:
        strips = [strip.translate(REVERSED) for strip in strips]
    given = {"bitspersample": bits, "rowsperstrip": planes[0].shape[0], **options}
    if deflate and bits in (8, 16):
        given["compression"] = "zlib"  # of other depths tifffile wants to see all bytes
    content = written(iter(strips), shape=samples.shape, dtype=samples.dtype, **given)
    content = tagged(content, COMPRESSION, DEFLATE) if deflate else content
    return tagged(content, FILL_ORDER, fill_order) if fill_order != 1 else content


def written(data: Any, **options: Any) -> bytes:
    """What tifffile makes of an array or of encoded strips."""
    file = io.BytesIO()
    tifffile.imwrite(file, data, metadata=None, **options)
    return file.getvalue()


def tagged(content: bytes, tag: int, value: int | None) -> bytes:
    """A classic TIFF with a tag of one SHORT set, or without it: tifffile chooses some tags by itself."""
    order = "<" if content[:2] == b"II" else ">"
    (place,) = struct.unpack(f"{order}I", content[4:8])
    (count,) = struct.unpack(f"{order}H", content[place : place + 2])
    starts = range(place + 2, place + 2 + 12 * count, 12)
    entries = {struct.unpack(f"{order}H", content[at : at + 2])[0]: content[at : at + 12] for at in starts}
    entries.pop(tag, None)
    if value is not None:
        entries[tag] = struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    content += b"\0" * (len(content) % 2)
    table = struct.pack(f"{order}H", len(entries)) + b"".join(entries[key] for key in sorted(entries)) + bytes(4)
    return content[:4] + struct.pack(f"{order}I", len(content)) + content[8:] + table
