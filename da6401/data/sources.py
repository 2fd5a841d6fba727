"""The labelled images of a configuration: train and validation here, test on request.

Training and sweeping call load_training_data, which never opens a file of the test split; only `evaluate` and its
kin call load_test_data.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from da6401.config.schema import DataConfig, DigitsConfig, FolderConfig
from da6401.data import embedded, folder, synthetic
from da6401.data.sets import ImageSet, TrainingData
from da6401.data.tree import LISTED, shown
from da6401.errors import DataError

__all__ = ["ImageSet", "TrainingData", "check_training_data", "load_test_data", "load_training_data"]

_lock = threading.Lock()
_last: tuple[str, TrainingData] | None = None


def load_training_data(cfg: DataConfig) -> TrainingData:
    """Train and validation. The last result stays in memory, so that a sweep's trials in one process share it.

    It is kept under the configuration and the names, sizes and modification times of the files: where one of them
    changes, everything is read again. Only one result is kept, and the old one goes before the new one is read.

    Raises:
        DataError: no such tree, classes that differ between the splits, a class without images, bad files
            (data.on_bad=stop), or images that do not fit into memory.
    """
    global _last
    with _lock:  # a second thread waits, and then shares
        tree = folder.list_training(cfg) if isinstance(cfg, FolderConfig) else None
        key = repr(cfg) if tree is None else f"{cfg!r} {tree.layout.root} {tree.signature()}"
        if _last is not None and _last[0] == key:
            return _last[1]
        _last = None
        if isinstance(cfg, FolderConfig):
            assert tree is not None
            data = folder.load_training(cfg, tree)
        elif isinstance(cfg, DigitsConfig):
            data = embedded.digits_training(cfg)
        else:
            data = embedded.synthetic_training(cfg)
        _last = (key, data)
        return data


def check_training_data(cfg: DataConfig) -> None:
    """What load_training_data would say to the names and places of the files; none of them is opened.

    Raises:
        DataError: no such tree, or classes that differ between the splits.
    """
    if isinstance(cfg, FolderConfig):
        folder.list_training(cfg)


def load_test_data(cfg: DataConfig, class_names: Sequence[str]) -> ImageSet:
    """The test split, labelled by the place in ``class_names``, those of the model. Bad files as data.on_bad says.

    Raises:
        DataError: the tree has no test split, its classes are not ``class_names``, or as load_training_data.
    """
    if isinstance(cfg, FolderConfig):
        return folder.load_test(cfg, class_names)
    own = embedded.DIGIT_CLASSES if isinstance(cfg, DigitsConfig) else synthetic.class_names(cfg.classes)
    if tuple(class_names) != own:
        raise DataError(
            f"data={cfg.source} has the classes {', '.join(own[:LISTED])}; the model knows "
            f"{', '.join(map(shown, class_names[:LISTED]))}: evaluate it on the data that it was trained on."
        )
    return embedded.digits_test(cfg) if isinstance(cfg, DigitsConfig) else embedded.synthetic_test(cfg)
