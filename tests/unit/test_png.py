"""Transparency, depth and range as PNG and PNM files have them, written by hand: Pillow reads them."""

# H, W height and width in px

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from da6401.data.images import BadImageError, read_image
from tests.pngs import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, PALETTE, chunk, png

SIDE = 32
RAMP = np.tile(np.arange(SIDE) / (SIDE - 1), (SIDE, 1))
SCENE = np.stack([RAMP, 1 - RAMP, RAMP.T], axis=-1)


def far(content: bytes, picture: npt.NDArray[np.float64]) -> float:
    """The largest difference to a picture in 0..1, in 255ths."""
    read = read_image(content, size=SIDE, resize="stretch").transpose(1, 2, 0)
    return float(np.abs(read - 255 * np.broadcast_to(picture, read.shape)).max())


def whole(values: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.uint16]:
    return np.asarray(np.round(values * (2**bits - 1)), dtype=np.uint16)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("place", [0, 10, SIDE - 1])
def test_the_transparent_value_of_grey_lies_on_white(bits: int, place: int) -> None:
    samples = whole(RAMP, bits)
    value = samples[0, place]
    picture = np.where(samples == value, 1.0, samples / (2**bits - 1))[..., None]
    content = png(samples, bits, GREY, before=chunk(b"tRNS", struct.pack(">H", value)))
    assert far(content, picture) <= 1
    assert far(png(samples, bits, GREY), samples[..., None] / (2**bits - 1)) <= 1


def test_a_transparent_colour_lies_on_white_or_is_refused() -> None:
    for bits in (8, 16):
        samples = whole(SCENE, bits)
        samples[4:9] = colour = (2**bits // 3, 2**bits // 5, 2**bits // 7)
        picture = samples / (2**bits - 1)
        assert far(png(samples, bits, COLOUR), picture) <= 1
        picture[4:9] = 1
        content = png(samples, bits, COLOUR, before=chunk(b"tRNS", struct.pack(">HHH", *colour)))
        if bits == 8:
            assert far(content, picture) <= 1
        else:
            with pytest.raises(BadImageError, match="16 bits with one transparent colour"):
                read_image(content, size=SIDE, resize="stretch")


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_lies_on_white(bits: int) -> None:
    alpha = (1 - RAMP)[..., None]
    for kind, colours in ((GREY_ALPHA, RAMP.T[..., None]), (COLOUR_ALPHA, SCENE)):
        content = png(whole(np.concatenate([colours, alpha], axis=-1), bits), bits, kind)
        assert far(content, colours * alpha + 1 - alpha) <= 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_with_transparency_of_each_colour(bits: int) -> None:
    count = 2**bits
    colours = np.random.default_rng(0).integers(0, 256, (count, 3))
    alpha = np.random.default_rng(1).integers(0, 256, count)
    index = whole(RAMP, bits)
    before = chunk(b"PLTE", colours.astype(np.uint8).tobytes()) + chunk(b"tRNS", alpha.astype(np.uint8).tobytes())
    share = (alpha / 255)[index][..., None]
    assert far(png(index, bits, PALETTE, before=before), colours[index] / 255 * share + 1 - share) <= 1


@pytest.mark.parametrize("largest", [1, 15, 255, 1000, 4095, 65535])
def test_a_pnm_file_has_the_range_that_its_header_says(largest: int) -> None:
    for kind, values in ((5, RAMP), (6, SCENE)):
        samples = np.round(values * largest).astype(int)
        picture = samples / largest if kind == 6 else samples[..., None] / largest
        head = f"{SIDE} {SIDE} {largest}\n".encode()
        packed_samples = samples.astype(">u1" if largest < 256 else ">u2").tobytes()
        assert far(f"P{kind} ".encode() + head + packed_samples, picture) <= 1
        assert far(f"P{kind - 3} ".encode() + head + b" ".join(b"%d" % item for item in samples.flat), picture) <= 1


def test_lossless_jpegs_are_read_at_every_size(tmp_path: Path) -> None:
    """libjpeg has no reduced scale for them."""
    content = (Path(__file__).parents[1] / "images" / "lossless.jpg").read_bytes()
    ramp = np.tile(np.round(np.arange(16) / 15 * 255).astype(np.uint8), (16, 1))
    exact = read_image(content, size=16, resize="stretch")
    np.testing.assert_array_equal(exact, np.stack([ramp, 255 - ramp, ramp.T]))
    small = read_image(content, size=2, resize="stretch")
    assert np.abs(small.astype(int) - exact.reshape(3, 2, 8, 2, 8).mean((2, 4))).max() < 16
