"""Photograph-like JPEGs of 800 px, the same on every machine: octaves of coloured noise, edges, and grain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from da6401.machine.cores import available_cores

WIDTH, HEIGHT = 800, 600
CLASSES = 10
OCTAVES = ((3, 90), (9, 50), (30, 30), (100, 18), (300, 10))  # cells across the picture, amplitude in levels
GRAIN = 4.0  # standard deviation in levels


def make_tree(root: Path, *, train: int, validation: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """root/{train,validation}/<class>/*.jpg, ``train`` and ``validation`` pictures in all."""
    tasks = []
    for split, count in (("train", train), ("validation", validation)):
        for number in range(count):
            folder = root / split / f"class{number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            tasks.append((folder / f"{number:05d}.jpg", (number, split == "train")))
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(lambda task: _draw(task[0], task[1], width, height), tasks))
    return root


def _draw(path: Path, seed: tuple[int, bool], width: int, height: int) -> None:
    generator = np.random.default_rng((seed[0], int(seed[1])))
    levels = np.full((height, width, 3), generator.uniform(90, 160, 3), dtype=np.float32)
    for cells, amplitude in OCTAVES:
        coarse = generator.integers(0, 256, (max(2, cells * height // width), cells, 3), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        levels += (np.asarray(fine, dtype=np.float32) / 127.5 - 1) * amplitude
    x, y = np.arange(width)[None, :] / width, np.arange(height)[:, None] / height
    for _ in range(6):  # straight edges, as things have
        a, b, c = generator.normal(0, 1, 3)
        levels[a * (x - 0.5) + b * (y - 0.5) > 0.3 * c] += generator.normal(0, 25, 3).astype(np.float32)
    levels += generator.standard_normal((height, width, 1), dtype=np.float32) * GRAIN
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
