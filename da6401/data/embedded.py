"""The data sets that need no files: scikit-learn's digits, and synthetic shapes."""

# N images, S side in px

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from da6401.config.schema import DigitsConfig, SyntheticConfig
from da6401.data import synthetic
from da6401.data.sets import ImageSet, TrainingData, empty_images, fingerprint
from da6401.data.split import stratified_split

DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
DIGITS_TEST_FRACTION = 0.2
DIGITS_TEST_SEED = 1797  # fixed: no setting of the user's moves the test split
TRAIN_STREAM, TEST_STREAM = 0, 1  # of the synthetic images: one has nothing in common with the other


def digits_training(cfg: DigitsConfig) -> TrainingData:
    """The digits outside the fixed test split, ``val_fraction`` of them held out."""
    grey_NHW, labels_N = _digits()
    rest, _ = _digits_split(labels_N)
    kept, held_out = stratified_split([int(labels_N[row]) for row in rest], cfg.val_fraction, cfg.split_seed)
    rows = {"train": [rest[i] for i in kept], "validation": [rest[i] for i in held_out]}
    files = {
        part: [(_digit_name(row), hashlib.sha256(grey_NHW[row].tobytes()).hexdigest()) for row in rows[part]]
        for part in rows
    }
    return TrainingData(
        class_names=DIGIT_CLASSES,
        train=_digit_set(grey_NHW, labels_N, rows["train"], cfg.image_size),
        validation=_digit_set(grey_NHW, labels_N, rows["validation"], cfg.image_size),
        fingerprint=fingerprint(DIGIT_CLASSES, files),
        notes=(
            f"scikit-learn's digits: {len(kept)} train, {len(held_out)} validation "
            f"(data.split_seed={cfg.split_seed}); a fixed fifth of all is the test split.",
        ),
        skipped=(),
    )


def digits_test(cfg: DigitsConfig) -> ImageSet:
    """The fixed fifth of the digits that no training sees."""
    grey_NHW, labels_N = _digits()
    _, rows = _digits_split(labels_N)
    return _digit_set(grey_NHW, labels_N, rows, cfg.image_size)


def synthetic_training(cfg: SyntheticConfig) -> TrainingData:
    """``images_per_class`` shapes of each class, ``val_fraction`` of them held out."""
    class_names = synthetic.class_names(cfg.classes)
    labels_N = np.repeat(np.arange(cfg.classes), cfg.images_per_class)
    indices_N = np.tile(np.arange(cfg.images_per_class), cfg.classes)
    kept, held_out = stratified_split(labels_N.tolist(), cfg.val_fraction, cfg.split_seed)
    train = _synthetic_set("train", labels_N[kept], indices_N[kept], cfg)
    validation = _synthetic_set("train", labels_N[held_out], indices_N[held_out], cfg)
    drawn = f"synthetic version {synthetic.VERSION}"  # a name and the version decide the picture
    return TrainingData(
        class_names=class_names,
        train=train,
        validation=validation,
        fingerprint=fingerprint(
            class_names,
            {
                "train": [(name, drawn) for name in train.names],
                "validation": [(name, drawn) for name in validation.names],
            },
        ),
        notes=(
            f"synthetic shapes: {len(kept)} train, {len(held_out)} validation (data.split_seed={cfg.split_seed}), "
            f"{cfg.classes * synthetic_test_count(cfg)} test.",
        ),
        skipped=(),
    )


def synthetic_test(cfg: SyntheticConfig) -> ImageSet:
    """A quarter of ``images_per_class`` shapes of each class, none of them in training."""
    each = synthetic_test_count(cfg)
    labels_N, indices_N = np.repeat(np.arange(cfg.classes), each), np.tile(np.arange(each), cfg.classes)
    return _synthetic_set("test", labels_N, indices_N, cfg)


def synthetic_test_count(cfg: SyntheticConfig) -> int:
    """Test images of each class."""
    return max(1, cfg.images_per_class // 4)


def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Grey pictures (1797, 8, 8), 0..255, and their digits."""
    from sklearn.datasets import load_digits  # its import takes seconds: only those who want digits wait

    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def _digits_split(labels_N: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    return stratified_split(labels_N.tolist(), DIGITS_TEST_FRACTION, DIGITS_TEST_SEED)


def _digit_name(row: int) -> str:
    return f"digits/{row:04d}"


def _digit_set(
    grey_NHW: npt.NDArray[np.uint8], labels_N: npt.NDArray[np.int64], rows: Sequence[int], size: int
) -> ImageSet:
    images_NCHW = empty_images(len(rows), size)
    out = images_NCHW.numpy()
    for place, row in enumerate(rows):
        enlarged = Image.fromarray(grey_NHW[row]).resize((size, size), Image.Resampling.BICUBIC)
        out[place] = np.asarray(enlarged)  # the same in all three channels
    return ImageSet(images_NCHW, torch.from_numpy(labels_N[rows]), tuple(_digit_name(row) for row in rows))


def _synthetic_set(
    folder: str, labels_N: npt.NDArray[np.int64], indices_N: npt.NDArray[np.int64], cfg: SyntheticConfig
) -> ImageSet:
    images_NCHW = empty_images(len(labels_N), cfg.image_size)
    stream = TEST_STREAM if folder == "test" else TRAIN_STREAM
    synthetic.render(labels_N, indices_N, stream=stream, out=images_NCHW.numpy())
    class_names = synthetic.class_names(cfg.classes)
    names = tuple(
        f"{folder}/{class_names[label]}/{index:06d}" for label, index in zip(labels_N, indices_N, strict=True)
    )
    return ImageSet(images_NCHW, torch.from_numpy(labels_N.astype(np.int64)), names)
