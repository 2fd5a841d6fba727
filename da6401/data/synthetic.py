"""data=synthetic: deterministic coloured shapes on a noisy ground, for tests and benchmarks.

The class decides the hue and the shape; position, size, ground and noise are each image's own. A small network learns
them in minutes.
"""

# C classes, B images in a chunk, N images, S side in px

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from da6401.config.schema import SyntheticConfig
from da6401.config.splits import TEST, TRAIN
from da6401.data.classes import refuse_other_classes
from da6401.data.image_sets import ImageSet, ReadSplit, TrainingData, empty_images
from da6401.data.split import hold_out

VERSION = 1  # part of the data's fingerprint: raise it when the images change
STREAMS = {TRAIN: 0, TEST: 1}  # of random numbers: no test image is a training image
GOLDEN = 0.6180339887498949  # steps of it round the colour wheel keep any number of hues apart
CHUNK_PIXELS = 2**20  # of one chunk: keeps the intermediate float arrays at some tens of MiB

Floats = npt.NDArray[np.float32]
# Which pixels a shape covers: y and x are distances from its centre along the axes, r is its radius.
SHAPES: dict[str, Callable[[Floats, Floats, Floats], npt.NDArray[np.bool_]]] = {
    "disc": lambda y, x, r: y**2 + x**2 < r**2,
    "square": lambda y, x, r: np.maximum(y, x) < 0.85 * r,
    "diamond": lambda y, x, r: y + x < 1.2 * r,
    "ring": lambda y, x, r: (y**2 + x**2 < (1.1 * r) ** 2) & (y**2 + x**2 > (0.6 * r) ** 2),
    "cross": lambda y, x, r: (np.minimum(y, x) < 0.35 * r) & (np.maximum(y, x) < 1.1 * r),
}
SHAPE_NAMES = tuple(SHAPES)


class Synthetic:
    """The source of data=synthetic; the test split has a quarter as many images of each class, at least one."""

    def __init__(self, cfg: SyntheticConfig) -> None:
        self.cfg = cfg
        # Names that sort as they count: "0000-disc", "0001-square", ...
        self._class_names = tuple(f"{label:04d}-{SHAPE_NAMES[label % len(SHAPES)]}" for label in range(cfg.classes))
        self._test_each = max(1, cfg.images_per_class // 4)

    def signature(self) -> str:
        return ""

    def load_training(self) -> TrainingData:
        each = self.cfg.images_per_class
        return hold_out(
            self.cfg, self._class_names, np.repeat(np.arange(self.cfg.classes), each),
            lambda places: self._draw(TRAIN, np.asarray(places), each),
            origin="synthetic shapes", test=f"{self.cfg.classes * self._test_each} test",
        )  # fmt: skip

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        refuse_other_classes(self.cfg.source, self._class_names, class_names)
        return self._draw(TEST, np.arange(self.cfg.classes * self._test_each), self._test_each).images

    def _draw(self, folder: str, places: npt.NDArray[np.int64], each: int) -> ReadSplit:
        """The images at some places of a split that has ``each`` images of one class after another."""
        labels_N, indices_N = places // each, places % each
        images_NCHW = empty_images(len(places), self.cfg.image_size)
        render(labels_N, indices_N, stream=STREAMS[folder], out=images_NCHW.numpy())
        names = tuple(
            f"{folder}/{self._class_names[label]}/{index:06d}" for label, index in zip(labels_N, indices_N, strict=True)
        )
        images = ImageSet(images_NCHW, torch.from_numpy(labels_N), names)
        return ReadSplit(images, (f"synthetic version {VERSION}",) * len(names))  # with the name it decides the image


def render(
    labels: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], *, stream: int, out: npt.NDArray[np.uint8]
) -> None:
    """Draws image ``indices[i]`` of class ``labels[i]`` into ``out[i]``; out is (N, 3, S, S).

    An image depends on (stream, class, index, S) alone, never on how many others there are.
    """
    size = out.shape[-1]
    step = max(1, CHUNK_PIXELS // (size * size))
    for start in range(0, len(labels), step):
        chunk = slice(start, start + step)
        out[chunk] = _chunk(labels[chunk], indices[chunk], stream, size)


def _chunk(
    labels_B: npt.NDArray[np.int64], indices_B: npt.NDArray[np.int64], stream: int, size: int
) -> npt.NDArray[np.uint8]:
    generators = [
        np.random.default_rng((stream, int(label), int(index)))
        for label, index in zip(labels_B, indices_B, strict=True)
    ]
    draws = np.stack([generator.random(8, dtype=np.float32) for generator in generators])
    noise = np.stack([generator.random((3, size, size), dtype=np.float32) for generator in generators])

    centre_y, centre_x = 0.35 + 0.3 * draws[:, 0], 0.35 + 0.3 * draws[:, 1]
    radius = 0.18 + 0.14 * draws[:, 2]
    ground = 0.1 + 0.5 * draws[:, 3:6]
    hues = (labels_B * GOLDEN + 0.04 * (draws[:, 6] - 0.5)) % 1.0
    values = 0.75 + 0.25 * draws[:, 7]
    colour = np.array(
        [colorsys.hsv_to_rgb(float(hue), 0.9, float(value)) for hue, value in zip(hues, values, strict=True)],
        dtype=np.float32,
    )

    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    y = np.abs(axis[None, :, None] - centre_y[:, None, None])
    x = np.abs(axis[None, None, :] - centre_x[:, None, None])
    inside = np.zeros((len(labels_B), 1, size, size), dtype=bool)
    for number, covers in enumerate(SHAPES.values()):
        of_shape = labels_B % len(SHAPES) == number
        inside[of_shape, 0] = covers(y[of_shape], x[of_shape], radius[of_shape, None, None])
    image = np.where(inside, colour[:, :, None, None], ground[:, :, None, None]) + 0.2 * (noise - 0.5)
    pixels: npt.NDArray[np.uint8] = (255 * image.clip(0, 1) + 0.5).astype(np.uint8)
    return pixels
