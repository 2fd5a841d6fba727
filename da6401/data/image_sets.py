"""What a source gives: images and labels as tensors, and the fingerprint that says which data they are."""

# N images, S side in px

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from da6401.config.splits import TRAIN, VALIDATION
from da6401.data.tree import BadFile
from da6401.errors import DataError
from da6401.machine.cores import memory_of_machine


class Pixels(Protocol):
    """Images as uint8 (N, 3, S, S): a tensor, or a cache on the disk. Positions (B,) give a tensor (B, 3, S, S)."""

    @property
    def shape(self) -> torch.Size: ...

    def __getitem__(self, positions_B: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes. The runs of a process share them: never write into them."""

    images_NCHW: Pixels  # RGB
    labels_N: torch.Tensor  # int64, (N,), index into class_names
    names: tuple[str, ...]  # "train/cat/1.jpg", or "digits/0012"

    def picture(self, row: int) -> npt.NDArray[np.uint8]:
        """One image as RGB (S, S, 3), 0..255."""
        return self.images_NCHW[torch.tensor([row])][0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class ReadSplit:
    """A split that was read: its images, a digest of each one's content, and the files that could not be read."""

    images: ImageSet
    digests: tuple[str, ...]
    bad: tuple[BadFile, ...] = ()


@dataclass(frozen=True)
class TrainingData:
    """The images that a training may see."""

    class_names: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    fingerprint: str  # sha256 over classes, names and contents of both splits; not over root or image_size
    notes: tuple[str, ...]  # sentences for the user
    skipped: tuple[BadFile, ...]  # the files that data.bad_files=skip left out
    groups: Mapping[str, str] | None = None  # by the images' names; None without data.group_by


def training_data(
    class_names: Sequence[str],
    train: ReadSplit,
    validation: ReadSplit,
    *,
    notes: Iterable[str],
    skipped: Iterable[BadFile] = (),
    groups: Mapping[str, str] | None = None,
) -> TrainingData:
    """Both splits with their fingerprint."""
    contents = {
        name: zip(split.images.names, split.digests, strict=True)
        for name, split in ((TRAIN, train), (VALIDATION, validation))
    }
    return TrainingData(
        class_names=tuple(class_names),
        train=train.images,
        validation=validation.images,
        fingerprint=_fingerprint(class_names, contents),
        notes=tuple(notes),
        skipped=tuple(skipped),
        groups=groups,
    )


def empty_images(count: int, size: int) -> torch.Tensor:
    """A uint8 tensor (N, 3, S, S) to be filled.

    Raises:
        DataError: it is larger than this machine's memory.
    """
    needed, memory = count * 3 * size * size, memory_of_machine()
    if needed > memory:
        raise DataError(
            f"{count:,} images of {size} px take {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f}: "
            "lower data.image_size."
        )
    return torch.empty((count, 3, size, size), dtype=torch.uint8)


def _fingerprint(class_names: Sequence[str], contents: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """sha256, in hex, over the classes and each split's (name, digest of the content) pairs, in order."""
    total = hashlib.sha256()
    for part, files in (("classes", ((name, "") for name in class_names)), *contents.items()):
        total.update(f"\0\0{part}".encode())
        for name, digest in files:
            total.update(b"\0" + name.encode("utf-8", "surrogateescape") + b"\0" + digest.encode())
    return total.hexdigest()
