"""A TIFF means what its tags say: it is read right, within 2 of 255, or refused with its reason."""

# H, W height and width in px

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from da6401.data.images import BadImageError, read_image
from tests.tiffs import COMPRESSION, PLANAR, Values, tagged, tiff, written

SIDE = 48
RAMPS = Path(__file__).parents[1] / "images"
RAMP = np.tile(np.arange(SIDE) / (SIDE - 1), (SIDE, 1))  # black to white
SCENE = np.stack([RAMP, 1 - RAMP, RAMP.T], axis=-1)  # (H, W, RGB)
ALPHA = 1 - RAMP
NEAR = 2  # of 255


@dataclass(frozen=True)
class Case:
    """A file, its picture (H, W, 3) in 0..1, and whether it must be read, must be refused, or may be either."""

    content: bytes
    picture: Values
    outcome: str = "right or refused"


def on_white(colours: Values) -> Values:
    return np.asarray(colours * ALPHA[..., None] + 1 - ALPHA[..., None])


def grey(values: Values) -> Values:
    return np.repeat(values[..., None], 3, axis=-1)


def split(values: Values, planar: str) -> Values:
    return np.moveaxis(values, -1, 0) if planar == "separate" else values


def greys() -> Iterator[tuple[str, Case]]:
    sure = {(bits, 1) for bits in (1, 2, 4, 8)} | {(bits, 0) for bits in (1, 2, 4, 8)} | {(16, 1)}
    for bits, white, order, fill, deflate, planar in itertools.product(
        (1, 2, 4, 8, 10, 12, 14, 16), (0, 1), "<>", (1, 2), (False, True), (1, 2)
    ):
        stored = RAMP if white else 1 - RAMP
        exact = np.round(stored * (2**bits - 1)) / (2**bits - 1)
        content = tiff(
            stored, bits, photometric="minisblack" if white else "miniswhite", byteorder=order, fill_order=fill,
            deflate=deflate,
        )  # fmt: skip
        content = tagged(content, PLANAR, planar) if planar == 2 else content
        plain = fill == planar == 1
        known = (bits, white) in sure or (order == "<" and (bits, white) in {(12, 1), (16, 0)})
        yield (
            f"grey {bits} bits, photometric {white}, {order}, fill order {fill}, deflate {deflate}, planar {planar}",
            Case(content, grey(exact if white else 1 - exact), "right" if plain and known else "right or refused"),
        )


def colours() -> Iterator[tuple[str, Case]]:
    kinds = {None: SCENE, "unspecified": SCENE, "assocalpha": on_white(SCENE), "unassalpha": on_white(SCENE)}
    for bits, planar, order, deflate, fill, extra, tile in itertools.product(
        (8, 12, 16), ("contig", "separate"), "<>", (False, True), (1, 2), kinds, (None, (16, 16))
    ):
        if tile and (fill == 2 or bits == 12):
            continue
        stored = SCENE * ALPHA[..., None] if extra == "assocalpha" else SCENE
        stored = stored if extra is None else np.concatenate([stored, ALPHA[..., None]], axis=-1)
        options: dict[str, Any] = {} if extra is None else {"extrasamples": [extra]}
        options |= {"tile": tile} if tile else {}
        content = tiff(
            split(stored, planar), bits, photometric="rgb", planarconfig=planar, byteorder=order, deflate=deflate,
            fill_order=fill, **options,
        )  # fmt: skip
        sure = (
            fill == 1
            and (bits == 8 or (bits == 16 and extra != "assocalpha"))
            and (planar == "contig" or deflate or (bits == 8 and extra is None))
        )
        yield (
            f"RGB {bits} bits, {planar}, {order}, deflate {deflate}, fill order {fill}, extra {extra}, tile {tile}",
            Case(content, kinds[extra], "right" if sure else "right or refused"),
        )


