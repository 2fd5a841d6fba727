"""data=digits: scikit-learn's handwritten digits, which need no files."""

# N images, S side in px

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from da6401.config.schema import DigitsConfig
from da6401.data.classes import refuse_other_classes
from da6401.data.image_sets import ImageSet, ReadSplit, TrainingData, empty_images
from da6401.data.split import hold_out, stratified_split

CLASS_NAMES = tuple(str(digit) for digit in range(10))
TEST_FRACTION = 0.2
TEST_SEED = 1797  # fixed: no key changes the test split


class Digits:
    """The source of data=digits: a fixed fifth of the 1,797 images is the test split."""

    def __init__(self, cfg: DigitsConfig) -> None:
        self.cfg = cfg

    def signature(self) -> str:
        return ""

    def load_training(self) -> TrainingData:
        _, labels_N, rest, _ = _digits()
        return hold_out(
            self.cfg, CLASS_NAMES, labels_N[rest], lambda places: self._read([rest[place] for place in places]),
            origin="scikit-learn's digits", test="a fixed fifth of all is the test split",
        )  # fmt: skip

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        refuse_other_classes(self.cfg.source, CLASS_NAMES, class_names)
        *_, test = _digits()
        return self._read(test).images

    def _read(self, rows: Sequence[int]) -> ReadSplit:
        size = self.cfg.image_size
        grey_NHW, labels_N, _, _ = _digits()
        images_NCHW = empty_images(len(rows), size)
        out = images_NCHW.numpy()
        for place, row in enumerate(rows):
            enlarged = Image.fromarray(grey_NHW[row]).resize((size, size), Image.Resampling.BICUBIC)
            out[place] = np.asarray(enlarged)  # the same in all three channels
        names = tuple(f"digits/{row:04d}" for row in rows)
        digests = tuple(hashlib.sha256(grey_NHW[row].tobytes()).hexdigest() for row in rows)
        return ReadSplit(ImageSet(images_NCHW, torch.from_numpy(labels_N[rows]), names), digests)


@functools.cache
def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[int], list[int]]:
    """Grey images (1797, 8, 8), 0..255, their digits, the rows that may be trained on, and those of the test split."""
    from sklearn.datasets import load_digits  # slow to import, so only where digits are wanted

    bunch = load_digits()
    rest, test = stratified_split(bunch.target.tolist(), TEST_FRACTION, TEST_SEED)
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64), rest, test
