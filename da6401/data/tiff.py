"""The tags of a TIFF that say what its values mean, checked before Pillow reads the pixels.

Pillow uses fewer tags, and would give some images dark, inverted or as noise. Whatever is not known to be read right is
refused here, with the tags; tests/unit/test_tiff.py has the combinations.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from PIL import Image
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

# TIFF 6.0, section 8
NEW_SUBFILE_TYPE, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, PLANAR, COLOUR_MAP, INK_SET, EXTRA, FORMAT = (
    254, 258, 259, 262, 266, 277, 284, 320, 332, 338, 339,
)  # fmt: skip
DNG_VERSION = 50706
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
OTHER_COLOURS = {
    -1: "no word on what its values mean", 4: "a mask", 8: "Lab colours", 9: "Lab colours", 10: "Lab colours",
    32803: "a camera's raw pixels", 34892: "a camera's raw pixels",
}  # fmt: skip
BIG_ENDIAN_BIGTIFF = b"MM\0+"  # which Pillow takes for a classic TIFF
ASSOCIATED, UNASSOCIATED = 1, 2  # of EXTRA: alpha that the colours have been multiplied by, or not; 0 is no alpha
RAW, JPEGS = 1, (6, 7)  # of COMPRESSION
CONVERT = "convert it to an 8-bit PNG"


@dataclass(frozen=True)
class GreyRange:
    """Grey values of 9 to 16 bits: 0 .. ``largest`` is black to white, or white to black where ``inverted``."""

    largest: int = 65535
    inverted: bool = False


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF, of whatever kind."""
    return head[:4] in PREFIXES and head[:4] != BIG_ENDIAN_BIGTIFF


@functools.cache
def silence_libtiff() -> None:
    """Keep libtiff from writing its errors to stderr, from C; Pillow raises an exception as well."""
    library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):  # not where Pillow was linked to libtiff statically
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


class TiffTags:
    """The tags of a TIFF's first image that say what its values mean."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read them from the beginning of ``file``, and go back to it.

        Raises:
            Exception: nearly any, where the tags are damaged.
        """
        head = file.read(16)
        tags = ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
        file.seek(tags.next)
        tags.load(file)
        file.seek(0)
        self.camera = head[8:10] == b"CR" or DNG_VERSION in tags  # Canon's CR2, and DNG
        self.photometric = int(tags.get(PHOTOMETRIC, -1))
        self.samples = int(tags.get(SAMPLES, 1))
        self.bits = _whole(tags.get(BITS, 1))
        self.formats = _whole(tags.get(FORMAT, 1))
        self.extra = _whole(tags.get(EXTRA, ()))
        self.planes = int(tags.get(PLANAR, 1)) == 2
        self.reversed_bits = int(tags.get(FILL_ORDER, 1)) == 2
        self.compression = int(tags.get(COMPRESSION, RAW))
        self.ink_set = int(tags.get(INK_SET, 1))
        self.reduced = bool(int(tags.get(NEW_SUBFILE_TYPE, 0)) & 1)
        self.colour_map = _whole(tags.get(COLOUR_MAP, ()))

    @property
    def grey_range(self) -> GreyRange:
        """The range of the values, where the TIFF is not refused."""
        return GreyRange(2 ** self.bits[0] - 1, self.photometric == WHITE_IS_ZERO)

    @property
    def problem(self) -> str:
        """Why Pillow would read it wrong, and what to do; empty where it would not."""
        if self.camera:
            return "a camera's raw file, which is not read: develop it to JPEG or PNG"
        reason = self._odd_values() or self._odd_layout()
        return self.refusal(reason) if reason else ""

    def refusal(self, reason: str) -> str:
        """The message on a TIFF "with ..." something, and its tags that differ from the most common ones."""
        named = {
            "PhotometricInterpretation": (self.photometric,) if self.photometric >= 0 else (),
            "BitsPerSample": self.bits,
            "SampleFormat": self.formats if set(self.formats) != {1} else (),
            "ExtraSamples": self.extra,
            "PlanarConfiguration": (2,) if self.planes else (),
            "FillOrder": (2,) if self.reversed_bits else (),
        }
        tags = ", ".join(f"{name} {' '.join(map(str, value))}" for name, value in named.items() if value)
        return f"a TIFF with {reason}, which is not read ({tags}): {CONVERT}"

    def _odd_values(self) -> str:
        """Which values Pillow would read wrong, in words; empty where none."""
        if 3 in self.formats:
            return "floating-point pixels of no known range"
        if 2 in self.formats:
            return "signed pixels of no known range"
        if set(self.formats) != {1}:
            return "values of no known kind"
        if self.photometric in OTHER_COLOURS:
            return OTHER_COLOURS[self.photometric]
        if len(set(self.bits)) > 1 or self.bits[0] not in (1, 2, 4, 8, 12, 16):
            return f"{' and '.join(map(str, sorted(set(self.bits))))} bits a sample"
        if self.photometric == PALETTE and 0 < max(self.colour_map, default=0) < 256:
            return "a colour map of 8 bits, where a TIFF's has 16"
        if self.photometric == SEPARATED and (self.ink_set != 1 or self.samples - len(self.extra) != 4):
            return "inks other than cyan, magenta, yellow and black"
        if self.photometric == YCBCR and self.compression not in JPEGS:
            return "YCbCr colours that are not JPEG's"
        if ASSOCIATED in self.extra and self.bits[0] > 8:
            return "colours of 16 bits that transparency has been multiplied into"
        return "a small image before the large one" if self.reduced else ""

    def _odd_layout(self) -> str:
        """Which order of samples Pillow would read wrong, in words: of separate planes, most."""
        if not self.planes:
            return ""
        grey = self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        if self.compression != RAW:  # libtiff reads it, and puts the planes together
            return "grey and transparency apart" if grey and any(self.extra) else ""
        if self.photometric == WHITE_IS_ZERO or self.reversed_bits or (self.extra and self.extra != (UNASSOCIATED,)):
            return "a plane for each colour"
        if grey and self.samples == 1:
            return "" if self.bits[0] in (1, 8) else "a plane for each colour"
        return "" if self.bits[0] == 8 and not (grey and self.extra) else "a plane for each colour"


def _whole(value: int | Sequence[int]) -> tuple[int, ...]:
    return (int(value),) if isinstance(value, int) else tuple(int(item) for item in value)
