"""One image file as 8-bit RGB, whatever its mode, depth, transparency or orientation."""

# S side of the square result in px; W, H size of the file's image in px

from __future__ import annotations

import io
import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from da6401.config.schema import Resize
from da6401.data.signatures import name_of_kind
from da6401.data.tiff import BIG_ENDIAN_BIGTIFF, GreyRange, TiffTags, is_tiff, silence_libtiff
from da6401.data.tree import LabelledFile, link_problem
from da6401.errors import DataError

Image.init()
# A closed list: some of Pillow's other readers start external programs (EPS runs Ghostscript) or guess from little.
WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
FORMATS = tuple(name for name in WANTED if name in Image.OPEN)
MAX_FILE_BYTES = 512 * 2**20  # of one file; a photograph has some 10 MiB, an archive gigabytes
HEAD_BYTES = 256  # enough to recognise a format
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow reads a 16-bit PGM as "I", scaled to 0..65535
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")  # that Pillow writes into a PNG
FLOATING = "floating-point pixels, whose range is not known: convert it to 8 or 16 bits"
ORIENTATION = 0x0112  # EXIF tag; 1 and whatever is unknown mean upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(DataError):
    """A file that is no readable image; ``reason`` says why, without the file's name."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        self.reason = reason
        super().__init__(reason if path is None else f"{path}: {reason}")


@dataclass(frozen=True)
class ImageHeader:
    """What a file holds, as its header says: format and mode as Pillow names them, the size in px before rotation."""

    format: str
    mode: str
    width: int
    height: int


def read_image(source: Path | bytes, *, size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """The image of a file (its path or its content) as uint8 RGB of shape (3, S, S), S = ``size``.

    Turned upright by its EXIF orientation; transparency lies on white; grey of more than 8 bits keeps its range.
    ``stretch`` maps the whole image onto the square, ``crop`` the largest central square. Downscaling is
    antialiased; a JPEG is decoded at 1/2, 1/4 or 1/8 where that still leaves the wanted size. Of an animation
    the first frame counts. Colour profiles (ICC) are not applied.

    Raises:
        BadImageError: missing, empty, truncated or damaged; no image; more pixels than Pillow's safety limit.
    """
    path = source if isinstance(source, Path) else None
    try:
        content = read_file(source) if isinstance(source, Path) else source
        return _resized(_decoded(content, size)[1], size, resize)
    except BadImageError as problem:
        raise BadImageError(problem.reason, path) from None


def read_picture(picture: Image.Image, *, size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """A picture of Pillow's as read_image reads it from a PNG file: uint8 RGB of shape (3, S, S).

    Raises:
        BadImageError: its pixels cannot be read, or have no known range.
    """
    if picture.mode == "F":
        raise BadImageError(FLOATING)
    png = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        upright = upright if upright.mode in PNG_MODES else upright.convert("RGB")
        upright.save(png, format="PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:  # a file that Pillow has opened is read now
        raise BadImageError(_reason(error)) from error
    return read_image(png.getvalue(), size=size, resize=resize)


def read_grey(content: bytes, side: int) -> npt.NDArray[np.float64]:
    """The image of a file as grey values (side, side), 0..255, stretched; upright, as read_image reads it.

    Raises:
        BadImageError: as read_image.
    """
    grey = _decoded(content, 2 * side)[1].convert("L")
    return np.asarray(grey.resize((side, side), Image.Resampling.LANCZOS), dtype=np.float64)


def inspect_image(file: IO[bytes], *, decode: bool) -> ImageHeader:
    """What an open file holds; with ``decode`` every pixel is decoded at full size, as a training would read it.

    Raises:
        BadImageError: with ``decode`` where read_image would raise it, without only where the header shows it.
    """
    if decode:
        return _decoded(file.read(), None)[0]
    try:
        with _opened(file)[0] as image:
            return ImageHeader(image.format or "", image.mode, *image.size)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(error)) from error


def read_file(path: Path) -> bytes:
    """The bytes of a file, or of a pipe, of at most 512 MiB.

    Raises:
        BadImageError: it cannot be read, or is larger.
    """
    too_large = f"larger than {MAX_FILE_BYTES // 2**20} MiB"
    try:
        status = path.stat()
        if status.st_size > MAX_FILE_BYTES:
            raise BadImageError(too_large, path)
        if stat.S_ISREG(status.st_mode):
            return path.read_bytes()
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = link_problem(path) or f"cannot be read: {error.strerror or error}"
        raise BadImageError(reason, path) from error
    if len(content) > MAX_FILE_BYTES:
        raise BadImageError(too_large, path)
    return content


def read_content(file: LabelledFile) -> bytes:
    """The bytes of an image, from its own file or from the one that holds it.

    Raises:
        BadImageError: it cannot be read, or is larger than 512 MiB.
    """
    if file.content is None:
        return read_file(file.path)
    try:
        return file.content()
    except OSError as error:
        raise BadImageError(f"cannot be read from {file.path.name}: {error.strerror or error}") from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about metadata (bad EXIF, unknown tags) and about large images, which are refused.

    To be used around the threads, not in them: the filters of ``warnings`` are the process's.
    """
    logger = logging.getLogger("PIL")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        logger.setLevel(before)


