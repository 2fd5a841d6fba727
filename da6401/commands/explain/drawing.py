"""The pictures of `da6401 explain`, as matplotlib figures. Text is text: a class name is never read as mathematics."""

# M pictures, N tiles, P points, F filters, C = 3 colours (4 with opacity), H height, W width, S side, K classes

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from da6401.redact import safe
from da6401.runs.atomic_files import write_atomic

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

DPI = 150
LONGEST = 20  # characters of a class name
WRONG, RIGHT, INK = "#c2410c", "#4b7f52", "#333333"
SIGNED, HEAT = "RdBu_r", "inferno"
MARKERS = "os^DvPXp<>"
STYLE: dict[str, Any] = {"text.parse_math": False, "text.usetex": False, "font.size": 9, "text.color": INK}


@dataclass(frozen=True)
class Example:
    """One image, what it is, and what the model takes it for."""

    pixels: Pixels
    true: str
    predicted: str
    confidence: float  # 0..1, the predicted class's probability

    @property
    def right(self) -> bool:
        return self.true == self.predicted


@dataclass(frozen=True)
class Bar:
    """A colour bar: from where to where a colour map goes, and what it means."""

    colours: str
    low: float
    high: float
    label: str


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults and no settings of this machine's."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    write_atomic(path, lambda file: file.write(png.getvalue()))


def label(name: str) -> str:
    """A class name as a picture can show it: one short line, of characters that the font has."""
    drawn = get_font([findfont("DejaVu Sans")]).get_charmap()
    line = " ".join(safe(name).split())
    line = "".join(char if ord(char) in drawn else char.encode("unicode_escape").decode() for char in line)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def prediction_grid(rows: Sequence[Sequence[Example]]) -> Figure:
    """A row a class, its images with truth, prediction and confidence beside them; mistakes framed, crossed, named."""
    across = max(len(row) for row in rows)
    figure = Figure(figsize=(3.2 * across, 1.12 * len(rows) + 0.1))
    grid = figure.subplots(
        len(rows), 2 * across, squeeze=False, width_ratios=[1.0, 1.95] * across,
        gridspec_kw={"left": 0.01, "right": 0.995, "top": 0.99, "bottom": 0.01, "wspace": 0.05, "hspace": 0.1},
    )  # fmt: skip
    for axes in grid.flat:
        axes.axis("off")
    for cells, row in zip(grid, rows, strict=True):
        for place, example in enumerate(row):
            picture, words = cells[2 * place], cells[2 * place + 1]
            colour = RIGHT if example.right else WRONG
            show(picture, example.pixels)
            _frame(picture, colour, width=1.0 if example.right else 3.5)
            verdict = "✓ right" if example.right else "✗ MISTAKE"
            words.text(0.02, 0.93, verdict, color=colour, weight="bold", va="top")
            lines = (f"is {label(example.true)}", f"said {label(example.predicted)}")
            for height, line in zip((0.68, 0.45, 0.22), (*lines, f"confidence {example.confidence:.0%}"), strict=True):
                words.text(0.02, height, line, va="top", clip_on=True)
    return figure


def filter_sheet(weights_FCSS: Floats) -> Figure:
    """Every filter as a colour picture: grey is zero, brighter is positive, each divided by its largest magnitude."""
    figure, axes = _sheet(signed_channels(weights_FCSS, full=1))
    _bar(figure, Bar("gray", -1, 1, "weight of each colour / largest magnitude in its filter"), ax=axes)
    return figure


def map_sheet(pixels: Pixels, maps_FHW: Floats) -> Figure:
    """An image and what each filter makes of it, signed, each map divided by its largest magnitude."""
    figure, axes = _sheet(signed_colours(maps_FHW, alpha=1, full=1)[..., :3], image=pixels)
    _bar(figure, Bar(SIGNED, -1, 1, "output of the filter / largest magnitude in its map"), ax=axes)
    return figure


