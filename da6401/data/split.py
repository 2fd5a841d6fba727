"""The validation split of a source without files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from da6401.config.schema import DigitsConfig, OwnDataConfig, SyntheticConfig
from da6401.data.draw import stratified_split
from da6401.data.image_sets import ReadSplit, TrainingData, training_data

__all__ = ["hold_out", "stratified_split"]


def hold_out(
    cfg: DigitsConfig | SyntheticConfig | OwnDataConfig,
    class_names: Sequence[str],
    labels_N: npt.NDArray[np.int64],
    read: Callable[[Sequence[int]], ReadSplit],
    *,
    origin: str,
    test: str,
) -> TrainingData:
    """Train and validation of a source without files: its images outside the test split, divided.

    Args:
        labels_N: of these images.
        read: makes the images at some positions of them.
        origin, test: what the images are, and which are the test split, for the note.
    """
    kept, held_out = stratified_split(labels_N.tolist(), cfg.val_fraction, cfg.split_seed)
    note = f"{origin}: {len(kept)} train, {len(held_out)} validation (data.split_seed={cfg.split_seed}); {test}."
    return training_data(class_names, read(kept), read(held_out), notes=[note])
