"""The images on which two models disagree, and one of them is right; with the pictures where these can be read."""

# N images

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from da6401.report.blocks import Block, table, text
from da6401.runs.predictions import Predictions

SHOWN = 8  # images of each side
SIDE = 160  # px of a picture
LARGEST = 100_000_000  # pixels of a file that is opened for a picture

Pictures = Callable[[Sequence[str]], Mapping[str, str]]  # of images' names: data URLs, as far as they can be read


def disagreements(one: Predictions, other: Predictions, names: tuple[str, str], pictures: Pictures) -> list[Block]:
    """Blocks with the images that one model alone has right, the surest mistakes of the other first.

    Args:
        one, other: the answers on the same images in the same order.
        names: what the two are called.
    """
    blocks: list[Block] = []
    right, other_right = one.predicted == one.labels_N, other.predicted == other.labels_N
    for is_right, is_wrong, (better, worse) in ((right, other_right, names), (other_right, right, names[::-1])):
        rows_N = np.flatnonzero(is_right & ~is_wrong)
        if not len(rows_N):
            blocks.append(text(f"There is no image that {better} has right and {worse} wrong."))
            continue
        answers = (one, other) if better == names[0] else (other, one)
        order_N = rows_N[np.argsort(-answers[1].confidence[rows_N], kind="stable")][:SHOWN]
        caption = f"{len(rows_N)} that {better} has right and {worse} wrong; the surest mistakes of {worse} first"
        blocks.append(_shown(order_N.tolist(), answers, (better, worse), caption, pictures))
    return blocks


def _shown(
    rows: Sequence[int], answers: tuple[Predictions, Predictions], names: tuple[str, str], caption: str,
    pictures: Pictures,
) -> Block:  # fmt: skip
    """The images as pictures, or as a table where no picture can be read."""
    better, worse = answers
    found = pictures([better.names[row] for row in rows])
    said: list[list[Any]] = [
        [better.names[row], better.class_names[better.labels_N[row]], round(float(better.confidence[row]), 3),
         worse.class_names[worse.predicted[row]], round(float(worse.confidence[row]), 3)]
        for row in rows
    ]  # fmt: skip
    if not found:
        columns = ["image", f"true class, as by {names[0]}", "confidence", f"by {names[1]}", "its confidence"]
        return table(caption, columns, said)
    items = [
        {"title": true, "source": found[image],
         "caption": f"{names[1]}: {wrong} ({wrong_sure:.2f}); {names[0]}: {true} ({sure:.2f})"}
        for image, true, sure, wrong, wrong_sure in said
        if image in found
    ]  # fmt: skip
    return {"kind": "pictures", "items": items, "small": True, "caption": caption}


def pictures_of_files(config: Mapping[str, Any]) -> Pictures:
    """The pictures of a run's images where these are files below its data.root; of other sources there is none."""
    data = config.get("data")
    root = data.get("root") if isinstance(data, Mapping) else None

    def read(names: Sequence[str]) -> dict[str, str]:
        if not isinstance(root, str) or not root or not Path(root).is_dir():
            return {}
        paths = {name: path for name in names if (path := _inside(Path(root), name)) is not None}
        made = {name: _small(path, path.stat().st_mtime_ns) for name, path in paths.items()}
        return {name: source for name, source in made.items() if source}

    return read


def data_url(image: Image.Image) -> str:
    """A small copy of an image for the page."""
    small = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
    packed = io.BytesIO()
    small.save(packed, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")


def _inside(root: Path, name: str) -> Path | None:
    """An image's file below the root, or below a folder that the archive has around all; None where there is none."""
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        path = base / name
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    return None


@functools.lru_cache(maxsize=256)
def _small(path: Path, changed: int) -> str:
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > LARGEST:
                return ""
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            return data_url(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's, of damaged files
        return ""