def greys_with_alpha() -> Iterator[tuple[str, Case]]:
    for bits, planar, order, deflate, extra, photometric in itertools.product(
        (8, 16), ("contig", "separate"), "<>", (False, True), ("unspecified", "assocalpha", "unassalpha"), (0, 1)
    ):
        stored = RAMP.T if photometric else 1 - RAMP.T
        if extra == "assocalpha":
            stored = stored * ALPHA
        picture = grey(RAMP.T) if extra == "unspecified" else on_white(grey(RAMP.T))
        content = tiff(
            split(np.stack([stored, ALPHA], axis=-1), planar), bits, planarconfig=planar, byteorder=order,
            photometric="minisblack" if photometric else "miniswhite", extrasamples=[extra], deflate=deflate,
        )  # fmt: skip
        if extra == "assocalpha" and not photometric:
            continue  # multiplied by alpha from which end? nobody writes it
        sure = bits == 8 and planar == "contig" and photometric
        yield (
            f"grey and {extra}, {bits} bits, {planar}, {order}, deflate {deflate}, photometric {photometric}",
            Case(content, picture, "right" if sure else "right or refused"),
        )


def inks() -> Iterator[tuple[str, Case]]:
    black = 0.3 * RAMP.T[..., None]
    for bits, planar, order, deflate, extra in itertools.product(
        (8, 16), ("contig", "separate"), "<>", (False, True), (None, "unspecified")
    ):
        stored = np.concatenate([1 - SCENE, black, *([RAMP[..., None]] if extra else [])], axis=-1)
        options: dict[str, Any] = {"extrasamples": [extra]} if extra else {}
        content = tiff(
            split(stored, planar), bits, photometric="separated", planarconfig=planar, byteorder=order, deflate=deflate,
            **options,
        )  # fmt: skip
        sure = planar == "contig" and not extra
        yield (
            f"CMYK {bits} bits, {planar}, {order}, deflate {deflate}, extra {extra}",
            Case(content, SCENE * (1 - black), "right" if sure else "right or refused"),
        )
    stored = np.concatenate([1 - SCENE, black], axis=-1)
    content = tagged(tiff(stored, 8, photometric="separated"), 332, 2)
    yield "inks of no known kind", Case(content, SCENE, "refused")


def palettes() -> Iterator[tuple[str, Case]]:
    steps = np.linspace(0, 1, 256)
    colour_map = np.stack([steps, 1 - steps, steps**2])
    index = np.round(RAMP * 255).astype(np.uint8)
    for order, compression in itertools.product("<>", (None, "zlib")):
        for top, outcome in ((65535, "right"), (255, "refused")):  # a colour map of 8 bits would be nearly black
            content = written(
                index, photometric="palette", colormap=np.round(colour_map * top).astype(np.uint16), byteorder=order,
                compression=compression,
            )  # fmt: skip
            yield f"palette, colour map to {top}, {order}, {compression}", Case(content, colour_map.T[index], outcome)


def odd_values() -> Iterator[tuple[str, Case]]:
    for kind, photometric, order, compression in itertools.product(
        ("i1", "i2", "i4", "u4", "u8", "f2", "f4", "f8"), ("minisblack", "miniswhite", "rgb"), "<>", (None, "zlib")
    ):
        dtype = np.dtype(kind)
        largest = 1.0 if dtype.kind == "f" else float(min(np.iinfo(dtype).max, 2**31 - 1))
        stored = SCENE if photometric == "rgb" else RAMP
        content = written(
            (stored * largest).astype(dtype), photometric=photometric, byteorder=order, compression=compression
        )
        yield f"{dtype}, {photometric}, {order}, {compression}", Case(content, grey(RAMP), "refused")
    whole = np.round(SCENE * 255).astype(np.uint8)
    for photometric in ("cielab", "icclab", "ycbcr", "cfa"):
        more: dict[str, Any] = {"subsampling": (1, 1)} if photometric == "ycbcr" else {}
        content = written(whole[..., 0] if photometric == "cfa" else whole, photometric=photometric, **more)
        yield photometric, Case(content, SCENE, "refused")
    plain = written(whole, photometric="rgb")
    yield "no photometric interpretation", Case(tagged(plain, 262, None), SCENE, "refused")
    yield "a preview before the picture", Case(tagged(plain, 254, 1), SCENE, "refused")
    yield "a DNG", Case(tagged(plain, 50706, 1), SCENE, "refused")
    yield "an unknown compression", Case(tagged(plain, COMPRESSION, 34712), SCENE, "refused")


