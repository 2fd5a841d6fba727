"""The labelled images of a configuration: train and validation here, test on request.

A source is a class with the methods of Source, built from its part of the configuration. torch is imported when one is
built: the configuration asks for the names and keys alone.
Training and sweeping call load_training_data, which never opens a file of the test split; only `evaluate`, `explain`
and the like call load_test_data.
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeGuard

from da6401.config.schema import (
    DataConfig,
    DigitsConfig,
    FolderConfig,
    HuggingFaceConfig,
    ImageFiles,
    Resize,
    ShardsConfig,
    SyntheticConfig,
    TableConfig,
    TorchvisionConfig,
)
from da6401.errors import UnreachableError
from da6401.registry import DATA_SOURCES, DataSourceEntry

if TYPE_CHECKING:
    from da6401.data.image_sets import ImageSet, TrainingData

DATA_SOURCES.register("digits", DataSourceEntry(schema=DigitsConfig, source="da6401.data.digits:Digits"))
DATA_SOURCES.register(
    "folder", DataSourceEntry(schema=FolderConfig, source="da6401.data.folder:open_folder", reads_files=True)
)
DATA_SOURCES.register("synthetic", DataSourceEntry(schema=SyntheticConfig, source="da6401.data.synthetic:Synthetic"))
for _schema in (TableConfig, ShardsConfig, HuggingFaceConfig, TorchvisionConfig):
    _entry = DataSourceEntry(schema=_schema, source="da6401.data.listed:open_listed", reads_files=True)
    DATA_SOURCES.register(_schema().source, _entry)


class Source(Protocol):
    """Where labelled images come from. Every method may raise DataError."""

    def signature(self) -> str:
        """A text that changes when the training images change. Only names, sizes and times of files are read."""

    def load_training(self) -> TrainingData:
        """Train and validation."""

    def load_test(self, class_names: Sequence[str]) -> ImageSet:
        """The test split, labelled by the place in ``class_names``."""


_lock = threading.Lock()
_last: tuple[str, TrainingData] | None = None


def load_training_data(cfg: DataConfig) -> TrainingData:
    """Train and validation. The last result stays in memory: the trials that one process runs share it.

    It is used again while the configuration and the source's signature are the same, and dropped before another is
    read.

    Raises:
        DataError: no such tree, classes that differ between the splits, a class without images, bad files
            (data.bad_files=stop), or images that do not fit into memory.
    """
    global _last
    whole = dataclasses.replace(cfg, fold="")  # which all folds share
    with _lock, explain_read_errors():  # a second thread waits, and then shares
        source = _source(whole)
        key = f"{whole!r} {source.signature()}"
        if _last is None or _last[0] != key:
            _last = None
            _last = key, source.load_training()
        data = _last[1]
    if not cfg.fold:
        return data
    from da6401.data.folds import fold_of

    return fold_of(data, cfg.fold, seed=cfg.split_seed)


def check_training_data(cfg: DataConfig) -> None:
    """Check the names and places of the files as load_training_data does; none of them is opened.

    Raises:
        DataError: no such tree, or classes that differ between the splits.
    """
    with explain_read_errors():
        _source(cfg).signature()


def load_test_data(cfg: DataConfig, class_names: Sequence[str]) -> ImageSet:
    """The test split, labelled by the place in ``class_names``, those of the model. data.bad_files applies to it too.

    Raises:
        DataError: the tree has no test split, its classes are not ``class_names``, or as load_training_data.
    """
    with explain_read_errors():
        return _source(cfg).load_test(class_names)


@contextmanager
def explain_read_errors() -> Iterator[None]:
    """Raise a path of the data that may not be read as an UnreachableError.

    Raises:
        UnreachableError: a file or a folder, which the message names.
    """
    try:
        yield
    except PermissionError as error:  # what is written meanwhile, such as the cache, has errors of its own
        raise UnreachableError(
            f"{error.filename or 'the data'}: cannot be read ({error.strerror}): change the permissions of it and of "
            "the folders above it, which must be searchable (x), or leave it out of the data.",
            "data.root",
        ) from error


def reads_files(cfg: DataConfig) -> TypeGuard[ImageFiles]:
    """Whether the images are files, so that the keys that all files share say where they are and how they are read."""
    return DATA_SOURCES[cfg.source].reads_files


def resize_of(cfg: DataConfig) -> Resize:
    """How an image from elsewhere is resized for a model that was trained on these images."""
    return cfg.resize if reads_files(cfg) else "stretch"


def _source(cfg: DataConfig) -> Source:
    module, _, name = DATA_SOURCES[cfg.source].source.partition(":")
    source: Source = getattr(importlib.import_module(module), name)(cfg)
    return source
