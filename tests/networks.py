"""Part A's network, small, for what is not about its configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from da6401.config.schema import CnnConfig
from da6401.models.cnn import Cnn

SMALL = CnnConfig(filters=[4, 8], dense_width=8)


def cnn(image_size: tuple[int, int] = (32, 32), num_classes: int = 3, **changes: Any) -> Cnn:
    """Two blocks and a dense layer for images of 32 x 32 px and 3 classes, apart from what is given."""
    return Cnn(dataclasses.replace(SMALL, **changes), image_size=image_size, num_classes=num_classes)