def big() -> Iterator[tuple[str, Case]]:
    for order in "<>":
        content = tiff(SCENE, 8, photometric="rgb", bigtiff=True, byteorder=order)
        yield f"BigTIFF {order}", Case(content, SCENE, "right" if order == "<" else "right or refused")
        content = tiff(1 - RAMP, 16, photometric="miniswhite", bigtiff=True, byteorder=order)
        yield f"BigTIFF, 16 bits, white is zero, {order}", Case(content, grey(RAMP))


KINDS = (greys, colours, greys_with_alpha, inks, palettes, odd_values, big)


def outcome(content: bytes, picture: Values) -> str:
    try:
        read = read_image(content, size=SIDE, resize="stretch").transpose(1, 2, 0)
    except BadImageError as problem:
        return "refused" if ": convert it" in problem.reason or ": develop it" in problem.reason else problem.reason
    far = float(np.abs(read - 255 * picture).max())
    return "right" if far <= NEAR else f"wrong by {far:.0f}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_read_right_or_refused(kind: Any) -> None:
    cases = dict(kind())
    assert cases
    found = {name: outcome(case.content, case.picture) for name, case in cases.items()}
    wrong = {name: said for name, said in found.items() if said not in cases[name].outcome.split(" or ")}
    assert not wrong


def test_there_are_hundreds_and_many_of_them_are_read() -> None:
    cases = [case for kind in KINDS for _, case in kind()]
    assert len(cases) > 500
    assert sum(case.outcome == "right" for case in cases) > 150


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("u16_minisblack", (4, 130, 251)), ("u12_packed", (4, 130, 251)), ("u16_miniswhite", (251, 125, 4)),
        ("u8_miniswhite", (251, 125, 4)), ("s16_positive", "signed pixels of no known range"),
    ],
)  # fmt: skip
def test_the_ramps_that_went_wrong(name: str, right: tuple[int, ...] | str) -> None:
    path = RAMPS / f"{name}.tif"
    if isinstance(right, str):
        with pytest.raises(BadImageError, match=right):
            read_image(path, size=64, resize="stretch")
        return
    read = read_image(path, size=64, resize="stretch")
    for channel in read:
        assert np.abs(channel[:, [1, 32, 62]].astype(int) - right).max() <= 2


def test_a_refusal_says_its_tags_and_what_to_do() -> None:
    with pytest.raises(BadImageError) as caught:
        read_image(RAMPS / "s16_positive.tif", size=64, resize="stretch")
    assert caught.value.reason == (
        "a TIFF with signed pixels of no known range, which is not read (PhotometricInterpretation 1, "
        "BitsPerSample 16, SampleFormat 2): convert it to an 8-bit PNG"
    )


def test_pillows_own_jpegs_and_fax_pages_in_tiff() -> None:
    import io

    for mode, compression in (("RGB", "jpeg"), ("L", "jpeg"), ("1", "group4"), ("L", "packbits"), ("RGB", "tiff_lzw")):
        picture = Image.fromarray(np.round(SCENE * 255).astype(np.uint8)).convert(mode)
        file = io.BytesIO()
        picture.save(file, "TIFF", compression=compression)
        read = read_image(file.getvalue(), size=SIDE, resize="stretch").transpose(1, 2, 0)
        assert np.abs(read.astype(int) - np.asarray(picture.convert("RGB"))).max() < 12, (mode, compression)


def test_libtiff_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).random((SIDE, SIDE, 3))
    content = bytearray(tiff(noise, 8, photometric="rgb", deflate=True))
    content[2000:2100] = b"x" * 100
    with pytest.raises(BadImageError, match="damaged: its pixels cannot be unpacked"):
        read_image(bytes(content), size=SIDE, resize="stretch")
    assert capfd.readouterr() == ("", "")