def _decoded(content: bytes, size: int | None) -> tuple[ImageHeader, Image.Image]:
    """A file's header, and its image, upright and RGB; a JPEG may come at a reduced size that is at least ``size``.

    Raises:
        BadImageError: it cannot be decoded at full size. (At a reduced size libjpeg cannot read every JPEG.)
    """
    tags: TiffTags | None = None
    try:
        opened, tags = _opened(io.BytesIO(content))
        with opened as image:
            header = ImageHeader(image.format or "", image.mode, *image.size)
            drafted = None if size is None else image.draft(None, (size, size))  # None but for a JPEG; before loading
            image.load()
            # A drafted image may end in part of a pixel, which is left out. A TIFF turns itself in loading.
            whole = image.size if drafted is None else (int(drafted[1][2]), int(drafted[1][3]))
            turn = TURNS.get(_orientation(image))
            flat = _to_rgb(image, content, GreyRange() if tags is None else tags.grey_range)
        if flat.size != whole:
            flat = flat.crop((0, 0, *whole))
        return header, flat if turn is None else flat.transpose(turn)
    except BadImageError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged content
        if size is not None:
            return _decoded(content, None)
        if tags is not None and "raw mode" in str(error):
            raise BadImageError(tags.refusal("an order of samples")) from error
        raise BadImageError(_reason(error)) from error


def _opened(file: IO[bytes]) -> tuple[Image.Image, TiffTags | None]:
    """The image before its pixels are read, and a TIFF's tags.

    Raises:
        BadImageError: no image, too large, or a TIFF whose pixels Pillow might read wrong.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise BadImageError("empty file")
    file.seek(0)
    if head.startswith(BIG_ENDIAN_BIGTIFF):
        raise BadImageError(name_of_kind(head) or "")
    tags = None
    try:
        if is_tiff(head):
            silence_libtiff()
            tags = TiffTags(file)
            if tags.problem:
                raise BadImageError(tags.problem)
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if tags is not None:
            raise BadImageError(tags.refusal("values of an unusual kind")) from None
        unknown = f"not an image (read are {', '.join(FORMATS)}), or its header is damaged"
        raise BadImageError(name_of_kind(head) or unknown) from None
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImageError(_too_large(f"{image.width} x {image.height} px"))
    return image, tags


def _too_large(pixels: str) -> str:
    return f"{pixels}: more pixels than the safety limit of {Image.MAX_IMAGE_PIXELS:,} (a decompression bomb?)"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large("too large")
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: the file ends too early ({text})"
    if text.startswith("decoder error"):
        text = "its pixels cannot be unpacked"
    return f"damaged: {text}"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels may be whole where the EXIF block is damaged
        return 1


def _to_rgb(image: Image.Image, content: bytes, grey_range: GreyRange) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:
        return _from_sixteen_bits(image, grey_range).convert("RGB")
    if image.mode == "F":
        raise BadImageError(FLOATING)
    if image.mode == "La":
        image = image.convert("LA")
    if image.format == "PNG":
        _rescale_transparency(image, bits=content[24])
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bits(image: Image.Image, grey_range: GreyRange) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > grey_range.largest:
        raise BadImageError("32-bit pixels, whose range is not known: convert it to 8 or 16 bits")
    if grey_range.inverted:
        values = grey_range.largest - values
    transparent = image.info.get("transparency")  # a PNG's: the value of transparent pixels
    if isinstance(transparent, int):
        values[values == transparent] = grey_range.largest
    return Image.fromarray(((255 * values + grey_range.largest // 2) // grey_range.largest).astype(np.uint8))


def _rescale_transparency(image: Image.Image, *, bits: int) -> None:
    """A PNG gives its transparent value in its own number of bits; Pillow's pixels have 8."""
    transparent = image.info.get("transparency")
    if image.mode == "L" and isinstance(transparent, int) and bits < 8:
        image.info["transparency"] = (transparent & (2**bits - 1)) * 255 // (2**bits - 1)
    if image.mode == "RGB" and transparent is not None and bits == 16:
        raise BadImageError("a PNG of 16 bits with one transparent colour, which is not read: convert it to 8 bits")


def _resized(image: Image.Image, size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """Bicubic and antialiased, as Pillow does it to a level in 255; torch's vector code takes half the time."""
    import torch  # `da6401 data check` does not need it

    pixels_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pixels_CHW = pixels_CHW[:, top : top + side, left : left + side]
    square_CHW = torch.nn.functional.interpolate(pixels_CHW[None], (size, size), mode="bicubic", antialias=True)[0]
    return square_CHW.contiguous().numpy()
