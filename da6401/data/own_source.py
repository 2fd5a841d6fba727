"""The images of a plugin's function, or of Python objects, as a source: checked, resized, and split."""

# N images, H height, W width, S side in px

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from da6401.config.schema import OwnDataConfig
from da6401.config.splits import TEST, TRAIN, VALIDATION
from da6401.data.classes import refuse_other_classes
from da6401.data.image_sets import ImageSet, ReadSplit, TrainingData, empty_images, training_data
from da6401.data.split import hold_out
from da6401.errors import DataError, PluginError
from da6401.plugins.needed import recorded
from da6401.plugins.objects import registrations
from da6401.plugins.registered import broken
from da6401.registry import DATA_SOURCES

Images = Sequence[Any] | Tensor | npt.NDArray[Any]


class OwnSource:
    """The source of data=NAME of a plugin: what its function gives for train, divided, and for test."""

    test_split = "the function gives the test split"  # of the note

    def __init__(self, cfg: OwnDataConfig) -> None:
        self.cfg = cfg

    def signature(self) -> str:
        return repr(recorded())  # a changed plugin gives other images

    def load_training(self) -> TrainingData:
        images, labels_N, class_names = self._given(TRAIN)
        return hold_out(
            self.cfg, class_names, labels_N, lambda places: self._read(TRAIN, images, labels_N, places),
            origin=f"data={self.cfg.source}", test=self.test_split,
        )  # fmt: skip

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        images, labels_N, own = self._given(TEST)
        if not len(labels_N):
            raise DataError(f"data={self.cfg.source}: gives no images for the test split")
        refuse_other_classes(self.cfg.source, own, class_names)
        return self._read(TEST, images, labels_N, range(len(labels_N))).images

    def _given(self, split: str) -> tuple[Images, npt.NDArray[np.int64], tuple[str, ...]]:
        function = DATA_SOURCES[self.cfg.source].function
        assert function is not None, "a plugin registers its source with its function"
        given = function(self.cfg, split)
        if not (isinstance(given, tuple) and len(given) == 3):
            shown = f"{len(given)} values" if isinstance(given, tuple) else type(given).__name__
            raise self._broken(f"gave {shown} for {split}, not (images, labels, class names)")
        images, labels, names = given
        labels_N = np.asarray(labels)
        if len(images) != len(labels_N):
            raise self._broken(f"gave {len(images)} images and {len(labels_N)} labels for {split}")
        names = tuple(map(str, names))
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise self._broken(f"gave the class name {twice[0]!r} twice for {split}; each class has a name of its own")
        if split == TRAIN and len(names) < 2:
            alone = f"one class alone, {names[0]}" if names else "no class"
            raise self._broken(f"gave {alone}: there is nothing to tell apart")
        if labels_N.ndim != 1 or (len(labels_N) and not np.issubdtype(labels_N.dtype, np.integer)):
            raise self._broken(f"gave labels of {labels_N.dtype} {labels_N.shape} for {split}")
        if len(labels_N) and not (labels_N.min() >= 0 and labels_N.max() < len(names)):
            raise self._broken(f"gave labels {labels_N.min()} to {labels_N.max()} for {len(names)} classes")
        absent = sorted(set(range(len(names))) - set(labels_N.tolist())) if split == TRAIN else []
        if absent:
            raise self._broken(f"gave no training image of {names[absent[0]]}")
        return images, labels_N.astype(np.int64), names

    def _read(self, split: str, images: Images, labels_N: npt.NDArray[np.int64], places: Sequence[int]) -> ReadSplit:
        size = self.cfg.image_size
        out_NCHW, digests = empty_images(len(places), size), []
        for row, place in enumerate(places):
            try:
                pixels = pixels_of(images[place])
            except ValueError as error:
                raise self._broken(f"gave as image {place} of {split} {error}") from error
            out_NCHW[row] = torch.from_numpy(resized(pixels, size))
            digests.append(hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest())
        names = tuple(f"{split}/{place:06d}" for place in places)
        labels = torch.from_numpy(labels_N[list(places)])
        return ReadSplit(ImageSet(out_NCHW, labels, names), tuple(digests))

    def _broken(self, problem: str) -> PluginError:
        return broken("data_source", self.cfg.source, problem)


class GivenSource(OwnSource):
    """The data sets that train(...) was given: validation is a part of train where there is no set of its own."""

    test_split = "no test split"

    def signature(self) -> str:
        return f"{super().signature()} {registrations()}"  # the same data set may have other images by the next call

    def load_training(self) -> TrainingData:
        validation, val_labels_N, _ = self._given(VALIDATION)
        if not len(val_labels_N):
            return super().load_training()
        images, labels_N, class_names = self._given(TRAIN)
        return training_data(
            class_names,
            self._read(TRAIN, images, labels_N, range(len(labels_N))),
            self._read(VALIDATION, validation, val_labels_N, range(len(val_labels_N))),
            notes=[f"given: {len(labels_N)} train, {len(val_labels_N)} validation; no test split."],
        )


def pixels_of(image: Any) -> npt.NDArray[np.uint8]:
    """An image as uint8 (H, W, 3): of a picture, of uint8 (3, H, W), (1, H, W) or (H, W), of such floats in 0..1.

    Raises:
        ValueError: anything else.
    """
    if isinstance(image, Image.Image):
        return np.ascontiguousarray(image.convert("RGB"))
    pixels = image.numpy() if isinstance(image, Tensor) else np.asarray(image)
    if np.issubdtype(pixels.dtype, np.floating) and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(255 * pixels).astype(np.uint8)  # what torchvision's ToTensor made of bytes
    if pixels.dtype != np.uint8:
        raise ValueError(f"values of {pixels.dtype}, not uint8 in 0..255 or floats in 0..1")
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"the shape {pixels.shape}, not (3, H, W)")
    return np.ascontiguousarray(np.repeat(pixels, 3 // pixels.shape[0], axis=0).transpose(1, 2, 0))


def resized(pixels_HWC: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """(3, S, S), stretched where it has another size."""
    if pixels_HWC.shape[:2] != (size, size):
        pixels_HWC = np.asarray(Image.fromarray(pixels_HWC).resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
