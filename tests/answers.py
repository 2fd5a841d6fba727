"""A model's answers that are made by hand: which images are wrong, and how sure it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from da6401.runs.predictions import Predictions

CLASSES = ("a", "b", "c")


def answers(
    labels: Sequence[int], *, wrong: Collection[int] = (), sure: float = 0.8, prefix: str = "val"
) -> Predictions:
    """Each image's true class with probability ``sure``, or, where it is wrong, the next class.

    Args:
        wrong: places of the images that are predicted wrong.
        prefix: of the images' names, so that two splits have others.
    """
    labels_N = np.array(labels, dtype=np.int64)
    predicted_N = np.array([(label + (row in wrong)) % 3 for row, label in enumerate(labels)])
    probabilities_NK = np.full((len(labels), 3), (1 - sure) / 2, dtype=np.float32)
    probabilities_NK[np.arange(len(labels)), predicted_N] = sure
    return Predictions(CLASSES, tuple(f"{prefix}/{row}.jpg" for row in range(len(labels))), labels_N, probabilities_NK)
