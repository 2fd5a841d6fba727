"""One file, read right: modes, depth, transparency, orientation, damage."""

# S side in px

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from da6401.config.schema import Resize
from da6401.data import images
from da6401.data.images import BadImageError, inspect_image, quiet_pillow, read_image

IMAGES = Path(__file__).parents[1] / "images"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(content: bytes, size: int = 16, resize: Resize = "stretch") -> npt.NDArray[np.uint8]:
    return read_image(content, size=size, resize=resize)


def container(*brands: bytes) -> bytes:
    """The beginning of a file of the family of MP4: its main brand, and those that it can be read as."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


def picture(width: int = 16, height: int = 16) -> Image.Image:
    """Smooth, and different in every corner and channel."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = 255 * x // (width - 1), 255 * y // (height - 1), 128 * x // (width - 1) + 50
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def distance(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(left.astype(float) - right.astype(float)).mean())


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)


def test_rgb_at_its_own_size_is_unchanged() -> None:
    result = read(encoded(picture()))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, pixels(picture()))


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    grey = picture().convert(mode)
    result = read(encoded(grey))
    for channel in result:
        np.testing.assert_array_equal(channel, np.asarray(grey.convert("L")))


def test_sixteen_bit_grey_keeps_its_range() -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for kind in ("PNG", "TIFF", "PPM"):
        result = read(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(result[0], np.arange(256).reshape(16, 16), err_msg=kind)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(BadImageError, match="floating-point"):
        read(encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))


def test_cmyk_jpeg_has_the_colours_of_rgb() -> None:
    result = read(encoded(picture(64, 64).convert("CMYK"), "JPEG", quality=95), size=64)
    assert distance(result, pixels(picture(64, 64))) < 4


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.paste((0, 0, 0, 128), (4, 4, 8, 8))
    result = read(encoded(image), size=8)
    assert result[:, 2, 1].tolist() == [255, 255, 255]
    assert result[:, 2, 6].tolist() == [200, 0, 0]
    assert result[:, 6, 6].tolist() == [127, 127, 127]


def test_palette_with_transparency_and_grey_with_alpha() -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (4, 0, 8, 8))
    opaque = read(encoded(palette), size=8)
    assert (opaque[:, 0, 0].tolist(), opaque[:, 0, 7].tolist()) == ([10, 20, 30], [200, 100, 50])
    for transparency in (0, b"\x00\xff"):
        result = read(encoded(palette, transparency=transparency), size=8)
        assert (result[:, 0, 0].tolist(), result[:, 0, 7].tolist()) == ([255, 255, 255], [200, 100, 50])
    grey = Image.new("LA", (8, 8), (90, 0))
    assert read(encoded(grey), size=8).min() == 255


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_applied(orientation: int, undo: Image.Transpose | None, resize: Resize) -> None:
    upright = picture(48, 31)
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    wanted = read(encoded(upright), size=12, resize=resize)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        result = read(encoded(stored, kind, exif=exif, **options), size=12, resize=resize)
        assert np.abs(result.astype(int) - wanted).max() <= 1, kind


def test_exif_orientation_survives_the_fast_jpeg_path() -> None:
    upright = picture(400, 300)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    assert distance(read(turned, size=32), read(encoded(upright, "JPEG", quality=95), size=32)) < 1


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("side", [(401, 533), (533, 401), (129, 1000)])
def test_the_fast_jpeg_path_gives_the_same_picture(side: tuple[int, int], resize: Resize) -> None:
    image = picture(*side)
    slow = read(encoded(image), size=16, resize=resize)
    assert distance(read(encoded(image, "JPEG", quality=98), size=16, resize=resize), slow) < 1


def test_crop_takes_the_central_square() -> None:
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    image.paste((0, 255, 0), (10, 0, 20, 10))
    result = read(encoded(image), size=10, resize="crop")
    assert result[:, 5, :].T.tolist() == [[0, 255, 0]] * 10
    assert read(encoded(image), size=30)[:, 5, 2].tolist() == [255, 0, 0]


def test_downscaling_is_antialiased() -> None:
    checks = np.zeros((128, 128), dtype=np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    result = read(encoded(Image.fromarray(checks)), size=8)
    assert 120 <= result.min() <= result.max() <= 135


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(content, size=8)[:, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused_at_every_size(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    for share in (0.3, 0.6, 0.9, 0.97):
        cut = content[: int(share * len(content))]
        for size in (8, 64, 200):
            with pytest.raises(BadImageError):
                read(cut, size=size)
        with pytest.raises(BadImageError):
            inspect_image(io.BytesIO(cut), decode=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is a text", "not an image"),
        (container(b"heic", b"mif1"), "an HEIC photograph, which is not read: convert it to JPEG, .*heif-convert"),
        (container(b"mif1", b"miaf", b"heix"), "an HEIC photograph"),
        (container(b"hevx"), "an HEIC photograph"),
        (container(b"msf1", b"mif1"), "an HEIF image, which is not read: convert it to JPEG or PNG"),
        (container(b"mif1", b"avif"), "an AVIF image"),
        (container(b"isom", b"mp42"), "a video, which is not read: save its frames as images"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript drawing, which is not read"),
        (b"\n<!DOCTYPE html><title>404</title>", "a page of HTML, which is not read: the download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG of a kind that is not read"),
        ((IMAGES / "twelve_bits.jpg").read_bytes(), "more than 8 bits"),
    ],
)
def test_reasons_are_plain(content: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        read(content)


def test_a_truncated_jpeg_says_so() -> None:
    with pytest.raises(BadImageError, match="truncated"):
        read(encoded(picture(200, 200), "JPEG")[:-400], size=200)


@pytest.mark.parametrize("limit", [100, 200])
def test_more_pixels_than_pillows_limit_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 256 px: beyond twice 100, between 200 and twice that
    content = encoded(picture())
    with quiet_pillow(), pytest.raises(BadImageError, match="safety limit"):
        read(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError, match="safety limit"):
            read(content)


def test_a_path_stands_in_the_message_and_not_in_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "none.jpg"
    with pytest.raises(BadImageError) as caught:
        read_image(path, size=8, resize="stretch")
    assert str(path) in str(caught.value)
    assert str(path) not in caught.value.reason
    path.write_bytes(encoded(picture(), "JPEG"))
    assert read_image(path, size=8, resize="stretch").shape == (3, 8, 8)


def test_links_that_lead_nowhere_say_so_and_pipes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.png").symlink_to("gone.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in (
        ("link.png", "a link to gone.png, which does not exist"),
        ("loop.png", "a link that leads back to itself"),
        ("none.png", "cannot be read: No such file or directory"),
        ("", "cannot be read: Is a directory"),
    ):
        with pytest.raises(BadImageError) as caught:
            read_image(tmp_path / name, size=8, resize="stretch")
        assert caught.value.reason == reason
    os.mkfifo(tmp_path / "pipe")
    for limit in (2**20, 50):
        monkeypatch.setattr(images, "MAX_FILE_BYTES", limit)
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(encoded(picture()),))
        writer.start()
        if limit == 50:
            with pytest.raises(BadImageError, match="larger than"):
                read_image(tmp_path / "pipe", size=8, resize="stretch")
        else:
            assert read_image(tmp_path / "pipe", size=8, resize="stretch").shape == (3, 8, 8)
        writer.join()


def test_damaged_exif_does_not_spoil_the_picture() -> None:
    content = bytearray(encoded(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\xff\xff\x01\x12"))
    with quiet_pillow():
        assert read(bytes(content)).shape == (3, 16, 16)
