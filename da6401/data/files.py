"""Labelled files as tensors: decoded into memory, or read through the cache of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from da6401.config.schema import ImageFiles
from da6401.data.cache.image_cache import open_cache
from da6401.data.decode import decode_files
from da6401.data.image_sets import ImageSet, Pixels, ReadSplit, empty_images
from da6401.data.tree import BadFile, LabelledFile


def read_splits(
    cfg: ImageFiles, root: Path, class_names: Sequence[str], splits: Sequence[Sequence[LabelledFile]], label: str
) -> list[ReadSplit]:
    """The images of each split, without the bad files. The splits share one cache entry, so a new split reuses it.

    Raises:
        DataError: the images do not fit into memory, or the cache cannot be used.
    """
    if cfg.cache == "off":
        return [_decode(cfg, class_names, files, f"reading {label}") for files in splits]
    together = sorted((file for files in splits for file in files), key=lambda file: file.name)
    row_of = {file.name: row for row, file in enumerate(together)}
    cached = open_cache(cfg, root, together, label=label)
    read = []
    for files in splits:
        outcomes = {row_of[file.name]: cached.outcomes[row_of[file.name]] for file in files}
        digests = {row: outcome for row, outcome in outcomes.items() if isinstance(outcome, str)}
        bad = tuple(outcome for outcome in outcomes.values() if isinstance(outcome, BadFile))
        images = _image_set(cached.images.select(list(digests)), [together[row] for row in digests], class_names)
        read.append(ReadSplit(images, tuple(digests.values()), bad))
    return read


def _decode(cfg: ImageFiles, class_names: Sequence[str], files: Sequence[LabelledFile], label: str) -> ReadSplit:
    images_NCHW = empty_images(len(files), cfg.image_size)
    decoded = decode_files(files, images_NCHW.numpy(), resize=cfg.resize, label=label)
    if decoded.bad:
        images_NCHW = images_NCHW[torch.tensor(list(decoded.digests), dtype=torch.int64)]
    images = _image_set(images_NCHW, [files[row] for row in decoded.digests], class_names)
    return ReadSplit(images, tuple(decoded.digests.values()), tuple(decoded.bad.values()))


def _image_set(images_NCHW: Pixels, files: Sequence[LabelledFile], class_names: Sequence[str]) -> ImageSet:
    number = {name: label for label, name in enumerate(class_names)}
    labels_N = torch.tensor([number[file.class_name] for file in files], dtype=torch.int64)
    return ImageSet(images_NCHW, labels_N, tuple(file.name for file in files))
