"""Part A's network, small, for what is not about its configuration."""

from __future__ import annotations

from typing import Any

from da6401.models.cnn import Cnn


def cnn(**changes: Any) -> Cnn:
    """Two blocks and a dense layer for images of 32 x 32 px and 3 classes, apart from what is given."""
    settings: dict[str, Any] = {
        "image_size": (32, 32), "num_classes": 3, "filters": [4, 8], "kernels": [3, 3], "convolutions": [1, 1],
        "activation": "relu", "batch_norm": True, "pooling": "max", "residual": False, "global_pool": False,
        "dense_width": 8, "block_dropout": 0.0, "dropout": 0.0,
    }  # fmt: skip
    return Cnn(**{**settings, **changes})