def _sheet(tiles_NHWC: npt.NDArray[Any], *, image: Pixels | None = None) -> tuple[Figure, Axes]:
    """Tiles in rows on one axes, the number of each row's first beside it; an image on the left where there is one."""
    count, height, width, _ = tiles_NHWC.shape
    across = 8 if count <= 32 else 16
    rows = -(-count // across)
    gap = max(1, round(0.12 * max(height, width)))
    sheet = np.ones((rows * (height + gap) - gap, across * (width + gap) - gap, 3))
    for number, tile in enumerate(tiles_NHWC):
        top, left = (number // across) * (height + gap), (number % across) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    inches = 8.0 if image is None else 6.4
    figure = Figure(figsize=(9.0, max(2.0, inches * sheet.shape[0] / sheet.shape[1]) + 0.9), layout="constrained")
    if image is None:
        axes = figure.subplots()
    else:
        picture, axes = figure.subplots(1, 2, width_ratios=[1.6, inches])
        show(picture, image)
        picture.set_title("the image", fontsize=9)
        _bare(picture)
    axes.imshow(sheet, interpolation="nearest")
    _bare(axes)
    axes.set_yticks([(height - 1) / 2 + row * (height + gap) for row in range(rows)])
    axes.set_yticklabels([str(row * across) for row in range(rows)])
    axes.tick_params(length=0)
    return figure, axes


def heat_pairs(examples: Sequence[Example], heats_MHWC: npt.NDArray[Any], titles: Sequence[str], bar: Bar) -> Figure:
    """Each image and beside it its heat, where that is transparent over the image in grey; two such pairs a row."""
    rows = -(-len(examples) // 2)
    height = 2.45 * rows + 0.8
    figure = Figure(figsize=(9.0, height))  # margins by hand: layout engines take seconds for so many axes
    grid = figure.subplots(
        rows, 4, squeeze=False,
        gridspec_kw={"left": 0.01, "right": 0.99, "top": 1 - 0.46 / height, "bottom": 0.7 / height, "wspace": 0.06,
                     "hspace": 0.2},
    )  # fmt: skip
    for axes in grid.flat:
        axes.axis("off")
    for number, (example, heat, title) in enumerate(zip(examples, heats_MHWC, titles, strict=True)):
        row, first = number // 2, 2 * (number % 2)
        plain, hot = grid[row, first], grid[row, first + 1]
        show(plain, example.pixels)
        show(hot, grey(example.pixels))  # or the picture's own colours would look like heat
        hot.imshow(heat, interpolation="nearest")
        mark = "✓" if example.right else "✗"
        plain.set_title(
            f"is {label(example.true)}\n{mark} said {label(example.predicted)}",
            fontsize=8, y=1.02, color=INK if example.right else WRONG,
        )  # fmt: skip
        hot.set_title(title, fontsize=8, y=1.02)
    _bar(figure, bar, cax=figure.add_axes((0.25, 0.45 / height, 0.5, 0.12 / height)))
    return figure


def signed_channels(weights_MCHW: Floats, *, full: float) -> npt.NDArray[Any]:
    """Signed weights of each colour as pictures (M, H, W, 3): grey is zero; full as for `_scaled`."""
    return (0.5 + 0.5 * _scaled(weights_MCHW, full)).transpose(0, 2, 3, 1)


def signed_colours(heats_MHW: Floats, *, alpha: float, full: float) -> npt.NDArray[Any]:
    """Signed maps as RGBA: red for, blue against, white zero; full as for `_scaled`."""
    return _coloured(SIGNED, 0.5 + 0.5 * _scaled(heats_MHW, full), alpha)


def heat_colours(heats_MHW: Floats, *, alpha: float) -> npt.NDArray[Any]:
    """Maps of evidence >= 0 as RGBA from black to bright, each map's largest full."""
    return _coloured(HEAT, _scaled(heats_MHW, 1), alpha)


def embedding_plot(points_P2: Floats, labels_P: npt.NDArray[np.int64], right_P: npt.NDArray[np.bool_],
                   class_names: Sequence[str], classes: Sequence[int]) -> Figure:  # fmt: skip
    """The points, a colour and a marker a class (at most ten), mistakes ringed."""
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    axes = figure.subplots()
    handles, names = [], []
    for place, number in enumerate(classes):
        of_class = labels_P == number
        dots = axes.scatter(
            points_P2[of_class, 0], points_P2[of_class, 1], s=26, marker=MARKERS[place],
            color=colormaps["tab10"](place), edgecolors="white", linewidths=0.4,
        )  # fmt: skip
        handles.append(dots)
        names.append(label(class_names[number]))
    rings = axes.scatter(
        points_P2[~right_P, 0],
        points_P2[~right_P, 1],
        s=110,
        marker="o",
        facecolors="none",
        edgecolors="black",
        linewidths=1.2,
    )
    _bare(axes)
    axes.set_aspect("equal", adjustable="datalim")
    legend = axes.legend(
        [*handles, rings], [*names, f"mistake ({int((~right_P).sum())} of {len(right_P)})"],
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="true class",
    )  # fmt: skip
    legend.set_alignment("left")
    return figure


def confusion_plot(counts_KK: npt.NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """True class down, predicted class across; the colour is the share of the row, up to 20 classes in figures too."""
    count = len(class_names)
    shares_KK = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    side = min(max(0.62 * count, 4.0), 13.0)
    figure = Figure(figsize=(side + 2.6, side + 1.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    places = range(0, count, -(-count // 60))
    labels = [label(class_names[place]) for place in places]
    axes.set_xticks(places, labels, rotation=90 if max(map(len, labels)) > 3 else 0)
    axes.set_yticks(places, labels)
    axes.tick_params(length=0, labelsize=9 if count <= 20 else 6)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    for true, predicted in np.argwhere(counts_KK) if count <= 20 else ():
        share = shares_KK[true, predicted]
        axes.text(
            predicted, true, f"{counts_KK[true, predicted]}\n{share:.0%}", ha="center", va="center", fontsize=7.5,
            color="white" if share > 0.55 else INK, weight="normal" if true == predicted else "bold",
        )  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    return figure


def _scaled(values_M: Floats, full: float) -> npt.NDArray[Any]:
    """Each of the first axis divided by the quantile `full` of its magnitudes, -1..1: what is larger is cut off."""
    largest = np.quantile(np.abs(values_M), full, axis=tuple(range(1, values_M.ndim)), keepdims=True)
    return np.asarray((values_M / np.maximum(largest, 1e-30)).clip(-1, 1))


def _coloured(colours: str, values: npt.NDArray[Any], alpha: float) -> npt.NDArray[Any]:
    """RGBA of values 0..1."""
    return np.asarray(colormaps[colours](values, alpha=alpha))


def grey(pixels: Pixels) -> Pixels:
    luminance = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luminance[..., None], 3, axis=2)


def show(axes: Axes, pixels: Pixels) -> None:
    axes.imshow(pixels, interpolation="nearest" if pixels.shape[0] < 64 else "antialiased")


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _frame(axes: Axes, colour: str, *, width: float) -> None:
    axes.axis("on")
    _bare(axes)
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=width)


def _bar(figure: Figure, bar: Bar, *, ax: Axes | None = None, cax: Axes | None = None) -> None:
    """Under `ax`, taking its room, or into `cax`."""
    room: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 40, "pad": 0.02} if cax is None else {}
    figure.colorbar(
        ScalarMappable(Normalize(bar.low, bar.high), bar.colours), ax=ax, cax=cax, orientation="horizontal",
        label=bar.label, ticks=[bar.low, (bar.low + bar.high) / 2, bar.high], **room,
    )  # fmt: skip
