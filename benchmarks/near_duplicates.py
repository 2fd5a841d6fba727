"""How the threshold of `da6401 data check --near` was chosen: distances of changed copies, and of different pictures.

    python -m benchmarks.near_duplicates FOLDER... [--images 400]

Of each folder's images (any depth) a random choice is taken. A copy is the same picture, changed in one way; different
pictures are all pairs of the choice. The table gives bits of 255: median, 95% and largest of the copies, and of the
different ones the smallest, the 0.01% and the median.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from da6401.data.near import BITS, perceptual_hash
from da6401.data.table import looks_like_image


def encoded(image: Image.Image, quality: int = 0) -> bytes:
    """A JPEG of this quality, or a PNG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality) if quality else image.save(out, "PNG")
    return out.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top))


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG, quality 30": lambda image: encoded(image, 30),
    "half the size": lambda image: encoded(half(image)),
    "half the size, JPEG 50": lambda image: encoded(half(image), 50),
    "brightness x 1.3": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.3)),
    "contrast x 0.7": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.7)),
    "grey": lambda image: encoded(image.convert("L")),
    "96 x 96": lambda image: encoded(image.resize((96, 96))),
    "2% cut off each side": lambda image: encoded(cropped(image, 0.02)),
    "5% cut off each side": lambda image: encoded(cropped(image, 0.05)),
    "turned by 2 degrees": lambda image: encoded(image.rotate(2, Image.Resampling.BICUBIC)),
}


def signs(hashes: list[bytes]) -> np.ndarray:
    packed = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
    return 2 * np.unpackbits(packed, axis=1, count=BITS).astype(np.float32) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=400, help="of each folder; a third of them is copied")
    options = parser.parse_args()
    distances: dict[str, list[float]] = {name: [] for name in COPIES}
    print("| folder | smallest | 0.01% | median |\n|---|---|---|---|")
    for folder in options.folders:
        paths = sorted(path for path in folder.rglob("*") if looks_like_image(path.name))
        paths = random.Random(0).sample(paths, min(options.images, len(paths)))
        hashes = [perceptual_hash(path.read_bytes()) for path in paths]
        found = signs(hashes)
        bits = ((BITS - found @ found.T) / 2)[np.triu_indices(len(paths), 1)]
        low, middle = np.quantile(bits, [1e-4, 0.5])
        print(f"| {folder.name}, {len(bits):,} pairs | {bits.min():.0f} | {low:.0f} | {middle:.0f} |", flush=True)
        for path, original in list(zip(paths, found, strict=True))[: options.images // 3]:
            with Image.open(path) as image:
                picture = image.convert("RGB")
            for name, change in COPIES.items():
                (copy,) = signs([perceptual_hash(change(picture))])
                distances[name].append(float((BITS - original @ copy) / 2))
    print("\n| copy | median | 95% | largest | at most 40 |\n|---|---|---|---|---|")
    for name, values in distances.items():
        low, high = np.quantile(values, [0.5, 0.95])
        share = np.mean(np.array(values) <= 40)
        print(f"| {name} | {low:.0f} | {high:.0f} | {max(values):.0f} | {share:.1%} |")


if __name__ == "__main__":
    main()
